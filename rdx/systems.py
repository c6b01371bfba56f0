"""Other people's systems: TREC runs, measured without a model and registered as trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import yaml

from rdx import config, pipeline, rankings
from rdx import evaluation as ev
from rdx.data import Collection
from rdx.samplers import Recorded, top
from rdx.store import Store, signature, write_json


@dataclass(frozen=True)
class Run:
    """A TREC run.

    Parameters
    ----------
    path
        The file; may be .gz or .zst.
    order
        "score": by score, ties by doc id descending, as trec_eval; "rank": by the rank column, and
        scores are the negative ranks.
    """

    path: str
    order: str = "score"

    @property
    def name(self) -> str:
        """File name without the endings of runs."""
        name = Path(self.path).name
        for ending in (".gz", ".zst", ".run", ".trec", ".txt"):
            name = name.removesuffix(ending)
        return name

    @property
    def sha256(self) -> str:
        """Of the file."""
        with Path(self.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, test: Collection) -> pd.DataFrame:
        """The ranking of the queries of a collection; others are left out.

        Raises
        ------
        FileNotFoundError, FormatError
            If there is no such file, it is no run, or it ranks none of the queries.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file (in {Path.cwd()})")
        ranking = rankings.read_trec(self.path, order=self.order)  # type: ignore[arg-type]
        if self.order == "rank":  # then no rule for ties may look at the scores
            ranking = ranking.assign(score=-ranking["rank"].astype("float32"))
        kept = ranking[ranking.query_id.isin(test.queries)].reset_index(drop=True)
        if kept.empty:
            raise rankings.FormatError(
                f"{self.path}: none of its {ranking.query_id.nunique()} queries is among the "
                f"{len(test.queries)} judged queries of collection {test.name!r}"
            )
        return kept


def collections(
    words: Sequence[str], first_stage: str | None = None, measures: Sequence[str] = ()
) -> tuple[SimpleNamespace, list[str]]:
    """The evaluation that a command line chooses, and the collections that it names.

    Parameters
    ----------
    words
        Hydra overrides; options of `evaluation`, which stand for ``evaluation=OPTION``; and names
        of collections of the evaluation, by default all.
    first_stage
        A run that replaces the first stages of the collections.
    measures
        Replace the evaluation's.

    Returns
    -------
    cell, names
        `cell` has what `rdx.pipeline` needs for test collections: cfg, store, parts; of the
        evaluation's collections it holds the named ones only, so that the others may lack files.

    Raises
    ------
    ConfigError
        On an unknown word, key or value.
    """
    options = sorted(path.stem for path in (config.CONF / "evaluation").glob("*.yaml"))
    overrides = [f"evaluation={w}" if w in options else w for w in words]
    names = [w for w in overrides if "=" not in w and not w.startswith("~")]
    cfg = config.composed([w for w in overrides if w not in names])
    known = [str(name) for name in cfg.evaluation.collections]
    for name in names:
        if name not in known:
            raise config.ConfigError(
                f"--collection {name}: neither an option of evaluation ({', '.join(options)}) nor "
                f"one of its collections ({', '.join(known)})"
            )
    names = list(dict.fromkeys(names)) or known
    cfg.evaluation.collections = {name: cfg.evaluation.collections[name] for name in names}
    if measures:
        cfg.evaluation.measures = list(measures)
    if first_stage is not None:
        run = {"_target_": "rdx.samplers.Recorded", "run": first_stage, "order": "score"}
        for name in names:
            cfg.evaluation.collections[name].first_stage = {**run, "missing": "error"}
    plain = config.resolved(cfg)
    parts = {group: config.build(plain[group], group) for group in ("evaluation", "tracking")}
    for one in parts["evaluation"].collections.values():
        if hasattr(one.data, "check"):
            one.data.check()
    return SimpleNamespace(cfg=plain, store=Store(Path(plain["store"])), parts=parts), names


class _Everything(Mapping[str, str]):
    """Passages that all exist and have no text: rankings are measured without it."""

    def __contains__(self, doc_id: object) -> bool:
        return True

    def __getitem__(self, doc_id: str) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def candidates(cell: Any, name: str, test: Collection) -> pd.DataFrame:
    """The first stage of a test collection, without opening its texts where they are not needed."""
    stage, k = cell.parts["evaluation"].collections[name].first_stage, cell.parts["evaluation"].k
    if isinstance(stage, Recorded) and stage.missing == "error":
        test = replace(test, passages=_Everything())
    found: pd.DataFrame = stage.candidates(test, k)
    return found


