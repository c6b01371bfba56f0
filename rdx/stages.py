"""The table of stages: what each needs, what decides its result, and what makes it.

    collection, index -> candidates -> teach -> distill -> evaluate
                      -> retrieve -> reference --------------^
                         prefinetune -------------^

A cell is a few of these stages, some of them once for each of its collections (the *role*). The
signature of a step covers what the stage's `decides` gives and the signatures of what it `needs`:
results are shared between cells wherever these are equal. `rdx.pipeline` walks the table; plans,
states and costs are derived from it.

What loads torch is imported where it is used: plans and tables sign cells without training them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import JsonValue

from rdx import accounting, config
from rdx.accounting import QuerySet
from rdx.artifacts import Artifact, Candidates, Checkpoint, Evaluated, Ranking, TeacherRanking
from rdx.collection import Collection, sample_queries
from rdx.config import Cell
from rdx.facts import (
    CheckpointFacts,
    Count,
    Counts,
    QuerySample,
    Setting,
    Timing,
    TrialFacts,
    numbers,
)
from rdx.job import (
    DEV,
    STAGE_1,
    TRAINING,
    Job,
    Parts,
    source,
    test_name,
    test_role,
    test_roles,
)
from rdx.store import signature

if TYPE_CHECKING:
    import pandas as pd

    from rdx.evaluation import Tested
    from rdx.students import CrossEncoder

SCHEMA = 5  # raise it when the meaning of a stored result changes
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Step:
    """A stage of a cell; of a stage that works on collections, the role of one of them."""

    stage: str
    role: str = ""

    def __str__(self) -> str:
        """As in "teach", "reference test dl19"."""
        return f"{self.stage} {self.role}".rstrip()


@dataclass(frozen=True)
class Work:
    """How much there is to do, for estimates.

    Attributes
    ----------
    like
        What results took the same time for equal work; their seconds a unit are compared.
    units
        Pairs to train on, passages to rank; None if the configuration does not tell.
    size
        What results of other work are as large on disk; None: nothing but those that are `like`.
    """

    like: JsonValue
    units: float | None = 1
    size: JsonValue = None


class Inputs:
    """The artifacts that a stage gets, and the role that it works in."""

    def __init__(self, role: str, inputs: Mapping[Step, Artifact]) -> None:
        self.role, self._inputs = role, inputs

    def of(self, stage: Stage[A], role: str = "") -> A:
        """The artifact of a stage."""
        artifact = self._inputs[Step(stage.name, role)]
        assert isinstance(artifact, stage.artifact)
        return artifact


Steps = Callable[[Parts, str], Sequence[Step]]


def _nothing(parts: Parts, role: str) -> Sequence[Step]:
    return ()


@dataclass(frozen=True)
class Stage(Generic[A]):
    """One stage.

    Attributes
    ----------
    name, artifact
        Its folder in the store, and what lies in there.
    decides
        What of the configuration decides the result, beside what the stage needs.
    make
        Writes the artifact into a folder; what a killed process left there is gone on from.
    needs
        Steps whose artifacts `make` gets; their signatures are part of this one.
    reads
        Steps whose artifacts `make` gets as well, about which `decides` says all that matters.
    work
        How much there is to do.
    again
        Whether ``force=true`` makes it again.
    together
        Whether all processes of a training take part.
    """

    name: str
    artifact: type[A]
    decides: Callable[[Parts, str], JsonValue]
    make: Callable[[Job, Inputs, Path], None]
    needs: Steps = _nothing
    reads: Steps = _nothing
    work: Callable[[Parts, str], Work] = lambda parts, role: Work(None)
    again: bool = False
    together: bool = False


# --- collections, indexes, first stages ---


def _layout(parts: Parts, role: str) -> JsonValue:
    return config.identity(source(parts, role).data, config.LAYOUT)


def _lay_out(job: Job, inputs: Inputs, folder: Path) -> None:
    source(job.parts, inputs.role).data.prepare(folder)


COLLECTION: Stage[Artifact] = Stage(
    "collection",
    Artifact,
    decides=_layout,
    make=_lay_out,
    work=lambda parts, role: Work(_layout(parts, role)),
)


def _of_collection(role: str) -> Step:
    """The collection in a role: those of the training share one."""
    return Step(COLLECTION.name, TRAINING if role in (STAGE_1, DEV) else role)


def _collection(parts: Parts, role: str) -> Sequence[Step]:
    return (_of_collection(role),)


def _split(job: Job, inputs: Inputs, role: str) -> Collection:
    """The split of a collection that is worked on in a role."""
    folder = inputs.of(COLLECTION, _of_collection(role).role).folder
    return job.split(source(job.parts, role), folder)


def _index_of(parts: Parts, role: str) -> JsonValue:
    place = source(parts, role)
    return place.sampler.index_of(config.identity(place.data, config.CORPUS))


def _index(job: Job, inputs: Inputs, folder: Path) -> None:
    split = _split(job, inputs, inputs.role)
    source(job.parts, inputs.role).sampler.prepare(split, folder)


INDEX: Stage[Artifact] = Stage(
    "index",
    Artifact,
    decides=_index_of,
    make=_index,
    reads=_collection,
    work=lambda parts, role: Work(_index_of(parts, role)),
)


def _collection_and_index(parts: Parts, role: str) -> Sequence[Step]:
    return (_of_collection(role), Step(INDEX.name, role))


def _retrieval(parts: Parts, role: str) -> JsonValue:
    place = source(parts, role)
    return {
        "sampler": config.identity(place.sampler),
        "data": config.identity(place.data),
        "split": place.split,
        "queries": place.queries,
        "k": place.k,
    }


def _retrieve(job: Job, inputs: Inputs, folder: Path) -> None:
    place = source(job.parts, inputs.role)
    judged = place.judged(_split(job, inputs, inputs.role))
    index = inputs.of(INDEX, inputs.role).folder
    Ranking.write(folder, place.sampler.candidates(judged, place.k, index))


RETRIEVE: Stage[Ranking] = Stage(
    "retrieve",
    Ranking,
    decides=_retrieval,
    make=_retrieve,
    reads=_collection_and_index,
    work=lambda parts, role: Work(_retrieval(parts, role)),
)


# --- candidates and labels ---


def _training_sample(parts: Parts, role: str) -> JsonValue:
    depth = parts.depth
    return {
        "data": config.identity(parts.data),
        "sampler": config.identity(parts.sampler),
        "queries": depth.queries,
        "seed": depth.seed,
        "asked": depth.asked,
    }


def _rank_candidates(job: Job, inputs: Inputs, folder: Path) -> None:
    split, index = _split(job, inputs, TRAINING), inputs.of(INDEX, TRAINING).folder
    sampler, depth = job.parts.sampler, job.parts.depth
    # of a given run, only the queries that it has can be drawn
    known = sampler.covered(split.queries, index)
    chosen = split.subset(sample_queries(known, depth.queries, depth.seed, "depth.queries"))
    ranking = sampler.candidates(chosen, depth.asked, index)
    missing = ranking.attrs.get("passages_missing")
    sample = QuerySample(split.name, tuple(chosen.queries), Count(*missing) if missing else None)
    Candidates.write_all(folder, ranking, sample, sampler.fingerprint())


CANDIDATES: Stage[Candidates] = Stage(
    "candidates",
    Candidates,
    decides=_training_sample,
    make=_rank_candidates,
    reads=lambda parts, role: _collection_and_index(parts, TRAINING),
    work=lambda parts, role: Work(
        {"data": config.identity(parts.data), "sampler": config.identity(parts.sampler)}
    ),
)


def _teach(job: Job, inputs: Inputs, folder: Path) -> None:
    from rdx.teachers.audit import audit

    split, candidates = _split(job, inputs, TRAINING), inputs.of(CANDIDATES).ranking
    TeacherRanking.write(folder, job.parts.teacher.rank(candidates, split, folder))
    labels = TeacherRanking(folder)
    qrels = split.qrels if len(split.qrels) else None
    labels.write_audit(folder, audit(labels.ranking, candidates, labels.windows, qrels))


def _labelling(parts: Parts, role: str) -> Work:
    queries, teacher = parts.depth.queries, config.identity(parts.teacher)
    if queries is None:
        return _open_ended(parts, teacher)
    return Work(teacher, queries * parts.depth.asked)


TEACH: Stage[TeacherRanking] = Stage(
    "teach",
    TeacherRanking,
    decides=lambda parts, role: config.identity(parts.teacher),
    make=_teach,
    needs=lambda parts, role: (Step(CANDIDATES.name),),
    reads=lambda parts, role: _collection(parts, TRAINING),
    work=_labelling,
)


# --- training ---


def _open_ended(parts: Parts, like: JsonValue) -> Work:
    """Work whose size is not known: compared under the same depth and stage 1 only."""
    depth, stage_1 = config.identity(parts.depth), config.identity(parts.prefinetune)
    return Work([like, depth, stage_1], None)


def _training_work(parts: Parts, kind: str, units: float | None) -> Work:
    student = config.identity(parts.student)
    like: JsonValue = [kind, student, parts.trainer.precision]
    work = Work(like, units) if units is not None else _open_ended(parts, like)
    return replace(work, size=student)


def _tests(parts: Parts, role: str) -> Sequence[Step]:
    """The test collections: training queries are compared with theirs."""
    return [Step(COLLECTION.name, test) for test in test_roles(parts)]


def _leaks(job: Job, inputs: Inputs, train: QuerySet) -> Counts:
    """Count training queries that are tested, and warn of them."""
    tests = {}
    for role in test_roles(job.parts):
        test = source(job.parts, role).judged(_split(job, inputs, role))
        tests[test_name(role)] = QuerySet(test.name, test.queries)
    return accounting.of_leaks(train, tests)


def _stage_1(parts: Parts, role: str) -> JsonValue:
    student, stage = config.identity(parts.student), parts.prefinetune
    if stage is None:
        return {"student": student}
    return {
        "student": student,
        "prefinetune": config.identity(stage),
        "data": config.identity(parts.data),
        "trainer": config.identity(stage.trainer(parts.trainer)),
    }


def _prefinetune(job: Job, inputs: Inputs, folder: Path) -> None:
    """Stage 1: train the student on labels with hard negatives; or save it as it comes."""
    from rdx import trainer
    from rdx.batches import Schedule

    stage, parts = job.parts.prefinetune, job.parts
    student = parts.student.create(stage.seed if stage else 0)
    facts = CheckpointFacts()
    if stage is not None:
        whole = _split(job, inputs, STAGE_1)
        # a subset has none; where stage 2 follows, that shows them
        oddities = {} if parts.loss else whole.counts
        judged = [q for q in whole.relevant() if q in whole.queries]
        split = whole.subset(
            sample_queries(judged, stage.queries, stage.seed, "prefinetune.queries")
        )
        lists = stage.lists(split, inputs.of(INDEX, STAGE_1).folder)
        dropped = accounting.left_out(len(lists(0)), len(split.queries))
        dropped |= _leaks(job, inputs, QuerySet(split.name, split.queries))
        job.report("data of stage 1", dropped, oddities)
        budget, settings = trainer.Epochs(stage.epochs), stage.trainer(parts.trainer)
        training = trainer.fit(
            student,
            stage.loss,
            lists,
            split,
            budget,
            settings,
            stage.seed,
            folder,
            on_step=job.on_step(budget.count(Schedule(lists, settings.batch, stage.seed))),
            name="stage 1",
        )
        facts = CheckpointFacts(training=training, dropped=dropped)
    _save(student, folder, facts)


def _save(student: CrossEncoder, folder: Path, facts: CheckpointFacts) -> None:
    """Write a checkpoint, in the main process."""
    from rdx.trainer import processes

    if processes.is_main():
        student.save(folder)
        Checkpoint.write_facts(folder, facts)


def _stage_1_work(parts: Parts, role: str) -> Work:
    stage = parts.prefinetune
    if stage is None:
        return _training_work(parts, "saved as it comes", 1)
    lists = None if stage.queries is None else stage.queries * stage.epochs
    return _training_work(parts, STAGE_1, None if lists is None else lists * (1 + stage.negatives))


PREFINETUNE: Stage[Checkpoint] = Stage(
    "prefinetune",
    Checkpoint,
    decides=_stage_1,
    make=_prefinetune,
    reads=lambda parts, role: (
        [*_collection_and_index(parts, STAGE_1), *_tests(parts, role)] if parts.prefinetune else ()
    ),
    work=_stage_1_work,
    together=True,
)


def _validated(parts: Parts) -> bool:
    return bool(parts.trainer.validate_every)


def _stage_2(parts: Parts, role: str) -> JsonValue:
    return {
        "loss": config.identity(parts.loss),
        "depth": config.identity(parts.depth),
        "budget": config.identity(parts.budget),
        "trainer": config.identity(parts.trainer),
        "seed": parts.seed,
        "validated": parts.evaluation.measures[0] if _validated(parts) else None,
    }


def _distill(job: Job, inputs: Inputs, folder: Path) -> None:
    """Stage 2: train the student of stage 1 on the teacher's rankings."""
    from rdx import trainer
    from rdx.batches import Schedule

    parts, split = job.parts, _split(job, inputs, TRAINING)
    candidates, labels = inputs.of(CANDIDATES), inputs.of(TEACH)
    job.trial.log_step("labels", 0, numbers(labels.audit))
    selected = parts.depth.select(candidates.ranking, labels.ranking)
    lists = parts.depth.draws(selected, split.relevant(), parts.seed)
    used = [training_list.query_id for training_list in lists(0)]
    fates, dropped = accounting.of_training(
        candidates.sample,
        split,
        candidates.ranking,
        labels.ranking,
        selected,
        used,
        parts.depth.k,
    )
    Checkpoint.write_fates(folder, fates)
    train = QuerySet(split.name, {query_id: split.queries[query_id] for query_id in fates.queries})
    dropped |= _leaks(job, inputs, train)
    job.report("training data", dropped, split.counts)
    start = inputs.of(PREFINETUNE)
    _show_curve(job, start)
    student = parts.student.load(start.folder, parts.seed)
    assert parts.loss is not None  # without one, there is no such stage
    training = trainer.fit(
        student,
        parts.loss,
        lists,
        split,
        parts.budget,
        parts.trainer,
        parts.seed,
        folder,
        on_step=job.on_step(
            parts.budget.count(Schedule(lists, parts.trainer.batch, parts.seed)), "distill"
        ),
        name="distilling",
        validate=_validation(job, inputs),
    )
    cut = accounting.of_truncation(
        student.pairs.truncated,
        training.truncated_texts,
        selected[selected.query_id.isin(used)],
        split.queries,
    )
    states = labels.ranking.state.value_counts()
    facts = CheckpointFacts(
        training=training,
        dropped=dropped | cut,
        audit=labels.audit,
        states={str(state): int(n) for state, n in states.items()},
    )
    _save(student, folder, facts)


