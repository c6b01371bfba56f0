"""What a grid would take, before it is run: nothing is computed and nothing is written.

Times and sizes are those of comparable results in the store; what was never done has none.
"""

from rdx.plan.evidence import queries, scores, seeds
from rdx.plan.history import Span
from rdx.plan.plans import FINISHED, TO_RUN, UNRECORDED, CellPlan, Plan, StagePlan, plan
from rdx.plan.services import Service
from rdx.plan.text import aligned, amount, as_json, duration, text

__all__ = [
    "FINISHED",
    "TO_RUN",
    "UNRECORDED",
    "CellPlan",
    "Plan",
    "Service",
    "Span",
    "StagePlan",
    "aligned",
    "amount",
    "as_json",
    "duration",
    "plan",
    "queries",
    "scores",
    "seeds",
    "text",
]
