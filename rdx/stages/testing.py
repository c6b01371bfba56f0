"""Evaluate a student: re-rank every test set, measure, and write down what came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from rdx import accounting, config
from rdx import evaluation as ev
from rdx.artifacts import Checkpoint, Evaluated
from rdx.collection import Collection
from rdx.config import Config
from rdx.evaluation import Tested, TestSet
from rdx.facts import Origin, Setting, Timing, TrialFacts, origins_of
from rdx.job import DEV, Job, Parts, test_role
from rdx.stages.retrieval import judged
from rdx.stages.stage import Inputs
from rdx.stages.training import show_curve
from rdx.store import signature
from rdx.students import CrossEncoder


def evaluate(job: Job, inputs: Inputs, folder: Path) -> None:
    """Re-rank every test set with the student; write runs, per-query values and facts."""
    parts, evaluation = job.parts, job.parts.evaluation
    checkpoint = inputs.student
    _check_training(job, checkpoint)
    student = parts.student.load(checkpoint.folder)
    weight = _dev_weight(job, inputs, student) if evaluation.interpolate else None
    settings: dict[str, Setting] = {}
    timing: dict[str, Timing] = {}
    tests: dict[str, Tested] = {}
    for name in evaluation.collections:
        role = test_role(name)
        test, first_stage = judged(job, inputs, role), inputs.first_stage(role)
        accounting.warn(test)
        accounting.warn_of_own(name, first_stage, test, evaluation.self_retrieval_of(name))
        ranking, timing[name] = ev.rerank(
            *(student, first_stage, inputs.tokens(role, student), parts.trainer),
            *(evaluation.max_tokens, f"re-ranking {name}"),
        )
        job.report(f"re-ranking {name}", accounting.of_tested(name, timing[name]), test.counts)
        if evaluation.efficiency:
            single = ev.timed(
                *(student, first_stage, test, parts.trainer, evaluation.max_tokens),
                *(evaluation.efficiency, evaluation.efficiency_queries),
            )
            timing[name] = replace(timing[name], single=single)
        systems = {"student": ranking}
        if weight is not None:
            systems["student+first_stage"] = ev.interpolated(ranking, first_stage, weight)
        labels = inputs.reference(name)
        some_queries = {} if labels is None else {"teacher": ev.as_ranking(labels.ranking)}
        tested = ev.measure(name, test, first_stage, systems, evaluation, some_queries)
        Evaluated.write_runs(folder, {f"{name}.{s}": run for s, run in tested.systems.items()})
        # only pools look at rankings again: those of deep first stages are let go
        tests[name] = tested if evaluation.paper_compat else replace(tested, systems={})
        settings[name] = setting(job.parts, name, test)
    per_query, collections = ev.by_corpus(evaluation, tests, settings, weight, _selected_on(parts))
    trained = checkpoint.facts
    health = ev.health(per_query, ranking, evaluation.measures[0], trained.training)
    over_collections = ev.over_collections(per_query, collections, evaluation.means)
    facts = TrialFacts(
        signature=job.cell.signature,
        signatures=job.cell.keys,
        levels=job.cell.levels,
        seed=parts.seed,
        health=health,
        collections=collections,
        over_collections=over_collections,
        means=ev.named_means(per_query, over_collections),
        precision=config.precisions(job.cell.cfg),
        timing=timing,
        checkpoint=trained,
        origins=tuple(_origins(job.cell.cfg)),
    )
    Evaluated.write(folder, facts, per_query, job.cell.cfg, job.cell.overrides)


def _selected_on(parts: Parts) -> list[str]:
    """The test sets that decided which weights were kept, here or in a cell before this one."""
    decided = [_tested(test_set) for test_set in _deciding(parts)]
    tests = parts.evaluation.collections.items()
    return [name for name, test_set in tests if _tested(test_set) in decided]


def _tested(test_set: TestSet) -> JsonValue:
    """What two test sets of the same queries have in common."""
    return [config.identity(test_set.data), test_set.split]


def _deciding(parts: Parts) -> Iterator[TestSet]:
    if parts.loss is not None and parts.trainer.selects:
        for name in parts.trainer.validate_on or ():
            yield parts.evaluation.collections[name]
    for origin in parts.origins.values():
        yield from _deciding(origin.parts) if origin.parts is not None else ()


def _origins(cfg: Config, of: str = "") -> Iterator[Origin]:
    """The lineage of a cell."""
    for key, origin in origins_of(cfg).items():
        path = f"{of}/{key}".strip("/")
        yield Origin(path=path, given=origin.given, checkpoint=origin.checkpoint)
        yield from _origins(origin.cell, path) if origin.cell else ()


def _check_training(job: Job, checkpoint: Checkpoint) -> None:
    """Show what was cut in a training, and refuse one that dropped too much, a stored one too."""
    dropped = checkpoint.facts.dropped
    cut = {name: count for name, count in dropped.items() if name.endswith("_truncated")}
    job.report("texts cut", cut)
    accounting.check(dropped, job.parts.limits)
    if job.parts.loss is None:
        show_curve(job, checkpoint)


def _dev_weight(job: Job, inputs: Inputs, student: CrossEncoder) -> float:
    """The interpolation weight of the student, chosen on dev."""
    evaluation = job.parts.evaluation
    queries = judged(job, inputs, DEV)
    first_stage = inputs.first_stage(DEV)
    ranking, _ = ev.rerank(
        *(student, first_stage, inputs.tokens(DEV, student), job.parts.trainer),
        *(evaluation.max_tokens, "re-ranking dev"),
    )
    return ev.best_weight(ranking, first_stage, queries.qrels, evaluation.measures[0])


def setting(parts: Parts, name: str, test: Collection) -> Setting:
    """What must be equal before two systems may stand in one table of a test set."""
    test_set = parts.evaluation.collections[name]
    return Setting(
        queries=len(test.queries),
        k=parts.evaluation.depth(name),
        digest=signature([config.identity(test_set.data), sorted(test.queries)]),
        first_stage=parts.in_test(name).fingerprint(),
        corpus=test_set.corpus,
        in_mean=test_set.in_mean,
    )