def _show_curve(job: Job, stage_1: Checkpoint) -> None:
    """Log the curve of stage 1: all cells that share it show it."""
    for step, loss in enumerate(stage_1.curve):
        job.trial.log_step("prefinetune", step, {"loss": loss})


def _validation(job: Job, inputs: Inputs) -> Callable[[CrossEncoder], float] | None:
    """What a training is validated by: the first measure on dev, mean over queries."""
    if not _validated(job.parts):
        return None
    from rdx import evaluation as ev

    settings, evaluation = job.parts.trainer, job.parts.evaluation
    queries = source(job.parts, DEV).judged(_split(job, inputs, DEV))
    first_stage = inputs.of(RETRIEVE, DEV).ranking

    def score(student: CrossEncoder) -> float:
        ranking, _ = ev.rerank(
            student, first_stage, queries, settings, evaluation.max_tokens, "validating"
        )
        return float(ev.measured(ranking, queries.qrels, evaluation.measures[:1]).value.mean())

    return score


def _distillation_work(parts: Parts, role: str) -> Work:
    depth, budget = parts.depth, parts.budget
    if depth.queries is None:
        return _training_work(parts, "stage 2", None)
    length = budget.length(depth.queries, depth.k, parts.trainer.batch)
    return _training_work(parts, "stage 2", length.pairs)


