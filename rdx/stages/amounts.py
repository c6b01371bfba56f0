"""How much work each stage is, and what it takes time like."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rdx import config
from rdx.devices import CPU
from rdx.job import STAGE_1, TRAINING, Parts, source
from rdx.stages import deciding
from rdx.stages.stage import Work

if TYPE_CHECKING:
    from rdx.students import Student
    from rdx.trainer.sizes import Size

_SIZES = ("model", "revision", "layers")  # what of a student decides its size


def ranking(like: JsonValue, parts: Parts, role: str) -> Work:
    """Work of the sampler of a role."""
    sampler = source(parts, role).sampler
    return Work(like, device=_device(sampler), precision=getattr(sampler, "precision", ""))


def search(parts: Parts, role: str) -> Work:
    """The search for candidates of the training queries."""
    like: JsonValue = {
        "data": config.identity(parts.data),
        "sampler": config.identity(parts.sampler),
    }
    if parts.redrawn is None:
        return replace(ranking(like, parts, TRAINING), units=parts.depth.queries)
    return Work(
        [like, config.identity(parts.redrawn), config.identity(parts.student)],
        units=parts.depth.queries,
        device=parts.trainer.device,
        precision=parts.trainer.precision,
    )


def texts(parts: Parts, role: str) -> Work:
    """The texts that are tokenised."""
    which = deciding.layout(parts, role) if role == TRAINING else deciding.retrieval(parts, role)
    return Work(["tokens", which, parts.student.model])


def labels(parts: Parts, role: str) -> Work:
    """The teacher's work on training queries: the passages that it ranks."""
    queries, teacher = parts.depth.queries, deciding.asked(parts)
    if queries is None:
        return _of_teacher(parts, _open_ended(parts, teacher))
    return _of_teacher(parts, Work(teacher, queries * parts.depth.asked))


def references(parts: Parts, role: str) -> Work:
    """The teacher's work on test queries: the passages that it ranks."""
    units = parts.evaluation.teacher_queries * source(parts, role).k
    return _of_teacher(parts, Work(deciding.asked(parts), units))


def _training(parts: Parts, kind: JsonValue, pairs: float | None) -> Work:
    student, texts = config.identity(parts.student), config.identity(parts.data, config.PASSAGES)
    like: JsonValue = [kind, student, texts]
    work = Work(like, pairs) if pairs is not None else _open_ended(parts, like)
    return _of_student(parts, replace(work, size=student), [kind, texts])


def stage_1(parts: Parts, role: str) -> Work:
    """Pairs of the training on labels."""
    stage = parts.prefinetune
    if stage is None:
        student = config.identity(parts.student)
        return Work(["saved as it comes", student], size=student)
    lists = None if stage.queries is None else stage.queries * stage.epochs
    return _training(parts, STAGE_1, None if lists is None else lists * (1 + stage.negatives))


def stage_2(parts: Parts, role: str) -> Work:
    """Pairs of the distillation."""
    depth = parts.depth
    if depth.queries is None:
        return _training(parts, ["stage 2", config.identity(parts.budget)], None)
    length = parts.budget.length(depth.queries, depth.k, parts.trainer.batch)
    return _training(parts, "stage 2", length.pairs)


def evaluation(parts: Parts, role: str) -> Work:
    """The re-ranking of the test queries."""
    evaluation = config.identity(parts.evaluation)
    work = Work([config.identity(parts.student), evaluation])
    return _of_student(parts, work, ["evaluation", evaluation])


def _of_teacher(parts: Parts, work: Work) -> Work:
    """Work of the teacher: behind a service, it takes as long from wherever that is asked."""
    served = getattr(parts.teacher, "service", "")
    return replace(work, device=None if served else _device(parts.teacher))


def _open_ended(parts: Parts, like: JsonValue) -> Work:
    """Work whose size is not known: compared under the same depth and stage 1 only."""
    depth, stage_1 = config.identity(parts.depth), config.identity(parts.prefinetune)
    return Work([like, depth, stage_1], None)


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


def _size(student: Student) -> Size | None:
    from rdx.trainer.sizes import size

    return size(student)


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
