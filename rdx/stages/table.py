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

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

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
from rdx.job import REDRAWS, START, TRAINING, Job
from rdx.stages import amounts, deciding, wiring
from rdx.stages.stage import Inputs, Stage, Step, Work, collection_of

SCHEMA = 6  # raise it when the meaning of a stored result changes


def _late(module: str, name: str) -> Callable[[Job, Inputs, Path], None]:
    """A function of a module of this package, which is loaded when it is called."""

    def make(job: Job, inputs: Inputs, folder: Path) -> None:
        getattr(import_module(f"rdx.stages.{module}"), name)(job, inputs, folder)

    return make


COLLECTION = Stage(
    "collection",
    Artifact,
    decides=deciding.layout,
    make=_late("retrieval", "lay_out"),
    work=lambda parts, role: Work(deciding.layout(parts, role)),
)

INDEX = Stage(
    "index",
    Artifact,
    decides=deciding.index,
    make=_late("retrieval", "index"),
    reads=lambda parts, role: (collection_of(role),),
    work=lambda parts, role: amounts.ranking(deciding.index(parts, role), parts, role),
)

RETRIEVE = Stage(
    "retrieve",
    Ranking,
    decides=deciding.retrieval,
    make=_late("retrieval", "retrieve"),
    reads=wiring.collection_and_index,
    work=lambda parts, role: amounts.ranking(deciding.retrieval(parts, role), parts, role),
)

CANDIDATES = Stage(
    "candidates",
    Candidates,
    decides=deciding.candidates,
    make=_late("candidates", "rank_candidates"),
    needs=lambda parts, role: wiring.student(parts, REDRAWS),
    reads=lambda parts, role: wiring.collection_and_index(parts, TRAINING),
    work=amounts.search,
)

TOKENS = Stage(
    "tokens",
    Tokenised,
    decides=deciding.tokens,
    make=_late("tokenising", "tokenise"),
    needs=wiring.ranked,
    reads=lambda parts, role: (collection_of(role),),
    work=amounts.texts,
)

TEACH = Stage(
    "teach",
    TeacherRanking,
    decides=lambda parts, role: deciding.asked(parts),
    make=_late("labelling", "teach"),
    needs=lambda parts, role: (Step("candidates"),),
    reads=lambda parts, role: (collection_of(TRAINING),),
    work=amounts.labels,
)

REFERENCE = Stage(
    "reference",
    TeacherRanking,
    decides=deciding.reference,
    make=_late("labelling", "rank_tests"),
    needs=lambda parts, role: (Step("retrieve", role),),
    reads=lambda parts, role: (collection_of(role),),
    work=amounts.references,
)

SELECT = Stage(
    "select",
    Selected,
    decides=deciding.selected,
    make=_late("training", "select"),
    needs=lambda parts, role: (Step("candidates"), Step("teach")),
    reads=lambda parts, role: (collection_of(TRAINING), *wiring.tests(parts)),
    work=lambda parts, role: Work(["select", config.identity(parts.depth)]),
)

PREFINETUNE = Stage(
    "prefinetune",
    Checkpoint,
    decides=deciding.stage_1,
    make=_late("training", "prefinetune"),
    needs=lambda parts, role: wiring.student(parts, START),
    reads=wiring.stage_1_reads,
    work=amounts.stage_1,
    together=True,
)

DISTILL = Stage(
    "distill",
    Checkpoint,
    decides=deciding.stage_2,
    make=_late("training", "distill"),
    needs=wiring.stage_2_needs,
    reads=wiring.stage_2_reads,
    work=amounts.stage_2,
    again=True,
    together=True,
)

EVALUATE = Stage(
    "evaluate",
    Evaluated,
    decides=deciding.evaluation,
    make=_late("testing", "evaluate"),
    needs=wiring.evaluation_needs,
    reads=wiring.evaluation_reads,
    work=amounts.evaluation,
    again=True,
)

_TABLE: tuple[Stage[Artifact], ...] = (
    *(COLLECTION, INDEX, RETRIEVE, TOKENS, CANDIDATES, TEACH, SELECT),
    *(PREFINETUNE, DISTILL, REFERENCE, EVALUATE),
)
STAGES = {stage.name: stage for stage in _TABLE}
LAST = Step("evaluate")
