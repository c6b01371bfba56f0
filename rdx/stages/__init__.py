"""The table of stages: what each needs, what decides its result, and what makes it.

    collection -> index -> candidates -> teach -> select -> distill -> evaluate
                        -> prefinetune ---------------------^          ^
                        -> retrieve --> reference ---------------------^
               -> tokens: read by prefinetune, distill and evaluate

A cell may take students from elsewhere (`rdx.stages.origins`): the one that its training begins
from is needed by prefinetune, the one that re-draws its candidates by candidates. Where they come
from other cells, the steps of these are steps of this one, too.

A cell is a few of these stages, some of them once for each of its collections (the *role*,
`rdx.job`). A step's signature covers what the stage's `decides` gives and the signatures of what it
`needs`: cells share results wherever these are equal. `rdx.pipeline` walks the table; signatures,
plans, states and costs are derived from it, and from nothing else.

What makes a stage is loaded when it is made: plans and tables sign cells without training them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rdx import config
from rdx.artifacts import (
    Artifact,
    Candidates,
    Checkpoint,
    Evaluated,
    Ranking,
    Selected,
    TeacherRanking,
    Tokenised,
)
from rdx.config import Cell
from rdx.devices import CPU
from rdx.job import (
    DEV,
    REDRAWS,
    STAGE_1,
    START,
    TRAINING,
    Job,
    Parts,
    source,
    test_roles,
    validation_roles,
)
from rdx.stages import origins
from rdx.stages.stage import Inputs, Stage, Step, Work, collection_of, tokens_of, trained
from rdx.store import signature

__all__ = [
    "CANDIDATES",
    "COLLECTION",
    "DISTILL",
    "EVALUATE",
    "INDEX",
    "LAST",
    "PREFINETUNE",
    "REFERENCE",
    "RETRIEVE",
    "SCHEMA",
    "SELECT",
    "STAGES",
    "TEACH",
    "TOKENS",
    "Inputs",
    "Signatures",
    "Stage",
    "Step",
    "Work",
    "begun",
    "cells",
    "distinct",
    "inputs",
    "over_seeds",
    "signed",
    "split",
    "steps",
    "work",
]

if TYPE_CHECKING:
    from rdx.students import Student
    from rdx.trainer.sizes import Size

SCHEMA = 6  # raise it when the meaning of a stored result changes


def _late(module: str, name: str) -> Callable[[Job, Inputs, Path], None]:
    """A function of a module of this package, which is loaded when it is called."""

    def make(job: Job, inputs: Inputs, folder: Path) -> None:
        getattr(import_module(f"rdx.stages.{module}"), name)(job, inputs, folder)

    return make


# --- collections, indexes, first stages, candidates ---


def _layout(parts: Parts, role: str) -> JsonValue:
    return config.identity(source(parts, role).data, config.FILES)


def _index(parts: Parts, role: str) -> JsonValue:
    place = source(parts, role)
    return place.sampler.index_of(config.identity(place.data, config.PASSAGES))


def _retrieval(parts: Parts, role: str) -> JsonValue:
    place = source(parts, role)
    return {
        "sampler": config.identity(place.sampler),
        "data": config.identity(place.data),
        "split": place.split,
        "queries": place.queries,
        "k": place.k,
    }


def _candidates(parts: Parts, role: str) -> JsonValue:
    depth, redrawn = parts.depth, parts.redrawn
    further: JsonValue = None
    if redrawn is not None:
        precision = parts.trainer.precision
        further = {"pool": redrawn.pool, "student": _given(parts, REDRAWS), "precision": precision}
    return {
        "data": config.identity(parts.data),
        "sampler": config.identity(parts.sampler),
        "queries": depth.queries,
        "seed": depth.seed,
        "asked": depth.asked,
        "redrawn": further,
    }


def _given(parts: Parts, key: str) -> JsonValue:
    """What decides about a student from elsewhere, beside the cell that it is the result of."""
    return parts.origins[key].content if key in parts.origins else None


def _student(parts: Parts, key: str) -> Sequence[Step]:
    """The last training of the cell that a student comes from, if it comes from one."""
    other = parts.origins[key].parts if key in parts.origins else None
    return () if other is None else (replace(trained(other), of=key),)


def _device(thing: object) -> str:
    """What an object computes on, or what it works by; the CPU where it has no choice."""
    if (sampler := getattr(thing, "sampler", None)) is not None:
        return _device(sampler)
    if members := getattr(thing, "teachers", None):
        devices = [*map(_device, members.values())]
        return next((device for device in devices if device != CPU), CPU)
    if (backend := getattr(thing, "backend", None)) is not None:
        return getattr(backend, "device", "auto")
    return getattr(thing, "device", CPU)


def _ranking(like: JsonValue, parts: Parts, role: str) -> Work:
    sampler = source(parts, role).sampler
    return Work(like, device=_device(sampler), precision=getattr(sampler, "precision", ""))


def _search(parts: Parts, role: str) -> Work:
    like: JsonValue = {
        "data": config.identity(parts.data),
        "sampler": config.identity(parts.sampler),
    }
    if parts.redrawn is None:
        return replace(_ranking(like, parts, TRAINING), units=parts.depth.queries)
    return Work(
        [like, config.identity(parts.redrawn), config.identity(parts.student)],
        units=parts.depth.queries,
        device=parts.trainer.device,
        precision=parts.trainer.precision,
    )


def _collection_and_index(parts: Parts, role: str) -> Sequence[Step]:
    return (collection_of(role), Step("index", role))


COLLECTION = Stage(
    "collection",
    Artifact,
    decides=_layout,
    make=_late("retrieval", "lay_out"),
    work=lambda parts, role: Work(_layout(parts, role)),
)
INDEX = Stage(
    "index",
    Artifact,
    decides=_index,
    make=_late("retrieval", "index"),
    reads=lambda parts, role: (collection_of(role),),
    work=lambda parts, role: _ranking(_index(parts, role), parts, role),
)
RETRIEVE = Stage(
    "retrieve",
    Ranking,
    decides=_retrieval,
    make=_late("retrieval", "retrieve"),
    reads=_collection_and_index,
    work=lambda parts, role: _ranking(_retrieval(parts, role), parts, role),
)
CANDIDATES = Stage(
    "candidates",
    Candidates,
    decides=_candidates,
    make=_late("candidates", "rank_candidates"),
    needs=lambda parts, role: _student(parts, REDRAWS),
    reads=lambda parts, role: _collection_and_index(parts, TRAINING),
    work=_search,
)

# --- tokens ---


def _tokens(parts: Parts, role: str) -> JsonValue:
    """Of the student, what decides its tokens: not what is trained, nor how."""
    student = config.identity(parts.student)
    assert isinstance(student, dict)
    return {
        "data": _layout(parts, role),
        "student": {name: student.get(name) for name in parts.student.tokenised_by},
    }


def _texts(parts: Parts, role: str) -> Work:
    texts = _layout(parts, role) if role == TRAINING else _retrieval(parts, role)
    return Work(["tokens", texts, parts.student.model])


def _ranked(parts: Parts, role: str) -> Sequence[Step]:
    """The ranking whose passages are tokenised; none: the collection is, whole."""
    return () if role == TRAINING else (Step("retrieve", role),)


TOKENS = Stage(
    "tokens",
    Tokenised,
    decides=_tokens,
    make=_late("tokenising", "tokenise"),
    needs=_ranked,
    reads=lambda parts, role: (collection_of(role),),
    work=_texts,
)

# --- labels ---


def _asked(parts: Parts) -> JsonValue:
    return config.identity(parts.teacher, config.ANSWERS)


def _labels(parts: Parts, role: str) -> Work:
    queries, teacher = parts.depth.queries, _asked(parts)
    if queries is None:
        return _of_teacher(parts, _open_ended(parts, teacher))
    return _of_teacher(parts, Work(teacher, queries * parts.depth.asked))


def _of_teacher(parts: Parts, work: Work) -> Work:
    """Work of the teacher: behind a service, it takes as long from wherever that is asked."""
    served = getattr(parts.teacher, "service", "")
    return replace(work, device=None if served else _device(parts.teacher))


def _open_ended(parts: Parts, like: JsonValue) -> Work:
    """Work whose size is not known: compared under the same depth and stage 1 only."""
    depth, stage_1 = config.identity(parts.depth), config.identity(parts.prefinetune)
    return Work([like, depth, stage_1], None)


def _reference(parts: Parts, role: str) -> JsonValue:
    queries = parts.evaluation.teacher_queries
    return {"teacher": _asked(parts), "queries": queries}


def _test_labels(parts: Parts, role: str) -> Work:
    units = parts.evaluation.teacher_queries * source(parts, role).k
    return _of_teacher(parts, Work(_asked(parts), units))


TEACH = Stage(
    "teach",
    TeacherRanking,
    decides=lambda parts, role: _asked(parts),
    make=_late("labelling", "teach"),
    needs=lambda parts, role: (Step("candidates"),),
    reads=lambda parts, role: (collection_of(TRAINING),),
    work=_labels,
)
REFERENCE = Stage(
    "reference",
    TeacherRanking,
    decides=_reference,
    make=_late("labelling", "rank_tests"),
    needs=lambda parts, role: (Step("retrieve", role),),
    reads=lambda parts, role: (collection_of(role),),
    work=_test_labels,
)

# --- training ---


def _stage_1(parts: Parts, role: str) -> JsonValue:
    student, stage = config.identity(parts.student), parts.prefinetune
    begins: dict[str, JsonValue] = {"student": student, "start": _given(parts, START)}
    if stage is None:
        return begins
    return begins | {
        "prefinetune": config.identity(stage),
        "data": config.identity(parts.data),
        "trainer": config.identity(stage.trainer(parts.trainer)),
    }


def _stage_2(parts: Parts, role: str) -> JsonValue:
    validated = parts.trainer.validate_every is not None
    return {
        "loss": config.identity(parts.loss),
        "budget": config.identity(parts.budget),
        "trainer": config.identity(parts.trainer),
        "seed": parts.seed,
        "validated": parts.evaluation.measures[0] if validated else None,
    }


def _tests(parts: Parts) -> list[Step]:
    """The test collections: training queries are compared with theirs."""
    return [collection_of(role) for role in test_roles(parts)]


def _stage_1_reads(parts: Parts, role: str) -> Sequence[Step]:
    if parts.prefinetune is None:
        return ()
    return (*_collection_and_index(parts, STAGE_1), tokens_of(STAGE_1), *_tests(parts))


def _stage_2_needs(parts: Parts, role: str) -> Sequence[Step]:
    validated = [Step("retrieve", role) for role in validation_roles(parts)]
    return (Step("teach"), Step("select"), Step("prefinetune"), *validated)


def _stage_2_reads(parts: Parts, role: str) -> Sequence[Step]:
    validated = [(collection_of(role), tokens_of(role)) for role in validation_roles(parts)]
    return (collection_of(TRAINING), tokens_of(TRAINING), *chain.from_iterable(validated))


def _training(parts: Parts, kind: JsonValue, pairs: float | None) -> Work:
    student, texts = config.identity(parts.student), config.identity(parts.data, config.PASSAGES)
    like: JsonValue = [kind, student, texts]
    work = Work(like, pairs) if pairs is not None else _open_ended(parts, like)
    return _of_student(parts, replace(work, size=student), [kind, texts])


def _of_student(parts: Parts, work: Work, other: JsonValue) -> Work:
    """Work of the student, which takes time in proportion to its size where all else is equal."""
    student = config.identity(parts.student)
    assert isinstance(student, dict)
    rest = {key: value for key, value in student.items() if key not in _SIZES}
    return replace(
        work,
        device=parts.trainer.device,
        precision=parts.trainer.precision,
        scales=[rest, other],
        model=lambda: _size(parts.student),
    )


_SIZES = ("model", "revision", "layers")  # what of a student decides its size


def _size(student: Student) -> Size | None:
    from rdx.trainer.sizes import size

    return size(student)


def _stage_1_work(parts: Parts, role: str) -> Work:
    stage = parts.prefinetune
    if stage is None:
        student = config.identity(parts.student)
        return Work(["saved as it comes", student], size=student)
    lists = None if stage.queries is None else stage.queries * stage.epochs
    return _training(parts, STAGE_1, None if lists is None else lists * (1 + stage.negatives))


def _stage_2_work(parts: Parts, role: str) -> Work:
    depth = parts.depth
    if depth.queries is None:
        return _training(parts, ["stage 2", config.identity(parts.budget)], None)
    length = parts.budget.length(depth.queries, depth.k, parts.trainer.batch)
    return _training(parts, "stage 2", length.pairs)


def _selected(parts: Parts, role: str) -> JsonValue:
    return {"depth": config.identity(parts.depth), "scale": parts.scale}


SELECT = Stage(
    "select",
    Selected,
    decides=_selected,
    make=_late("training", "select"),
    needs=lambda parts, role: (Step("candidates"), Step("teach")),
    reads=lambda parts, role: (collection_of(TRAINING), *_tests(parts)),
    work=lambda parts, role: Work(["select", config.identity(parts.depth)]),
)
PREFINETUNE = Stage(
    "prefinetune",
    Checkpoint,
    decides=_stage_1,
    make=_late("training", "prefinetune"),
    needs=lambda parts, role: _student(parts, START),
    reads=_stage_1_reads,
    work=_stage_1_work,
    together=True,
)
DISTILL = Stage(
    "distill",
    Checkpoint,
    decides=_stage_2,
    make=_late("training", "distill"),
    needs=_stage_2_needs,
    reads=_stage_2_reads,
    work=_stage_2_work,
    again=True,
    together=True,
)

# --- evaluation ---


def _evaluation(parts: Parts, role: str) -> JsonValue:
    precision = parts.trainer.precision
    return {"evaluation": config.identity(parts.evaluation), "precision": precision}


def _evaluation_needs(parts: Parts, role: str) -> Sequence[Step]:
    """The student, first stages, and the teacher where it ranks queries it has not seen."""
    roles = test_roles(parts)
    ranked = parts.loss and parts.evaluation.teacher_queries and parts.teacher.ranks_unseen
    return (
        trained(parts),
        *([Step("retrieve", DEV)] if parts.evaluation.interpolate else []),
        *(Step("retrieve", test) for test in roles),
        *(Step("reference", test) for test in roles if ranked),
    )


def _evaluation_reads(parts: Parts, role: str) -> Sequence[Step]:
    dev = [collection_of(DEV), tokens_of(DEV)] if parts.evaluation.interpolate else []
    return (*dev, *_tests(parts), *map(tokens_of, test_roles(parts)))


def _evaluation_work(parts: Parts, role: str) -> Work:
    evaluation = config.identity(parts.evaluation)
    work = Work([config.identity(parts.student), evaluation])
    return _of_student(parts, work, ["evaluation", evaluation])


EVALUATE = Stage(
    "evaluate",
    Evaluated,
    decides=_evaluation,
    make=_late("testing", "evaluate"),
    needs=_evaluation_needs,
    reads=_evaluation_reads,
    work=_evaluation_work,
    again=True,
)

_TABLE: tuple[Stage[Artifact], ...] = (
    *(COLLECTION, INDEX, RETRIEVE, TOKENS, CANDIDATES, TEACH, SELECT),
    *(PREFINETUNE, DISTILL, REFERENCE, EVALUATE),
)
STAGES = {stage.name: stage for stage in _TABLE}
LAST = Step("evaluate")

# --- what is derived from the table ---


class Signatures:
    """What the steps of a cell sign, and their signatures, each found once."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._keys: dict[Step, str] = {}

    def signed(self, step: Step) -> dict[str, JsonValue]:
        """What decides a step's result, itself and by what it needs."""
        stage, parts = STAGES[step.stage], self.parts.of(step.of)
        needs = [need.within(step.of) for need in stage.needs(parts, step.role)]
        return {
            "stage": stage.name,
            "schema": SCHEMA,
            "decides": stage.decides(parts, step.role),
            "needs": [[need.stage, self.key(need)] for need in needs],
        }

    def key(self, step: Step) -> str:
        """The signature of a step."""
        if step not in self._keys:
            self._keys[step] = signature(self.signed(step))
        return self._keys[step]


