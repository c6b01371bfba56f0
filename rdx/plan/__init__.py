"""Plan a grid: estimate time, disk, cost and power; nothing is computed or written.

Times and sizes are those of comparable results in the store; what was never done has none.
"""

from rdx.plan.evidence import queries, scores, seeds
from rdx.plan.history import How, Source, Span
from rdx.plan.plans import FINISHED, TO_RUN, UNRECORDED, Basis, CellPlan, Plan, StagePlan, plan
from rdx.plan.services import Service
from rdx.plan.text import as_json, text

__all__ = [
    "FINISHED",
    "TO_RUN",
    "UNRECORDED",
    "Basis",
    "CellPlan",
    "How",
    "Plan",
    "Service",
    "Source",
    "Span",
    "StagePlan",
    "as_json",
    "plan",
    "queries",
    "scores",
    "seeds",
    "text",
]
