"""The file to read first: one cell, from candidates to an evaluated student.

    candidates -> teach -> select -> prefinetune -> distill -> evaluate

Each stage is computed once per signature (`rdx.config.signatures`) and kept in the store.
`rdx.materials` loads and retrieves what the stages work on; `rdx.tally` counts what gets lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rdx import accounting, rankings, tally, trainer
from rdx import evaluation as ev
from rdx.batches import Schedule
from rdx.config import precisions
from rdx.data import Collection, sample_queries
from rdx.facts import (
    VERSION,
    Audit,
    CheckpointFacts,
    QueryTiming,
    Setting,
    Timing,
    TrialFacts,
    dump,
    numbers,
    parse,
    shallow,
)
from rdx.materials import assemble, compared, dev, indexed, load, tested
from rdx.store import read_record, signature, write_json
from rdx.teachers import WINDOWS
from rdx.teachers.audit import audit

PER_QUERY = "per_query.parquet"
FACTS = "trial.json"
AUDIT = "audit.json"
CONFIG = "config.yaml"


def run(cfg: dict[str, Any], levels: dict[str, str]) -> dict[str, Any]:
    """Run one cell; returns its facts: signatures, stages computed or stored, scores, health.

    Parameters
    ----------
    cfg
        The resolved configuration.
    levels
        The option chosen per config group.
    """
    cell = assemble(cfg)
    keys, track = cell.keys, cell.parts["tracking"]
    done = cell.store.has("evaluate", keys["evaluate"]) and not cfg["force"]
    if done and track.finished(keys["evaluate"]):
        folder = cell.store.cached("evaluate", keys["evaluate"], partial(_evaluate, cell, None))
        return _summary(cell, folder)
    with track.trial(
        signature=keys["evaluate"], levels=levels, config=cfg, grid=cfg["grid"], seed=cfg["seed"]
    ) as trial:
        try:
            folder = cell.store.cached(
                "evaluate", keys["evaluate"], partial(_evaluate, cell, trial), cfg["force"]
            )
        except trainer.Diverged:
            trial.set_health("nan")
            raise
        summary = _summary(cell, folder)
        facts = {**summary, "levels": levels}
        trial.set_health(facts["health"])
        trial.log_result(folder, facts, summary["means"])
    return summary


def candidates(cell: Any, split: Collection) -> pd.DataFrame:
    """Rank candidates for the sampled training queries, as deep as the teacher is asked."""
    depth = cell.parts["depth"]

    def make(folder: Path) -> None:
        sampler = cell.parts["sampler"]
        index = indexed(cell, sampler, cell.cfg["data"], split)
        # of a given run, only the queries that it has can be drawn
        known = sampler.covered(split.queries, index)
        chosen = split.subset(sample_queries(known, depth.queries, depth.seed, "depth.queries"))
        ranking = sampler.candidates(chosen, depth.asked, index)
        rankings.write_parquet(ranking, folder / "candidates.parquet")
        sample = {"collection": split.name, "queries": list(chosen.queries)}
        write_json(folder / tally.QUERIES, sample | ranking.attrs)
        write_json(folder / "first_stage.json", sampler.fingerprint())

    folder = cell.store.cached("candidates", cell.keys["candidates"], make)
    return rankings.read_parquet(folder / "candidates.parquet")


def teach(cell: Any, split: Collection, ranking: pd.DataFrame, again: bool = False) -> pd.DataFrame:
    """Let the teacher rank the candidates, and audit its labels."""

    def make(folder: Path) -> None:
        taught = cell.parts["teacher"].rank(ranking, split, folder)
        rankings.write_parquet(taught, folder / "teacher.parquet")
        (folder / AUDIT).write_text(dump(label_audit(folder, taught, ranking, split)))

    folder = cell.store.cached("teach", cell.keys["teach"], make, again)
    return rankings.read_parquet(folder / "teacher.parquet")


def label_audit(
    folder: Path,
    taught: pd.DataFrame,
    ranking: pd.DataFrame,
    split: Collection,
    other: pd.DataFrame | None = None,
) -> Audit:
    """The audit of a teacher ranking; `folder` holds the table of windows, if there were any."""
    asked = folder / WINDOWS
    return audit(
        taught,
        ranking,
        windows=rankings.read_parquet(asked) if asked.exists() else None,
        qrels=split.qrels if len(split.qrels) else None,
        other=other,
    )


def prefinetune(cell: Any, trial: Any) -> Path:
    """Stage 1: train the student on labels with hard negatives; or save it as it comes.

    All cells that share the stage record its curve.
    """
    stage, settings = cell.parts["prefinetune"], cell.parts["trainer"]

    def make(folder: Path) -> None:
        student = cell.parts["student"].create(stage.seed if stage else 0)
        facts: dict[str, Any] = {}
        if stage:
            split = load(cell, "data", "train")
            # a subset has none; where stage 2 follows, that shows them
            oddities = {} if cell.parts["loss"] else split.counts
            judged = [q for q in split.relevant() if q in split.queries]
            key = "prefinetune.queries"
            split = split.subset(sample_queries(judged, stage.queries, stage.seed, key))
            index = indexed(cell, stage.sampler, cell.cfg["data"], split)
            lists = stage.lists(split, index)
            lost = accounting.left_out(len(lists(0)), len(split.queries))
            lost |= tally.overlaps(cell, split.name, split.queries)
            tally.show(cell, trial, "data of stage 1", lost, oddities)
            budget, own = trainer.Epochs(stage.epochs), stage.trainer(settings)
            facts |= trainer.fit(
                student,
                stage.loss,
                lists,
                split,
                budget,
                own,
                stage.seed,
                folder,
                on_step=_followed(cell, budget.count(Schedule(lists, own.batch, stage.seed))),
                name="stage 1",
            )
            facts["accounting"] = accounting.facts(lost)
        student.save(folder)
        write_json(folder / "facts.json", facts)

    folder = cell.store.cached("prefinetune", cell.keys["prefinetune"], make)
    if (folder / "curve.json").exists():
        for step, value in enumerate(json.loads((folder / "curve.json").read_text())):
            trial.log_step("prefinetune", step, {"loss": value})
    return folder


def distill(cell: Any, trial: Any) -> Path:
    """Stage 2: train the student of stage 1 on the teacher's rankings."""
    if cell.parts["loss"] is None:
        return prefinetune(cell, trial)

    def make(folder: Path) -> None:
        split, depth = load(cell, "data", "train"), cell.parts["depth"]
        ranking = candidates(cell, split)
        taught = teach(cell, split, ranking)
        labels = (cell.store.root / "teach" / cell.keys["teach"] / AUDIT).read_text()
        trial.log_step("labels", 0, numbers(parse(Audit, labels)))
        selected = depth.select(ranking, taught)
        lists = depth.draws(selected, split.relevant(), cell.cfg["seed"])
        used = [one.query_id for one in lists(0)]
        counts = tally.of_training(cell, folder, split, ranking, taught, selected, used)
        tally.show(cell, trial, "training data", counts, split.counts)
        start = prefinetune(cell, trial)
        student = cell.parts["student"].load(start, cell.cfg["seed"])
        schedule = Schedule(lists, cell.parts["trainer"].batch, cell.cfg["seed"])
        budget = cell.parts["budget"]
        facts: dict[str, Any] = trainer.fit(
            student,
            cell.parts["loss"],
            lists,
            split,
            budget,
            cell.parts["trainer"],
            cell.cfg["seed"],
            folder,
            on_step=_followed(cell, budget.count(schedule), partial(trial.log_step, "distill")),
            name="distilling",
            validate=_validation(cell),
        )
        cut = accounting.of_truncation(
            student.pairs.truncated,
            facts["truncated_texts"],
            selected[selected.query_id.isin(used)],
            split.queries,
        )
        facts["lists_left_out"] = counts["lists_left_out"].n
        facts["accounting"] = accounting.facts(counts | cut)
        facts["audit"] = json.loads(labels)
        facts["states"] = {str(k): int(n) for k, n in taught.state.value_counts().items()}
        student.save(folder)
        write_json(folder / "facts.json", facts)

    folder = cell.store.cached("distill", cell.keys["distill"], make, cell.cfg["force"])
    kept = accounting.read(_facts(folder).get("accounting", {}))
    cut = {name: one for name, one in kept.items() if name.endswith("_truncated")}
    tally.show(cell, trial, "texts cut", cut, {})
    accounting.check(kept, cell.cfg.get("limits") or {})  # of a stored training, too
    return folder


