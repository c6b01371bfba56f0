"""Systems of other people: measure TREC runs without a model, register them as trials."""

from rdx.systems.archives import Archive, opened, register_all
from rdx.systems.records import register
from rdx.systems.runs import Run, outside
from rdx.systems.scores import Cost, Scored, evaluate, timings
from rdx.systems.testbed import Testbed, compose, copied

__all__ = [
    "Archive",
    "Cost",
    "Run",
    "Scored",
    "Testbed",
    "compose",
    "copied",
    "evaluate",
    "opened",
    "outside",
    "register",
    "register_all",
    "timings",
]
