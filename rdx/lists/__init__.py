"""Training lists: which passages of a query, in every epoch.

`Depth` says how many there are and out of which pool; how they are picked out of it is a class of
`rdx.lists.picks`; `rdx.lists.training` makes the lists.
"""

from rdx.lists.depth import MODES, Depth
from rdx.lists.picks import HalfTopHalfRandom, LogRank, RandomDepth, SingleRelevant, Top
from rdx.lists.training import Lists, TrainingList, drawn, fixed, labelled, with_relevance

__all__ = [
    "MODES",
    "Depth",
    "HalfTopHalfRandom",
    "Lists",
    "LogRank",
    "RandomDepth",
    "SingleRelevant",
    "Top",
    "TrainingList",
    "drawn",
    "fixed",
    "labelled",
    "with_relevance",
]