def steps(parts: Parts, last: Step = LAST) -> list[Step]:
    """All steps that a result takes, in an order in which they can be made; itself the last."""
    known: dict[Step, None] = {}

    def add(step: Step) -> None:
        if step not in known:
            for need in inputs(parts, step):
                add(need)
            known[step] = None

    add(last)
    return list(known)


def inputs(parts: Parts, step: Step) -> list[Step]:
    """The steps whose artifacts a step gets."""
    given = STAGES[step.stage].inputs(parts.of(step.of), step.role)
    return [need.within(step.of) for need in given]


def work(parts: Parts, step: Step) -> Work:
    """How much work a step is."""
    return STAGES[step.stage].work(parts.of(step.of), step.role)


def begun(cell: Cell, precision: str | None = None, bases: config.Bases | None = None) -> Cell:
    """The cell with the students that it takes from elsewhere, and their cells (`origins`).

    `precision` and `bases` are those of `rdx.config.split`.

    Raises
    ------
    ConfigError
        If there is no such student, or this cell cannot begin from it.
    """
    bases = {} if bases is None else bases
    return origins.found(
        cell,
        compose=lambda overrides: config.single(overrides, precision, bases),
        sign=lambda other: signed(other, precision, bases),
    )


def signed(cell: Cell, precision: str | None = None, bases: config.Bases | None = None) -> Cell:
    """`begun`, with the signatures of its steps, and its own, which is that of the last."""
    cell = begun(cell, precision, bases)
    signatures = Signatures(Parts(cell.cfg))
    keys = {str(step): signatures.key(step) for step in steps(signatures.parts)}
    return replace(cell, keys=keys, signature=keys[str(LAST)])


def over_seeds(cell: Cell) -> str:
    """What a cell's signature would be with one certain seed: equal of its other seeds' cells.

    Students that it takes from elsewhere have that seed, too.
    """
    return signed(replace(cell, cfg=_of_one_seed(cell.cfg))).signature


def _of_one_seed(cfg: config.Config) -> config.Config:
    origins = {
        key: {**node, "cell": node["cell"] and _of_one_seed(node["cell"])}
        for key, node in (cfg.get("origins") or {}).items()
    }
    return {**cfg, "seed": 0, "origins": origins or None}


def split(
    what: str | Sequence[str], precision: str | None = None
) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """`rdx.config.split`, the possible cells signed."""
    bases: config.Bases = {}
    cells, left_out = config.split(what, precision, bases)
    return [signed(cell, precision, bases) for cell in cells], left_out


def cells(what: str | Sequence[str]) -> list[Cell]:
    """`rdx.config.cells`, signed."""
    return split(what)[0]


def distinct(cells: Sequence[Cell], stage: str = LAST.stage) -> list[Cell]:
    """The first cell of each signature of a stage, in the order of the last ones."""
    return list({cell.keys[stage]: cell for cell in reversed(cells)}.values())[::-1]