def _followed(cell: Any, steps: int, log: Any = None) -> Callable[[int, dict[str, float]], None]:
    """After each of so many steps, let others see in the store how far a training is; `log` it."""

    def told(step: int, metrics: dict[str, float]) -> None:
        if log is not None:
            log(step, metrics)
        cell.store.tell(step + 1, steps)

    return told


def reference(cell: Any, name: str, test: Collection, first: pd.DataFrame) -> pd.DataFrame | None:
    """The teacher's ranking of some test queries, where it can rank queries it has not seen."""
    asked, teacher = cell.parts["evaluation"].teacher_queries, cell.parts["teacher"]
    if not asked or not teacher.ranks_unseen or cell.parts["loss"] is None:
        return None
    chosen = test.subset(sample_queries(test.queries, min(asked, len(test.queries)), 0))
    some = first[first.query_id.isin(chosen.queries)].reset_index(drop=True)
    return ev.as_ranking(rank_test(cell, name, chosen, some))


def rank_test(cell: Any, name: str, test: Collection, first: pd.DataFrame) -> pd.DataFrame:
    """The teacher's ranking of the first stage of test queries."""

    def make(folder: Path) -> None:
        ranked = cell.parts["teacher"].rank(first, test, folder)
        rankings.write_parquet(ranked, folder / "teacher.parquet")

    key = signature([cell.keys["reference"], name, sorted(test.queries)])
    folder = cell.store.cached("reference", key, make)
    return rankings.read_parquet(folder / "teacher.parquet")