DISTILL: Stage[Checkpoint] = Stage(
    "distill",
    Checkpoint,
    decides=_stage_2,
    make=_distill,
    needs=lambda parts, role: (
        Step(PREFINETUNE.name),
        Step(CANDIDATES.name),
        Step(TEACH.name),
        *([Step(RETRIEVE.name, DEV)] if _validated(parts) else []),
    ),
    reads=lambda parts, role: [*_collection(parts, TRAINING), *_tests(parts, role)],
    work=_distillation_work,
    again=True,
    together=True,
)


# --- evaluation ---


def _rank_tests(job: Job, inputs: Inputs, folder: Path) -> None:
    """The teacher's ranking of some test queries, of what the first stage found."""
    place, first_stage = source(job.parts, inputs.role), inputs.of(RETRIEVE, inputs.role).ranking
    test = place.judged(_split(job, inputs, inputs.role))
    most = min(job.parts.evaluation.teacher_queries, len(test.queries))
    chosen = test.subset(sample_queries(test.queries, most, 0))
    candidates = first_stage[first_stage.query_id.isin(chosen.queries)].reset_index(drop=True)
    TeacherRanking.write(folder, job.parts.teacher.rank(candidates, chosen, folder))


def _test_ranking_work(parts: Parts, role: str) -> Work:
    units = parts.evaluation.teacher_queries * source(parts, role).k
    return Work(config.identity(parts.teacher), units)


