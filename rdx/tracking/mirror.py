"""Write logs as MLflow runs; import this through `rdx.tracking`, which silences mlflow."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException

from rdx.tracking import database, grids, models, notes
from rdx.tracking.log import (
    ATTACHED,
    CELL,
    FAILED,
    FINISHED,
    GRID,
    End,
    Entry,
    Log,
    Points,
    Result,
    Start,
    Table,
    Tags,
    now,
)
from rdx.tracking.seeds import Seeds

if TYPE_CHECKING:
    from rdx.tracking import MLflow

METRICS_PER_BATCH = 1000  # mlflow.utils.validation.MAX_METRICS_PER_BATCH
PARENT_SECONDS = 60.0  # that a trial waits for another one that makes the run of their grid
PARENT, GRID_TAG = "mlflow.parentRunId", "rdx.grid"
STALE = {"rdx.error", "rdx.health"}  # tags of a trial that is gone on with


class Mirror:
    """Writes a log as a run of MLflow; whatever is written may be written again.

    Attributes
    ----------
    position
        How much of the log is there.
    resumed
        Whether the run was there before.
    closed
        Whether this process does not hold the log any more.
    """

    def __init__(self, settings: MLflow, log: Log) -> None:
        self.settings, self.log, self.target = settings, log, settings.target
        self.position = log.position(self.target)
        self.resumed = self.closed = False
        self._start: Start | None = None
        for entry in log.entries[: self.position.delivered]:
            self._start = entry if isinstance(entry, Start) else self._start

    @property
    def run_id(self) -> str:
        """Of the run; "" before there is one."""
        return self.position.run_id

    @functools.cached_property
    def client(self) -> MlflowClient:
        """The client that writes."""
        return database.client_of(self.settings.uri)

    @functools.cached_property
    def experiment_id(self) -> str:
        """Of the experiment, which is created at need."""
        return self.require_experiment()

    def require_experiment(self) -> str:
        """Id of the experiment, which is created at need; RecordError if it was deleted."""
        settings = self.settings
        return database.experiment_id(
            self.client, settings.experiment, settings.artifacts, settings.uri
        )

    def pending(self) -> Sequence[Entry]:
        """The lines that are not there yet."""
        return self.log.entries[self.position.delivered :]

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Write the first line, and whatever points of curves fit with it."""
        count = 1
        match entries[0]:
            case Points():
                count = self._points(entries)
            case Start() as start:
                self._begin(start)
            case Tags(values=values):
                self._tag({key: notes.cut(value) for key, value in values.items()})
            case Result() as result:
                self._result(result)
            case Table() as table:
                self._table(table)
            case End() as end:
                self._end(end)
        self._move(delivered=self.position.delivered + count)

    def refused(self, cause: str) -> None:
        """Leave the next line out, which MLflow refused."""
        lost = self.position.lost or cause
        self._move(lost=lost, delivered=self.position.delivered + 1)

    def _move(self, **changes: Any) -> None:
        self.position = replace(self.position, **changes)
        if not self.closed:
            self.log.move(self.target, self.position)

    # --- the lines of a trial ---

    def _begin(self, start: Start) -> None:
        self._start = start
        name = notes.cut(self._name(start) or notes.run_name(start.levels, start.seed))
        tags = {
            **{group: notes.cut(option) for group, option in start.levels.items()},
            "seed": str(start.seed),
            "rdx.kind": "trial",
            "rdx.signature": start.signature,
            "rdx.trial": start.token,
            **start.tags,
        }
        if start.cell:
            tags["rdx.cell"] = start.cell
        if start.grid:
            tags[GRID_TAG] = notes.grid_name(start.grid)
            tags[PARENT] = self._parent(start)
            tags[notes.member(start.grid)] = name
        run = self._existing(f"tags.`rdx.trial` = '{start.token}'")
        self.resumed = run is not None
        if run is None:
            run = self.client.create_run(
                self.experiment_id, tags=tags, run_name=name, start_time=start.time
            )
        else:
            run_id = run.info.run_id
            self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
            for stale in STALE & run.data.tags.keys():
                self.client.delete_tag(run_id, stale)
            self.client.update_run(run_id, status="RUNNING", name=name)
        self._move(run_id=run.info.run_id, status="")
        self._note(notes.of_trial(start))
        database.log_params(self.client, run, notes.params(start.config, start.levels, start.seed))
        text = yaml.safe_dump(start.config, sort_keys=False, allow_unicode=True)
        self._upload("config.yaml", text)
        self._attached()

    def _points(self, entries: Sequence[Entry]) -> int:
        """Log points up to the first line of another kind; returns how many lines."""
        metrics: list[Metric] = []
        count = 0
        for entry in entries:
            if not isinstance(entry, Points) or len(metrics) >= METRICS_PER_BATCH:
                break
            named = {notes.legal(name): value for name, value in entry.values.items()}
            metrics += [Metric(k, float(v), entry.time, entry.step) for k, v in named.items()]
            count += 1
        self._log(metrics)
        return count

    def _result(self, result: Result) -> None:
        start = self._begun
        model = self._model(start, result)
        digests = {entry.name: entry.digest[: database.DIGEST_LENGTH] for entry in result.inputs}
        self._log(
            [
                Metric(
                    *(score.key, score.value, result.time, 0),
                    model_id=model if score.of_student else None,
                    dataset_name=score.collection,
                    dataset_digest=digests[score.collection] if score.collection else None,
                )
                for score in notes.finals(result.metrics, digests, start.measure)
            ]
        )
        self._note(notes.of_trial(start, result, f"{self.experiment_id}/runs/{self.run_id}"))
        if result.inputs:
            database.log_inputs(self.client, self.run_id, result.inputs)
        folder = self.log.store / result.folder
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there any more")
        self.client.log_artifacts(self.run_id, str(folder))
        self._attached()
        if self.settings.log_model and result.checkpoint:
            checkpoint = self.log.store / result.checkpoint
            models.log_model(self.client, self.run_id, checkpoint, start.config["student"])

    def _model(self, start: Start, result: Result) -> str | None:
        """Id of the student as a model of MLflow; None where nothing was trained."""
        if not result.checkpoint:
            return None
        tags = {"rdx.signature": start.signature, "rdx.checkpoint": result.checkpoint}
        return models.logged(self.client, self.experiment_id, self.run_id, tags)

    def _end(self, end: End) -> None:
        lost = self.position.lost
        cause = end.error or (f"record incomplete: {lost}" if lost else "")
        if cause:
            self.client.set_tag(self.run_id, "rdx.error", notes.cut(cause))
        status = FAILED if lost and end.status == FINISHED else end.status
        self.client.set_terminated(self.run_id, status, end_time=end.time)
        start = self._begun
        if status == FINISHED and start.cell:
            self._summarise(start)
        if start.grid and (grid := self._beside(GRID, start.grid).run_id):
            self.client.set_terminated(grid, FINISHED)
        self._move(status=status)

    # --- seeds ---

    def _summarise(self, start: Start) -> None:
        """Write what the seeds of the trial's cell have in common, under the lock of the cell."""
        cell = self._beside(CELL, start.cell)
        keys = [
            score.key
            for entry in self.log.entries
            if isinstance(entry, Result)
            for score in notes.finals(entry.metrics, {i.name for i in entry.inputs}, start.measure)
            if score.of_student
        ]
        with cell.log.free(PARENT_SECONDS) as free:
            if not free:
                raise TimeoutError(f"another process writes the seeds of {start.cell}")
            cell.position = cell.log.position(cell.target)
            cell._seeds(start, keys)

    def _seeds(self, start: Start, keys: Sequence[str]) -> None:
        """The run of a cell over its seeds, from two finished ones on; they become its children.

        Those that another grid made stay where they are, and are counted all the same.
        """
        ours = f"tags.`rdx.cell` = '{start.cell}' and tags.`rdx.kind`"
        finished = self._search(f"{ours} = 'trial' and attributes.status = 'FINISHED'")
        seeds = Seeds.of(finished, keys)
        if len(seeds.trials) < 2 or not seeds.scores:
            return
        run = self._existing(f"{ours} = 'cell'") or self._new_cell(start)
        self._move(run_id=run.info.run_id)
        self._log(seeds.metrics(now()))
        self._tag(seeds.tags())
        self._note(seeds.note(self.experiment_id, start.measure))
        for trial in seeds.trials.values():
            tags = trial.data.tags
            if (
                tags.get(GRID_TAG) == run.data.tags.get(GRID_TAG)
                and tags.get(PARENT) != self.run_id
            ):
                self.client.set_tag(trial.info.run_id, PARENT, self.run_id)
        self.client.set_terminated(self.run_id, FINISHED)

    def _new_cell(self, start: Start) -> Run:
        """A run with the params and tags that the seeds of a cell share."""
        params = notes.params(start.config, start.levels, start.seed)
        del params["seed"]
        tags = {group: notes.cut(option) for group, option in start.levels.items()}
        tags |= {"rdx.kind": "cell", "rdx.cell": start.cell, **start.tags}
        if start.grid:
            tags |= {GRID_TAG: notes.grid_name(start.grid), PARENT: self._parent(start)}
        name = notes.cut(notes.without_seed(self._name(start)) or notes.run_name(start.levels))
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        database.log_params(self.client, run, params)
        return run

    # --- grids ---

    def _name(self, start: Start) -> str:
        """What tells the trial from the others of its grid, whose table was written before it."""
        table = self._beside(GRID, start.grid).log.table if start.grid else None
        return grids.names(table).get(start.signature, "") if table else ""

    def _parent(self, start: Start) -> str:
        """The run of the trial's grid; the first of its trials makes it."""
        grid = self._beside(GRID, start.grid)
        if grid._existing() is not None:
            return grid.run_id
        with grid.log.free(PARENT_SECONDS) as free:
            if not free:
                raise TimeoutError(f"another process makes the run of {start.grid}")
            grid.position = grid.log.position(grid.target)
            return grid._grid_run(start.grid, start.claim, start.tags)

    def _grid_run(self, grid: str, claim: str, tags: Mapping[str, str]) -> str:
        """The run of a grid, which is created at need and left FINISHED."""
        name = notes.grid_name(grid)
        run = self._existing(f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` = '{name}'")
        if run is None:
            grid_tags = {"rdx.kind": "grid", GRID_TAG: name, "rdx.claim": notes.cut(claim), **tags}
            run = self.client.create_run(self.experiment_id, tags=grid_tags, run_name=name)
            self._move(run_id=run.info.run_id)
            self._note(f"**Claim.** {claim}" if claim else "")
            self.client.set_terminated(self.run_id, FINISHED)
        self._move(run_id=run.info.run_id)
        return self.run_id

    def _table(self, table: Table) -> None:
        """Write the table of a grid, its description, score and saved view; mark the best cell.

        The best is the best seed of the best row (`rdx.tracking.grids`). If its model was logged,
        it is registered under the grid's name, with the alias "best".
        """
        self._grid_run(table.grid, table.claim, table.tags)
        name = notes.grid_name(table.grid)
        keys = [row.signature for row in table.rows]
        runs = {key: Log(self.log.store, key).position(self.target).run_id for key in keys}
        rows = [{**vars(row), "run_id": runs[row.signature] or None} for row in table.rows]
        self._upload("cells.json", json.dumps(rows, indent=2))
        made = self._search(_trials(name))
        parents = {run.info.run_id: run.data.tags.get(PARENT, "") for run in made}
        page = grids.Page.of(table, self.run_id, runs, parents)
        tag = notes.member(table.grid)
        known = {run.info.run_id for run in self._search(f"{notes.quoted('tags', tag)} != ''")}
        for cell in page.cells:
            if cell.run_id and cell.run_id not in known:
                database.tag_other(self.client, cell.run_id, tag, notes.cut(cell.name))
        self._note(page.note(self.experiment_id))
        if table.measure:
            place = f"{grids.VIEW}{self.run_id}"
            self.client.set_experiment_tag(self.experiment_id, place, page.view())
        if page.best:
            self._log([Metric(notes.score_key(table.measure), page.best.score, table.time, 0)])
            if best := page.best.cells[0].run_id:
                self._mark(name, best)
        self._move(status=FINISHED)

    def _mark(self, grid: str, best: str) -> None:
        """Tag the best cell of a grid, and no other of its children; register its model."""
        for run in self._search(f"tags.`rdx.best` = 'true' and {_trials(grid)}"):
            if run.info.run_id != best:
                self.client.delete_tag(run.info.run_id, "rdx.best")
        database.tag_other(self.client, best, "rdx.best", "true")
        self.client.set_tag(self.run_id, "rdx.best_run", best)
        if any(entry.path == models.MODEL for entry in self.client.list_artifacts(best)):
            models.register(self.client, best, grid)

    # --- what they share ---

    def _beside(self, kind: str, name: str) -> Mirror:
        """The mirror of the grid, or of the seeds, that a trial belongs to."""
        return Mirror(self.settings, Log(self.log.store, f"{kind}{name}"))

    @property
    def _begun(self) -> Start:
        if self._start is None:
            raise ValueError(f"{self.log.folder}: a log without a beginning")
        return self._start

    def _existing(self, condition: str = "") -> Run | None:
        """The log's own run, else one that meets a condition; None of one that was deleted."""
        if self.run_id:
            try:
                run = self.client.get_run(self.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                return run if run.info.lifecycle_stage == "active" else None
        return next(iter(self._search(condition)), None) if condition else None

    def _search(self, condition: str) -> list[Run]:
        return database.search(self.client, self.experiment_id, condition)

    def _log(self, metrics: Sequence[Metric]) -> None:
        for i in range(0, len(metrics), METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[i : i + METRICS_PER_BATCH])

    def _tag(self, values: Mapping[str, str]) -> None:
        tags = [RunTag(key, value) for key, value in values.items()]
        self.client.log_batch(self.run_id, tags=tags)

    def _note(self, text: str) -> None:
        self.client.set_tag(self.run_id, notes.NOTE, text)

    def _attached(self) -> None:
        for name in ATTACHED:
            if (path := self.log.folder / name).exists():
                self.client.log_artifact(self.run_id, str(path))

    def _upload(self, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            self.client.log_artifact(self.run_id, str(path))


def _trials(grid: str) -> str:
    return f"tags.`rdx.kind` = 'trial' and tags.`rdx.grid` = '{grid}'"