def _evaluate(cell: Any, trial: Any, folder: Path) -> None:
    """Re-rank every test set with the distilled student; write runs, per-query table and facts."""
    checkpoint = distill(cell, trial)
    settings, evaluation = cell.parts["trainer"], cell.parts["evaluation"]
    student = cell.parts["student"].load(checkpoint)
    weight = _dev_weight(cell, student) if evaluation.interpolate else None
    (folder / "runs").mkdir(exist_ok=True)
    compare: dict[str, Setting] = {}
    timing: dict[str, Timing] = {}
    tests: dict[str, ev.Tested] = {}
    ranking = pd.DataFrame()
    for name in evaluation.collections:
        test, first = tested(cell, name)
        ranking, took = ev.rerank(
            student, first, test, settings, evaluation.max_tokens, f"re-ranking {name}"
        )
        tally.show(cell, trial, f"re-ranking {name}", accounting.of_tested(name, took), {})
        single = _timed(cell, student, first, test) if evaluation.efficiency else None
        timing[name] = replace(took, single=single)
        systems = {"student": ranking}
        if weight is not None:
            systems["student+first_stage"] = ev.interpolated(ranking, first, weight)
        taught = reference(cell, name, test, first)
        some_queries = {} if taught is None else {"teacher": taught}
        tests[name] = ev.measure(name, test, first, systems, evaluation, some_queries)
        for system, one in tests[name].systems.items():
            rankings.write_trec(one, folder / "runs" / f"{name}.{system}.run.gz", system)
        compare[name] = compared(cell, name, test)
    per_query, collections = ev.by_corpus(evaluation, tests, compare, weight)
    rankings.write_parquet(per_query, folder / PER_QUERY)
    trained = _checkpoint(_facts(checkpoint))
    over = ev.over_collections(per_query, collections)
    outcome = TrialFacts(
        signature=cell.keys["evaluate"],
        signatures=cell.keys,
        levels={},
        seed=cell.cfg["seed"],
        health=ev.health(per_query, ranking, evaluation.measures[0], trained.training),
        precision=precisions(cell.cfg),
        collections=collections,
        timing=timing,
        over_collections=over,
        means=ev.named_means(per_query, over),
        checkpoint=trained,
    )
    (folder / FACTS).write_text(dump(outcome))
    (folder / CONFIG).write_text(yaml.safe_dump(cell.cfg, sort_keys=False, allow_unicode=True))