REFERENCE: Stage[TeacherRanking] = Stage(
    "reference",
    TeacherRanking,
    decides=lambda parts, role: {
        "teacher": config.identity(parts.teacher),
        "queries": parts.evaluation.teacher_queries,
    },
    make=_rank_tests,
    needs=lambda parts, role: (Step(RETRIEVE.name, role),),
    reads=_collection,
    work=_test_ranking_work,
)


def _checkpoint(parts: Parts) -> Stage[Checkpoint]:
    """The stage whose student is evaluated."""
    return PREFINETUNE if parts.loss is None else DISTILL


def _references(parts: Parts) -> list[Step]:
    """The teacher's rankings of test queries, where it can rank queries it has not seen."""
    ranked = parts.evaluation.teacher_queries and parts.loss and parts.teacher.ranks_unseen
    return [Step(REFERENCE.name, role) for role in test_roles(parts)] if ranked else []


def _evaluation_needs(parts: Parts, role: str) -> Sequence[Step]:
    dev = [Step(RETRIEVE.name, DEV)] if parts.evaluation.interpolate else []
    tests = [Step(RETRIEVE.name, role) for role in test_roles(parts)]
    return [Step(_checkpoint(parts).name), *dev, *tests, *_references(parts)]


def _evaluation_reads(parts: Parts, role: str) -> Sequence[Step]:
    dev = [Step(COLLECTION.name, TRAINING)] if parts.evaluation.interpolate else []
    return [*dev, *_tests(parts, role)]


