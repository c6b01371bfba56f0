"""Records that are written as JSON: typed, versioned, and shared with `analysis`.

Every JSON file of the store is one of these records, written by `dump` and read by `parse`; nobody
reads such a file by its keys. A field that is added needs a default, so that older files can be
read; one that changes its meaning raises `VERSION`.
"""

from rdx.facts.counts import Count, Counts
from rdx.facts.evaluation import (
    CollectionFacts,
    Fingerprint,
    Means,
    OverCollections,
    Quality,
    Setting,
    Ties,
)
from rdx.facts.files import VERSION, FactsError, Record, dump, numbers, parse, shallow
from rdx.facts.labels import (
    Agreement,
    Audit,
    Bias,
    Effectiveness,
    LabelEffectiveness,
    Moves,
    PositionBias,
    Slope,
    States,
    Windows,
)
from rdx.facts.origins import OriginNode, origins_of
from rdx.facts.published import Made, Outline, Published, PublishedTrial
from rdx.facts.store import Begun, Device, Failure, Grid, GridCell, Holder, Manifest, Pace
from rdx.facts.timing import Energy, Hardware, Latency, Peak, QueryTiming, Timing
from rdx.facts.training import CheckpointFacts, QuerySample, Selection, TrainingFacts, Validation
from rdx.facts.trial import OK, Imported, ImportedFile, Origin, TrialFacts

__all__ = [
    "OK",
    "VERSION",
    "Agreement",
    "Audit",
    "Begun",
    "Bias",
    "CheckpointFacts",
    "CollectionFacts",
    "Count",
    "Counts",
    "Device",
    "Effectiveness",
    "Energy",
    "FactsError",
    "Failure",
    "Fingerprint",
    "Grid",
    "GridCell",
    "Hardware",
    "Holder",
    "Imported",
    "ImportedFile",
    "LabelEffectiveness",
    "Made",
    "Latency",
    "Manifest",
    "Means",
    "Moves",
    "Origin",
    "OriginNode",
    "OverCollections",
    "Pace",
    "Peak",
    "PositionBias",
    "Quality",
    "QuerySample",
    "QueryTiming",
    "Record",
    "Selection",
    "Setting",
    "Slope",
    "States",
    "Ties",
    "Timing",
    "TrainingFacts",
    "TrialFacts",
    "Validation",
    "Windows",
    "dump",
    "numbers",
    "origins_of",
    "parse",
    "shallow",
    "Outline",
    "Published",
    "PublishedTrial",
]
