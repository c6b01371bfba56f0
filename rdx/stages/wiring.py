"""The steps whose artifacts each stage gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from rdx.job import DEV, STAGE_1, TRAINING, Parts, test_roles, validation_roles
from rdx.stages.stage import Step, collection_of, tokens_of, trained


def student(parts: Parts, key: str) -> Sequence[Step]:
    """The last training of the cell that a student comes from, if it comes from one."""
    other = parts.origins[key].parts if key in parts.origins else None
    return () if other is None else (replace(trained(other), of=key),)


def collection_and_index(parts: Parts, role: str) -> Sequence[Step]:
    """What is searched in a role."""
    return (collection_of(role), Step("index", role))


def ranked(parts: Parts, role: str) -> Sequence[Step]:
    """The ranking whose passages are tokenised; none: the collection is, whole."""
    return () if role == TRAINING else (Step("retrieve", role),)


def tests(parts: Parts) -> list[Step]:
    """The test collections: training queries are compared with theirs."""
    return [collection_of(role) for role in test_roles(parts)]


def stage_1_reads(parts: Parts, role: str) -> Sequence[Step]:
    """What the training on labels searches and reads."""
    if parts.prefinetune is None:
        return ()
    return (*collection_and_index(parts, STAGE_1), tokens_of(STAGE_1), *tests(parts))


def stage_2_needs(parts: Parts, role: str) -> Sequence[Step]:
    """Labels, lists, the student of stage 1, and what it is validated on."""
    validated = [Step("retrieve", role) for role in validation_roles(parts)]
    return (Step("teach"), Step("select"), Step("prefinetune"), *validated)


def stage_2_reads(parts: Parts, role: str) -> Sequence[Step]:
    """The texts of training and validation."""
    validated = [(collection_of(role), tokens_of(role)) for role in validation_roles(parts)]
    return (collection_of(TRAINING), tokens_of(TRAINING), *chain.from_iterable(validated))


def evaluation_needs(parts: Parts, role: str) -> Sequence[Step]:
    """The student, first stages, and the teacher where it ranks queries it has not seen."""
    roles = test_roles(parts)
    ranked = parts.loss and parts.evaluation.teacher_queries and parts.teacher.ranks_unseen
    return (
        trained(parts),
        *([Step("retrieve", DEV)] if parts.evaluation.interpolate else []),
        *(Step("retrieve", test) for test in roles),
        *(Step("reference", test) for test in roles if ranked),
    )


def evaluation_reads(parts: Parts, role: str) -> Sequence[Step]:
    """The texts of the test sets, and of the dev queries of an interpolation."""
    dev = [collection_of(DEV), tokens_of(DEV)] if parts.evaluation.interpolate else []
    return (*dev, *tests(parts), *map(tokens_of, test_roles(parts)))