def _evaluate(job: Job, inputs: Inputs, folder: Path) -> None:
    """Re-rank every test set with the student; write runs, per-query values and facts."""
    from rdx import evaluation as ev

    parts, evaluation = job.parts, job.parts.evaluation
    checkpoint = inputs.of(_checkpoint(parts))
    _check_training(job, checkpoint)
    student = parts.student.load(checkpoint.folder)
    weight = _dev_weight(job, inputs, student) if evaluation.interpolate else None
    settings: dict[str, Setting] = {}
    timing: dict[str, Timing] = {}
    tests: dict[str, Tested] = {}
    runs: dict[str, pd.DataFrame] = {}
    for name in evaluation.collections:
        test, first_stage = _test(job, inputs, name)
        ranking, timing[name] = ev.rerank(
            *(student, first_stage, test, parts.trainer),
            *(evaluation.max_tokens, f"re-ranking {name}"),
        )
        job.report(f"re-ranking {name}", accounting.of_tested(name, timing[name]))
        if evaluation.efficiency:
            single = ev.timed(
                *(student, first_stage, test, parts.trainer, evaluation.max_tokens),
                *(evaluation.efficiency, evaluation.efficiency_queries),
            )
            timing[name] = replace(timing[name], single=single)
        systems = {"student": ranking}
        if weight is not None:
            systems["student+first_stage"] = ev.interpolated(ranking, first_stage, weight)
        some_queries = _reference(inputs, parts, name)
        tests[name] = ev.measure(name, test, first_stage, systems, evaluation, some_queries)
        settings[name] = setting(job.parts, name, test)
        runs |= {f"{name}.{system}": run for system, run in tests[name].systems.items()}
    per_query, collections = ev.by_corpus(evaluation, tests, settings)
    collections = {
        name: facts if facts.pooled else replace(facts, weight=weight)
        for name, facts in collections.items()
    }
    trained = checkpoint.facts
    health = ev.health(per_query, ranking, evaluation.measures[0], trained.training)
    over_collections = ev.all_means(per_query, collections)
    facts = TrialFacts(
        signature=job.cell.signature,
        signatures=job.cell.keys,
        levels=job.cell.levels,
        seed=parts.seed,
        health=health,
        collections=collections,
        over_collections=over_collections,
        means=ev.means(per_query, over_collections),
        precision=config.precisions(job.cell.cfg),
        timing=timing,
        checkpoint=trained,
    )
    Evaluated.write(folder, facts, per_query, runs, job.cell.cfg)


