"""Training lists: which passages of a query, in every epoch.

`Depth` says how many there are and out of which pool; how they are picked out of it is a class of
`rdx.lists.picks`; `rdx.lists.training` makes the lists, each when it is asked for.
"""

from rdx.lists.depth import MODES, Depth
from rdx.lists.picks import (
    HalfTopHalfRandom,
    HeadAndBand,
    LogRank,
    RandomDepth,
    ScoreQuantiles,
    SingleRelevant,
    Top,
)
from rdx.lists.pools import Pools
from rdx.lists.training import (
    Drawn,
    Lists,
    TrainingList,
    drawn,
    fixed,
    labelled,
    sizes,
    with_relevance,
)

__all__ = [
    "MODES",
    "Depth",
    "Drawn",
    "HalfTopHalfRandom",
    "HeadAndBand",
    "Lists",
    "LogRank",
    "Pools",
    "RandomDepth",
    "ScoreQuantiles",
    "SingleRelevant",
    "Top",
    "TrainingList",
    "drawn",
    "fixed",
    "labelled",
    "sizes",
    "with_relevance",
]
