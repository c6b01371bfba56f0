"""Other people's systems: TREC runs, measured without a model and registered as trials."""

from rdx.systems.archives import Found, opened, register_all
from rdx.systems.chosen import Run, candidates, collections, copied, outside, tested
from rdx.systems.measuring import evaluate, timings
from rdx.systems.records import register

__all__ = [
    "Found",
    "Run",
    "candidates",
    "collections",
    "copied",
    "evaluate",
    "opened",
    "outside",
    "register",
    "register_all",
    "tested",
    "timings",
]
