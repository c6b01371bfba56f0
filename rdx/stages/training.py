"""Train students: stage 1 on labels, stage 2 on a teacher's rankings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from rdx import accounting, config, trainer
from rdx import evaluation as ev
from rdx.accounting import QuerySet
from rdx.artifacts import Checkpoint, Selected
from rdx.batches import Schedule
from rdx.collection import Collection
from rdx.facts import CheckpointFacts, Counts, numbers
from rdx.job import (
    STAGE_1,
    START,
    TRAINING,
    Job,
    test_name,
    test_roles,
    validation_roles,
)
from rdx.stages.retrieval import judged, split
from rdx.stages.stage import Inputs
from rdx.students import CrossEncoder
from rdx.trainer import processes


def prefinetune(job: Job, inputs: Inputs, folder: Path) -> None:
    """Stage 1: train the student on labels with hard negatives; or save it as it comes.

    It comes from the model that it is made of, or from where the cell begins.
    """
    stage, parts = job.parts.prefinetune, job.parts
    student = _begun(job, inputs)
    facts = CheckpointFacts()
    if stage is not None:
        whole = split(job, inputs, STAGE_1)
        # a subset has none; where stage 2 follows, that shows them
        oddities = {} if parts.loss else whole.counts
        queries = stage.drawn(whole)
        lists = stage.lists(queries, inputs.index(STAGE_1))
        dropped = accounting.left_out(len(lists.query_ids), len(queries.queries))
        dropped |= _leaks(job, inputs, queries)
        processes.by_main(lambda: job.report("data of stage 1", dropped, oddities))
        budget, settings = trainer.Epochs(stage.epochs), stage.trainer(parts.trainer)
        training = trainer.fit(
            student,
            stage.loss,
            lists,
            inputs.tokens(STAGE_1, student),
            budget,
            settings,
            stage.seed,
            folder,
            on_step=job.on_step(budget.count(Schedule(lists, settings.batch, stage.seed))),
            name="stage 1",
        )
        facts = CheckpointFacts(training=training, dropped=dropped)
    _save(job, student, folder, facts)


def _begun(job: Job, inputs: Inputs) -> CrossEncoder:
    """The student that stage 1 trains, or saves."""
    settings, stage = job.parts.student, job.parts.prefinetune
    origin = job.parts.origins.get(START)
    if origin is None:
        return settings.create(stage.seed if stage else 0)
    return settings.load(origin.folder or inputs.student_of(START), stage.seed if stage else None)


def _save(job: Job, student: CrossEncoder, folder: Path, facts: CheckpointFacts) -> None:
    """Write a checkpoint, in the main process."""
    if processes.is_main():
        student.save(folder)
        settings = config.identity(job.parts.student)
        assert isinstance(settings, dict)
        Checkpoint.write_facts(folder, replace(facts, student=settings))


def select(job: Job, inputs: Inputs, folder: Path) -> None:
    """Select the passages of the training lists, and count what is dropped on the way."""
    depth, queries = job.parts.depth, split(job, inputs, TRAINING)
    candidates, labels = inputs.candidates, inputs.labels
    selected = depth.select(candidates.ranking, labels.ranking, job.parts.scale)
    lists = depth.draws(
        selected, queries.relevant(), seed=0
    )  # whatever the seed, of as many queries
    selection = accounting.of_training(
        *(candidates.sample, queries, candidates.ranking, labels.ranking, selected),
        lists.query_ids,
        depth.k,
    )
    leaks = _leaks(job, inputs, queries.subset(selection.fates))
    selection = replace(selection, dropped=selection.dropped | leaks)
    job.report("training data", selection.dropped, queries.counts)
    Selected.write_all(folder, selected, selection)


def distill(job: Job, inputs: Inputs, folder: Path) -> None:
    """Stage 2: train the student of stage 1 on the teacher's rankings."""
    parts, queries, labels = job.parts, split(job, inputs, TRAINING), inputs.labels
    job.trial.log_step("labels", 0, numbers(labels.audit))
    show_curve(job, inputs.start)
    selected, selection = inputs.selected.ranking, inputs.selected.selection
    lists = parts.depth.draws(selected, queries.relevant(), parts.seed)
    student = parts.student.load(inputs.start.folder, parts.seed)
    assert parts.loss is not None  # without one, there is no such stage
    steps = parts.budget.count(Schedule(lists, parts.trainer.batch, parts.seed))
    tokens = inputs.tokens(TRAINING, student)
    training = trainer.fit(
        *(student, parts.loss, lists, tokens, parts.budget, parts.trainer, parts.seed, folder),
        on_step=job.on_step(steps, "distill"),
        name="distilling",
        validate=_validation(job, inputs),
    )
    used = [query_id for query_id, fate in selection.fates.items() if fate == accounting.USED]
    doc_ids = selected.doc_id[selected.query_id.isin(used)].unique()
    cut = accounting.of_truncation(tokens.queries.cut(used), tokens.passages.cut(doc_ids))
    states = labels.ranking.state.value_counts()
    facts = CheckpointFacts(
        training=training,
        dropped=selection.dropped | cut,
        audit=labels.audit,
        states={str(state): int(n) for state, n in states.items()},
    )
    _save(job, student, folder, facts)


def show_curve(job: Job, stage_1: Checkpoint) -> None:
    """Log the curve of stage 1: all cells that share it show it."""
    for step, loss in enumerate(stage_1.curve):
        job.trial.log_step("prefinetune", step, {"loss": loss})


def _validation(job: Job, inputs: Inputs) -> Callable[[CrossEncoder], float] | None:
    """What a training is validated by: the first measure, the mean over queries of each collection.

    These are the dev queries, or those of collections that are evaluated.
    """
    roles, evaluation = validation_roles(job.parts), job.parts.evaluation
    if not roles:
        return None
    judgements = {role: judged(job, inputs, role).qrels for role in roles}

    def score(student: CrossEncoder) -> float:
        means = []
        for role in roles:
            ranking, _ = ev.rerank(
                *(student, inputs.first_stage(role), inputs.tokens(role, student)),
                *(job.parts.trainer, evaluation.max_tokens, "validating"),
            )
            values = ev.measured(ranking, judgements[role], evaluation.measures[:1])
            means.append(float(values.value.mean()))
        return fmean(means)

    return score


def _leaks(job: Job, inputs: Inputs, train: Collection) -> Counts:
    """Count training queries that are tested, and warn of them."""
    tests = {}
    for role in test_roles(job.parts):
        test = judged(job, inputs, role)
        tests[test_name(role)] = QuerySet(test.name, test.queries)
    return accounting.of_leaks(QuerySet(train.name, train.queries), tests)