def _check_training(job: Job, checkpoint: Checkpoint) -> None:
    """Show what was cut in a training, and refuse one that dropped too much, a stored one too."""
    dropped = checkpoint.facts.dropped
    cut = {name: count for name, count in dropped.items() if name.endswith("_truncated")}
    job.report("texts cut", cut)
    accounting.check(dropped, job.parts.limits)
    if job.parts.loss is None:
        _show_curve(job, checkpoint)


def _test(job: Job, inputs: Inputs, name: str) -> tuple[Collection, pd.DataFrame]:
    """A test set, cut down to the queries that are tested, and its first stage."""
    role = test_role(name)
    test = source(job.parts, role).judged(_split(job, inputs, role))
    return test, inputs.of(RETRIEVE, role).ranking


def _reference(inputs: Inputs, parts: Parts, name: str) -> dict[str, pd.DataFrame]:
    """The teacher as a system, on the queries that it ranked; nothing if it ranked none."""
    from rdx import evaluation as ev

    step = Step(REFERENCE.name, test_role(name))
    if step not in _references(parts):
        return {}
    return {"teacher": ev.as_ranking(inputs.of(REFERENCE, step.role).ranking)}


def _dev_weight(job: Job, inputs: Inputs, student: CrossEncoder) -> float:
    """The interpolation weight of the student, chosen on dev."""
    from rdx import evaluation as ev

    evaluation = job.parts.evaluation
    queries = source(job.parts, DEV).judged(_split(job, inputs, DEV))
    first_stage = inputs.of(RETRIEVE, DEV).ranking
    ranking, _ = ev.rerank(
        *(student, first_stage, queries, job.parts.trainer),
        *(evaluation.max_tokens, "re-ranking dev"),
    )
    return ev.best_weight(ranking, first_stage, queries.qrels, evaluation.measures[0])


