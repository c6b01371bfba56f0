"""What of the configuration decides the result of each stage, beside what the stage needs."""

from __future__ import annotations

from pydantic import JsonValue

from rdx import config
from rdx.job import REDRAWS, START, Parts, source


def layout(parts: Parts, role: str) -> JsonValue:
    """The files of a collection."""
    return config.identity(source(parts, role).data, config.FILES)


def index(parts: Parts, role: str) -> JsonValue:
    """The engine, and the passages that it indexes."""
    place = source(parts, role)
    return place.sampler.index_of(config.identity(place.data, config.PASSAGES))


def retrieval(parts: Parts, role: str) -> JsonValue:
    """Which passages are retrieved, for which queries."""
    place = source(parts, role)
    return {
        "sampler": config.identity(place.sampler),
        "data": config.identity(place.data),
        "split": place.split,
        "queries": place.queries,
        "k": place.k,
    }


def given(parts: Parts, key: str) -> JsonValue:
    """What decides about a student from elsewhere, beside the cell that it is the result of."""
    return parts.origins[key].content if key in parts.origins else None


def candidates(parts: Parts, role: str) -> JsonValue:
    """Which training queries have candidates, how these are found, and what re-draws them."""
    depth, redrawn = parts.depth, parts.redrawn
    further: JsonValue = None
    if redrawn is not None:
        precision = parts.trainer.precision
        further = {"pool": redrawn.pool, "student": given(parts, REDRAWS), "precision": precision}
    return {
        "data": config.identity(parts.data),
        "sampler": config.identity(parts.sampler),
        "queries": depth.queries,
        "seed": depth.seed,
        "asked": depth.asked,
        "redrawn": further,
    }


def tokens(parts: Parts, role: str) -> JsonValue:
    """Of the student, what decides its tokens: not what is trained, nor how."""
    student = config.identity(parts.student)
    assert isinstance(student, dict)
    return {
        "data": layout(parts, role),
        "student": {name: student.get(name) for name in parts.student.tokenised_by},
    }


def asked(parts: Parts) -> JsonValue:
    """What decides the teacher's answers."""
    return config.identity(parts.teacher, config.ANSWERS)


def reference(parts: Parts, role: str) -> JsonValue:
    """The teacher, and how many test queries it ranks."""
    queries = parts.evaluation.teacher_queries
    return {"teacher": asked(parts), "queries": queries}


def selected(parts: Parts, role: str) -> JsonValue:
    """How training lists are picked from labels."""
    return {"depth": config.identity(parts.depth), "scale": parts.scale}


def stage_1(parts: Parts, role: str) -> JsonValue:
    """The student, where it begins, and its training on labels, if there is one."""
    student, stage = config.identity(parts.student), parts.prefinetune
    begins: dict[str, JsonValue] = {"student": student, "start": given(parts, START)}
    if stage is None:
        return begins
    return begins | {
        "prefinetune": config.identity(stage),
        "data": config.identity(parts.data),
        "trainer": config.identity(stage.trainer(parts.trainer)),
    }


def stage_2(parts: Parts, role: str) -> JsonValue:
    """The loss, and how long and with what the student is trained."""
    validated = parts.trainer.validate_every is not None
    return {
        "loss": config.identity(parts.loss),
        "budget": config.identity(parts.budget),
        "trainer": config.identity(parts.trainer),
        "seed": parts.seed,
        "validated": parts.evaluation.measures[0] if validated else None,
    }


def evaluation(parts: Parts, role: str) -> JsonValue:
    """What is measured, and how it is computed."""
    precision = parts.trainer.precision
    return {"evaluation": config.identity(parts.evaluation), "precision": precision}