def outside(ranking: pd.DataFrame, first: pd.DataFrame) -> pd.Series[bool]:
    """Whether each passage of a ranking is not among the candidates."""
    pairs = pd.MultiIndex.from_frame(ranking[["query_id", "doc_id"]])
    inside = pairs.isin(pd.MultiIndex.from_frame(first[["query_id", "doc_id"]]))
    return pd.Series(~inside, index=ranking.index)


def evaluate(
    cell: Any, name: str, runs: Sequence[Run], with_first_stage: bool
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Measure runs on one test collection.

    Runs are measured as deep as they are. Without a first stage, a run's ceiling is the best order
    of its own top k.

    Returns
    -------
    per_query, rows
        The per-query table, and per system its name, means by measure, "ceiling" of the first
        measure, "judged@10", "queries", "missing" (judged queries that it does not rank; they count
        0), "ties" (share of neighbours in the top k with equal scores), "outside" (share of
        passages that the first stage does not have, None without one) and "degenerate" (why; "" if
        it is not).
    """
    evaluation = cell.parts["evaluation"]
    test = pipeline.tested_queries(cell, name)
    systems = {}
    for run in runs:
        if run.name in systems:
            raise config.ConfigError(
                f"{run.path}: a second system {run.name!r}; rename one of the files"
            )
        systems[run.name] = run.read(test)
    first = candidates(cell, name, test) if with_first_stage else None
    if first is not None:
        systems = {"first_stage": first, **systems}
    rows, tables = [], []
    for system, ranking in systems.items():
        pool = top(ranking, evaluation.k) if first is None else first
        best = {system: ranking, "oracle": ev.oracle(pool, test.qrels)}
        table = ev.per_query(name, best, test.qrels, evaluation.measures, evaluation.ties)
        tables.append(table[table.system == system])
        beside = ev.facts(pool, ranking, test.qrels, table, evaluation)
        rows.append({
            "system": system,
            **tables[-1].groupby("measure", sort=False).value.mean().to_dict(),
            "ceiling": beside["ceiling"],
            "judged@10": beside["judged@10"],
            "queries": test.qrels.query_id.nunique(),
            "missing": len(set(test.qrels.query_id) - set(ranking.query_id)),
            "ties": beside["ties"]["system"],
            "outside": None if first is None else float(outside(ranking, first).mean()),
            "degenerate": beside["reason"],
        })  # fmt: skip
    return pd.concat(tables, ignore_index=True), rows


def register(
    cell: Any, name: str, runs: Mapping[str, Run], drop_outside: bool = False, source: str = ""
) -> tuple[str, dict[str, Any]]:
    """Register runs of one system, by collection, as a trial in the form of a cell's.

    A system may stand beside re-rankers if it orders the same candidates: its own top k, of which
    every passage must be among the first stage's top k.

    Parameters
    ----------
    cell
        As of `collections`.
    name
        Of the system; tables select it as ``run:NAME``.
    runs
        Its run for every collection.
    drop_outside
        Cut a run to the candidates of the first stage, rather than refuse it.
    source
        Where the runs come from.

    Returns
    -------
    signature, facts
        Of the trial.
    """
    if not hasattr(cell.parts["tracking"], "uri"):
        raise config.ConfigError("tracking=none: an import is nothing but a record in MLflow")
    evaluation, system = cell.parts["evaluation"], f"run:{name}"
    tests, tables, found = {}, [], {}
    for collection, run in runs.items():
        test = pipeline.tested_queries(cell, collection)
        first = candidates(cell, collection, test)
        ranking = _within(run, run.read(test), first, evaluation.k, drop_outside)
        systems = {"first_stage": first, "oracle": ev.oracle(first, test.qrels), system: ranking}
        table = ev.per_query(collection, systems, test.qrels, evaluation.measures, evaluation.ties)
        compared = pipeline.compared(cell, collection, test)
        found[collection] = {**compared, **ev.facts(first, ranking, test.qrels, table, evaluation)}
        tests[collection] = ev.Tested(test, systems)
        tables.append(table)
    files = {
        c: {"file": Path(r.path).name, "sha256": r.sha256, "order": r.order}
        for c, r in runs.items()
    }
    content = [one["sha256"] for one in files.values()]
    imported = {
        "name": name,
        "file": ", ".join(dict.fromkeys(one["file"] for one in files.values())),
        "sha256": content[0] if len(content) == 1 else signature(content),
        "files": files,
        "source": source,
    }
    settings = config.identity(cell.cfg)["evaluation"]
    key = signature(["import", name, files, drop_outside, settings, found])
    pools = ev.by_corpus(evaluation, tests, found)
    table = pd.concat([*tables, *pools], ignore_index=True)
    facts = {
        "signature": key,
        "levels": {},
        "seed": 0,
        "health": "ok",
        "collections": found,
        "over_collections": ev.all_means(table, found),
        "imported": imported,
    }
    given = {"imported": imported, "evaluation": cell.cfg["evaluation"]}
    _record(cell, key, facts, given, table, {c: one.systems[system] for c, one in tests.items()})
    return key, facts


def _within(
    run: Run, ranking: pd.DataFrame, first: pd.DataFrame, k: int, drop: bool
) -> pd.DataFrame:
    """A run's top k, all of them candidates."""
    if drop:
        ranking = ranking[~outside(ranking, first)]
        if ranking.empty:
            raise rankings.FormatError(f"{run.path}: holds none of the first stage's candidates")
        ranking = rankings.rank(ranking.query_id, ranking.doc_id, ranking.score)
    ranking = top(ranking, k)
    strange = outside(ranking, first)
    if strange.any():
        one = ranking[strange].iloc[0]
        raise rankings.FormatError(
            f"{run.path}: {int(strange.sum())} of its {len(ranking)} passages (e.g. "
            f"{one.doc_id!r} of query {one.query_id!r}) are not in the first stage's top {k}: it "
            "re-ranks another first stage, or a deeper one; --outside drop cuts it to this one"
        )
    return ranking


def _record(
    cell: Any,
    key: str,
    facts: dict[str, Any],
    given: dict[str, Any],
    table: pd.DataFrame,
    rank: Mapping[str, pd.DataFrame],
) -> None:
    """Write the trial's files into the store and its record into MLflow, unless both are there."""

    def make(folder: Path) -> None:
        (folder / "runs").mkdir(exist_ok=True)
        for collection, ranking in rank.items():
            rankings.write_trec(ranking, folder / "runs" / f"{collection}.run.gz", "rdx")
        rankings.write_parquet(table, folder / pipeline.PER_QUERY)
        write_json(folder / pipeline.FACTS, facts)
        (folder / pipeline.CONFIG).write_text(
            yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
        )

    folder = cell.store.cached("import", key, make)
    track = replace(cell.parts["tracking"], system_metrics=False)
    if track.finished(key):
        return
    name = facts["imported"]["name"]
    means = table.groupby(["collection", "system", "measure"]).value.mean()
    with track.trial(signature=key, levels={}, config=given, grid="", seed=0) as trial:
        trial.set_tag("rdx.imported", name)
        trial.set_tag("mlflow.runName", f"run:{name}")
        trial.set_health(facts["health"])
        trial.log_result(folder, facts, {"/".join(i): float(v) for i, v in means.items()})


def timings(store: Path, signatures: Sequence[str]) -> list[dict[str, Any]]:
    """The timings of single queries of finished cells, one row per cell and collection.

    Returns
    -------
    list of dict
        "cell", "collection", what `rdx.evaluation.timed` gave, and "ratio": seconds per query in
        units of the first cell's, with its 95 % interval; None for the first cell itself.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for given in signatures:
        found = sorted(path.parent for path in (store / "evaluate").glob(f"{given}*/timing.json"))
        if len(found) != 1:
            raise config.ConfigError(f"{given}: {len(found)} finished cells in {store}/evaluate")
        for name, timing in json.loads((found[0] / "timing.json").read_text()).items():
            if "single" not in timing:
                raise config.ConfigError(
                    f"{given}: was not timed; run its command with evaluation.efficiency=3"
                )
            one = timing["single"]
            base = first.setdefault(name, one)
            ratio = None if base is one else ev.ratio(one["seconds"], base["seconds"])
            rows.append({"cell": given, "collection": name, **one, "ratio": ratio})
    return rows
