"""The file to read first: one cell, from candidates to an evaluated student.

    candidates -> teach -> select -> prefinetune -> distill -> evaluate

Each stage is computed once per signature (`rdx.config.signatures`) and kept in the store.
`rdx.materials` loads and retrieves what the stages work on; `rdx.tally` counts what gets lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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
from rdx.materials import assemble, compared, dev, indexed, load, tested
from rdx.store import read_json, signature, write_json
from rdx.teachers import WINDOWS
from rdx.teachers.audit import audit

PER_QUERY = "per_query.parquet"
FACTS = "trial.json"
AUDIT = "audit.json"
CONFIG = "config.yaml"
SUMMARISED = ("training", "health", "collections", "timing", "over_collections")  # of FACTS


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
    if done and track.finished(cell.store.root, keys["evaluate"]):
        folder = cell.store.cached("evaluate", keys["evaluate"], partial(_evaluate, cell, None))
        return _summary(cell, folder)
    with track.trial(
        store=cell.store.root,
        signature=keys["evaluate"],
        levels=levels,
        config=cfg,
        grid=cfg["grid"],
        seed=cfg["seed"],
    ) as trial:
        try:
            folder = cell.store.cached(
                "evaluate", keys["evaluate"], partial(_evaluate, cell, trial), cfg["force"]
            )
        except trainer.Diverged:
            trial.set_health("nan")
            raise
        summary = _summary(cell, folder)
        facts = {"levels": levels, **summary}
        trial.set_health(facts["health"])
        trial.log_result(folder, facts)
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
        write_json(folder / AUDIT, label_audit(folder, taught, ranking, split))

    folder = cell.store.cached("teach", cell.keys["teach"], make, again)
    return rankings.read_parquet(folder / "teacher.parquet")


def label_audit(
    folder: Path,
    taught: pd.DataFrame,
    ranking: pd.DataFrame,
    split: Collection,
    other: pd.DataFrame | None = None,
) -> dict[str, Any]:
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
        found = json.loads((cell.store.root / "teach" / cell.keys["teach"] / AUDIT).read_text())
        trial.log_step("labels", 0, numbers(found))
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
        facts["audit"] = found
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
    collections: dict[str, Any] = {}
    timing: dict[str, Any] = {}
    tests: dict[str, ev.Tested] = {}
    ranking = pd.DataFrame()
    for name in evaluation.collections:
        test, first = tested(cell, name)
        ranking, timing[name] = ev.rerank(
            student, first, test, settings, evaluation.max_tokens, f"re-ranking {name}"
        )
        tally.show(cell, trial, f"re-ranking {name}", accounting.of_tested(name, timing[name]), {})
        if evaluation.efficiency:
            timing[name]["single"] = _timed(cell, student, first, test)
        systems = {"student": ranking}
        if weight is not None:
            systems["student+first_stage"] = ev.interpolated(ranking, first, weight)
        taught = reference(cell, name, test, first)
        some_queries = {} if taught is None else {"teacher": taught}
        tests[name] = ev.measure(name, test, first, systems, evaluation, some_queries)
        for system, one in tests[name].systems.items():
            rankings.write_trec(one, folder / "runs" / f"{name}.{system}.run.gz", system)
        collections[name] = {**compared(cell, name, test), **tests[name].facts, "weight": weight}
    per_query = ev.by_corpus(evaluation, tests, collections)
    rankings.write_parquet(per_query, folder / PER_QUERY)
    trained = _facts(checkpoint)
    validated = "validation" in trained
    health = ev.health(
        per_query,
        ranking,
        evaluation.measures[0],
        trained.get("weight_change"),
        (trained["validation_start"], trained["validation"]) if validated else None,
    )
    facts = {"health": health, "collections": collections, "training": trained, "timing": timing}
    facts["over_collections"] = ev.all_means(per_query, collections)
    write_json(folder / FACTS, {**facts, "signatures": cell.keys})
    (folder / CONFIG).write_text(yaml.safe_dump(cell.cfg, sort_keys=False, allow_unicode=True))


def _timed(cell: Any, student: Any, first: pd.DataFrame, test: Collection) -> dict[str, Any]:
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


def numbers(found: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested facts, by their path: what MLflow takes as metrics."""
    flat: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            flat |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def _summary(cell: Any, folder: Path) -> dict[str, Any]:
    """Facts of a finished cell, from its folder in the store."""
    facts = read_json(folder / FACTS, *SUMMARISED)
    training = facts["training"]
    return {
        "signature": cell.keys["evaluate"],
        "signatures": cell.keys,
        "seed": cell.cfg["seed"],
        "stages": dict(cell.store.log),
        "health": facts["health"],
        "precision": precisions(cell.cfg),
        "collections": facts["collections"],
        "timing": facts["timing"],
        "seconds": dict(cell.store.seconds),
        "steps": training.get("steps", 0),
        "pairs": training.get("pairs", 0),
        "counts": {k: v for k, v in training.items() if isinstance(v, int)},
        "over_collections": facts["over_collections"],
        "means": means(folder),
    }


def means(folder: Path) -> dict[str, float]:
    """The means of a finished cell, as COLLECTION/SYSTEM/MEASURE, from its folder in the store."""
    over = read_json(folder / FACTS, *SUMMARISED)["over_collections"]
    table = rankings.read_parquet(folder / PER_QUERY)
    found = table.groupby(["collection", "system", "measure"]).value.mean()
    flat = {"/".join(map(str, key)): float(value) for key, value in found.items()}
    if len(over["collections"]["corpora"]) > 1:
        flat |= {f"mean/{name}": v for name, v in over["collections"]["arithmetic"].items()}
    return flat