def setting(parts: Parts, name: str, test: Collection) -> Setting:
    """What must be equal before two systems may stand in one table of a test set."""
    test_set = parts.evaluation.collections[name]
    return Setting(
        queries=len(test.queries),
        k=parts.evaluation.k,
        digest=signature([config.identity(test_set.data), sorted(test.queries)]),
        first_stage=test_set.first_stage.fingerprint(),
        corpus=test_set.corpus,
        in_mean=test_set.in_mean,
    )


def _evaluation_work(parts: Parts, role: str) -> Work:
    student, evaluation = config.identity(parts.student), config.identity(parts.evaluation)
    return Work([student, parts.trainer.precision, evaluation])


EVALUATE: Stage[Evaluated] = Stage(
    "evaluate",
    Evaluated,
    decides=lambda parts, role: {
        "evaluation": config.identity(parts.evaluation),
        "precision": parts.trainer.precision,
    },
    make=_evaluate,
    needs=_evaluation_needs,
    reads=_evaluation_reads,
    work=_evaluation_work,
    again=True,
)

STAGES: dict[str, Stage[Artifact]] = {
    stage.name: stage  # type: ignore[misc]
    for stage in (
        *(COLLECTION, INDEX, RETRIEVE, CANDIDATES, TEACH),
        *(PREFINETUNE, DISTILL, REFERENCE, EVALUATE),
    )
}
LAST = Step(EVALUATE.name)


# --- what is derived from the table ---


class Signatures:
    """What the steps of a cell sign, and their signatures, each found once."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._keys: dict[Step, str] = {}

    def signed(self, step: Step) -> dict[str, JsonValue]:
        """What decides a step's result, itself and by what it needs."""
        stage = STAGES[step.stage]
        return {
            "stage": stage.name,
            "schema": SCHEMA,
            "decides": stage.decides(self.parts, step.role),
            "needs": [[n.stage, self.key(n)] for n in stage.needs(self.parts, step.role)],
        }

    def key(self, step: Step) -> str:
        """The signature of a step."""
        if step not in self._keys:
            self._keys[step] = signature(self.signed(step))
        return self._keys[step]


def steps(parts: Parts, last: Step = LAST) -> list[Step]:
    """All steps that a result takes, in an order in which they can be made; itself the last."""
    return list(dict.fromkeys(_steps(parts, last)))


def _steps(parts: Parts, step: Step) -> Iterator[Step]:
    stage = STAGES[step.stage]
    for need in (*stage.needs(parts, step.role), *stage.reads(parts, step.role)):
        yield from _steps(parts, need)
    yield step


def signed(cell: Cell) -> Cell:
    """The cell with the signatures of its steps, and its own, which is that of the last."""
    signatures = Signatures(Parts(cell.cfg))
    keys = {str(step): signatures.key(step) for step in steps(signatures.parts)}
    return replace(cell, keys=keys, signature=keys[str(LAST)])


def split(
    what: str | Sequence[str], precision: str | None = None
) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """`rdx.config.split`, the possible cells signed."""
    cells, left_out = config.split(what, precision)
    return [signed(cell) for cell in cells], left_out


def cells(what: str | Sequence[str]) -> list[Cell]:
    """`rdx.config.cells`, signed."""
    return split(what)[0]


def distinct(cells: Sequence[Cell], stage: str = LAST.stage) -> list[Cell]:
    """The first cell of each signature of a stage, in the order of the last ones."""
    return list({cell.keys[stage]: cell for cell in reversed(cells)}.values())[::-1]