def _checkpoint(found: dict[str, Any]) -> CheckpointFacts:
    """The facts of a training as a record."""
    start, kept = found.get("validation_start"), found.get("validation")
    steps = {key: found.get(key) for key in ("best_step", "kept_step")}
    record = {
        "version": VERSION,
        "training": {
            **found,
            "validation": None if start is None else {"start": start, "kept": kept, **steps},
        }
        if "steps" in found
        else None,
        "dropped": found.get("accounting", {}),
        "audit": found.get("audit"),
        "states": found.get("states", {}),
    }
    return parse(CheckpointFacts, json.dumps(record))


def _timed(cell: Any, student: Any, first: pd.DataFrame, test: Collection) -> QueryTiming:
    """What re-ranking single queries costs; the settings are those of the evaluation."""
    evaluation = cell.parts["evaluation"]
    return ev.timed(
        *(student, first, test, cell.parts["trainer"], evaluation.max_tokens),
        *(evaluation.efficiency, evaluation.efficiency_queries),
    )


def _dev_weight(cell: Any, student: Any) -> float:
    """The interpolation weight of the student, chosen on dev."""
    evaluation, (some, first) = cell.parts["evaluation"], dev(cell)
    ranking, _ = ev.rerank(
        student, first, some, cell.parts["trainer"], evaluation.max_tokens, "re-ranking dev"
    )
    return ev.best_weight(ranking, first, some.qrels, evaluation.measures[0])


def _validation(cell: Any) -> Callable[[Any], float] | None:
    """What a training is validated by: the first measure on dev, mean over queries.

    The dev queries are loaded and retrieved for once, not at every validation.
    """
    settings, evaluation = cell.parts["trainer"], cell.parts["evaluation"]
    if not settings.validate_every:
        return None
    some, first = dev(cell)

    def score(student: Any) -> float:
        ranking, _ = ev.rerank(student, first, some, settings, evaluation.max_tokens, "validating")
        return float(ev.measured(ranking, some.qrels, evaluation.measures[:1]).value.mean())

    return score


def _facts(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "facts.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _summary(cell: Any, folder: Path) -> dict[str, Any]:
    """Facts of a finished cell, from its folder in the store."""
    found = read_record(TrialFacts, folder / FACTS)
    trained = shallow(found.training) if found.training else {}
    dropped = found.checkpoint.dropped if found.checkpoint else {}
    return {
        **json.loads(dump(found)),
        "stages": dict(cell.store.log),
        "seconds": dict(cell.store.seconds),
        "steps": trained.get("steps", 0),
        "pairs": trained.get("pairs", 0),
        "counts": {k: v for k, v in trained.items() if isinstance(v, int)}
        | {k: count.n for k, count in dropped.items() if k == "lists_left_out"},
    }


def means(folder: Path) -> dict[str, float]:
    """The means of a finished cell, as COLLECTION/SYSTEM/MEASURE, from its folder in the store."""
    return read_record(TrialFacts, folder / FACTS).means
