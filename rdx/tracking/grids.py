"""The page of a grid in MLflow: its cells by name, its best row, its description and view."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rdx.equality import settled
from rdx.facts import OK
from rdx.tracking import notes
from rdx.tracking.log import Row, Table

VIEW = "mlflow.sharedViewState."  # tags of an experiment in which the UI keeps its saved views


@dataclass(frozen=True)
class Cell:
    """A cell of a grid.

    Attributes
    ----------
    name
        What tells it from the others of the grid.
    line
        The same without the seed: cells of one line are the seeds of one configuration.
    run_id
        Of its run, "" before there is one.
    parent
        The run above that, of the grid or of its seeds; "" if the grid did not train it.
    score
        The student's mean of the grid's measure, None without one.
    """

    name: str
    line: str
    run_id: str
    parent: str
    state: str
    health: str | None
    score: float | None


@dataclass(frozen=True)
class Best:
    """The best line: the mean of its seeds' scores, and its cells, the best first."""

    score: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Page:
    """What the page of a grid shows.

    Attributes
    ----------
    cells
        By the mean score of their lines, then by their own, the highest first; the first of equals.
    """

    table: Table
    run_id: str
    cells: tuple[Cell, ...]

    @classmethod
    def of(
        cls, table: Table, run_id: str, runs: Mapping[str, str], parents: Mapping[str, str]
    ) -> Page:
        """Of a grid's table and run.

        Parameters
        ----------
        runs
            The run of each cell that has one, by its signature.
        parents
            The run above each run that the grid made.
        """
        cells = []
        for row, name in zip(table.rows, _names(table.rows), strict=True):
            run = runs.get(row.signature, "")
            score = notes.score(row.means, table.measure)
            line, parent = notes.without_seed(name), parents.get(run, "")
            cells.append(Cell(name, line, run, parent, row.state, row.health, score))
        means = [_mean([other for other in cells if other.line == cell.line]) for cell in cells]
        of_lines = settled([-1.0 if mean is None else mean for mean in means])
        own = settled([-1.0 if cell.score is None else cell.score for cell in cells])
        order = sorted(range(len(cells)), key=lambda i: (of_lines[i], own[i]), reverse=True)
        return cls(table, run_id, tuple(cells[i] for i in order))

    @property
    def lines(self) -> dict[str, list[Cell]]:
        """The cells by their lines, the best line first."""
        lines: dict[str, list[Cell]] = {}
        for cell in self.cells:
            lines.setdefault(cell.line, []).append(cell)
        return lines

    @property
    def best(self) -> Best | None:
        """The first line whose cells all have a score and are sound; None if there is none."""
        for cells in self.lines.values():
            if all(cell.health == OK and cell.score is not None for cell in cells):
                mean = _mean(cells)
                assert mean is not None
                return Best(mean, tuple(cells))
        return None

    def note(self, experiment_id: str) -> str:
        """The description: the best line, ways to all cells and to the report; then the table."""
        name, measure = notes.grid_name(self.table.grid), self.table.measure or "score"
        files = f"runs/{self.run_id}/artifacts"
        report = notes.address(experiment_id, f"{files}/analysis/report.html")
        view = f"runs?viewStateShareKey={self.run_id}"
        table = notes.address(experiment_id, view)
        charts = notes.address(experiment_id, f"{view}&compareRunsMode=CHART")
        lines = [
            f"{self._answer(experiment_id, measure)}  ",  # two spaces: a new line
            f"All {len(self.cells)} cells: [table, best first]({table}) · [charts]({charts}) · "
            f"[report with tests]({report}), after `python -m analysis {name}`.",
        ]
        if elsewhere := [cell for cell in self.cells if cell.run_id and not cell.parent]:
            lines[-1] += "  "
            links = [_linked(cell, experiment_id) for cell in elsewhere]
            fits = _fitting(links, notes.NOTE_LENGTH // 3)
            more = f" and {len(links) - fits} more" if fits < len(links) else ""
            lines.append(f"Trained before this grid: {', '.join(links[:fits])}{more}.")
        if claim := self.table.claim:
            lines += ["", f"**Claim.** {claim}"]
        lines += ["", f"| cell | {measure} | state | health |", "|---|---:|---|---|"]
        rows = [_row(cell, experiment_id) for cell in self.cells]
        fits = _fitting(rows, notes.NOTE_LENGTH - 400 - len("\n".join(lines)))
        lines += rows[:fits]
        if fits < len(rows):
            cells = notes.address(experiment_id, f"{files}/cells.json")
            lines += ["", f"… and {len(rows) - fits} more: [cells.json]({cells})"]
        lines += ["", notes.HOW_TO_READ]
        return notes.cut("\n".join(lines), notes.NOTE_LENGTH)

    def _answer(self, experiment_id: str, measure: str) -> str:
        if self.best is None:
            return "No row of this grid is complete yet."
        cells = self.best.cells
        [first, *others] = cells
        name = first.line or ("the one configuration" if others else first.name)
        above = first.parent if others and first.parent != self.run_id else ""
        row = _link(name, above or first.run_id, experiment_id)
        seeds = f", mean of {len(cells)} seeds" if others else ""
        return f"**{measure} {self.best.score:.4f}**: {row}{seeds}; best of {len(self.lines)} rows."

    def view(self) -> str:
        """The saved view of the grid's cells as the UI keeps it: filter, order, columns."""
        score = notes.quoted("metrics", notes.score_key(self.table.measure))
        state = {
            "searchFilter": f"{notes.quoted('tags', notes.member(self.table.grid))} != ''",
            "orderByKey": score,
            "orderByAsc": False,
            "selectedColumns": [score, *(notes.quoted("params", axis) for axis in self._axes)],
        }
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        view = {"name": self.table.grid, "createdAt": self.table.time, "state": f"deflate;{packed}"}
        return json.dumps(view)

    @property
    def _axes(self) -> list[str]:
        """The params that vary between the cells."""
        words = [row.overrides.split() for row in self.table.rows]
        varied = [word for cell in words for word in cell if not all(word in w for w in words)]
        keys = [word.partition("=")[0].lstrip("+").replace("/", ".") for word in varied]
        return [notes.legal(key) for key in dict.fromkeys(keys)]


def names(table: Table) -> dict[str, str]:
    """The names of a grid's cells by their signatures."""
    return {row.signature: n for row, n in zip(table.rows, _names(table.rows), strict=True)}


def _names(rows: Sequence[Row]) -> list[str]:
    short = notes.short_names([row.overrides or row.signature for row in rows])
    return [name or row.signature for name, row in zip(short, rows, strict=True)]


def _mean(cells: Sequence[Cell]) -> float | None:
    """Of those cells that have a score; None if none has."""
    scores = [cell.score for cell in cells if cell.score is not None]
    return sum(scores) / len(scores) if scores else None


def _link(name: str, run_id: str, experiment_id: str) -> str:
    return f"[{name}]({notes.address(experiment_id, f'runs/{run_id}')})" if run_id else name


def _linked(cell: Cell, experiment_id: str) -> str:
    score = "" if cell.score is None else f" {cell.score:.4f}"
    return f"{_link(cell.name, cell.run_id, experiment_id)}{score}"


def _row(cell: Cell, experiment_id: str) -> str:
    score = "" if cell.score is None else f"{cell.score:.4f}"
    name = _link(cell.name, cell.run_id, experiment_id)
    return f"| {name} | {score} | {cell.state} | {cell.health or ''} |"


def _fitting(texts: Sequence[str], length: int) -> int:
    """How many of the texts fit, with a character between them."""
    total = 0
    for i, text in enumerate(texts):
        total += len(text) + 1
        if total > length:
            return i
    return len(texts)
