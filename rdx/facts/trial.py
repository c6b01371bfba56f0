"""The outcome of a trial, and where its student came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdx.facts.counts import Counts
from rdx.facts.evaluation import CollectionFacts, OverCollections
from rdx.facts.timing import Timing
from rdx.facts.training import CheckpointFacts, TrainingFacts

OK = "ok"  # the health of a trial with which nothing is wrong


@dataclass(frozen=True)
class ImportedFile:
    """A TREC run that was imported: its file name, content and what orders it."""

    file: str
    sha256: str
    order: str


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A system that was not trained here: its name, its runs by collection, their source.

    `oddities` are those of the runs, by collection and name; what is 0 is left out.
    """

    name: str
    file: str
    sha256: str
    files: dict[str, ImportedFile]
    source: str = ""
    oddities: dict[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A student that a cell took from elsewhere.

    Attributes
    ----------
    path
        The key that names it: "start" or "sampler.student"; of another cell's origin after the path
        to that cell, as in "start/start".
    given
        How it was named there.
    checkpoint
        Signature of its weights.
    """

    path: str
    given: str
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """The outcome of a trial: ``trial.json`` in the store, and the same file in MLflow.

    Attributes
    ----------
    signature, signatures
        Of the cell, and of every stage of it by the stage's name; an import has no stages.
    levels
        Option chosen per config group.
    seed, precision
        Of the cell; precision by its key.
    health
        `OK`, or what is wrong (`rdx.evaluation.health`).
    collections
        By name; the dataset inputs of the MLflow run.
    timing
        By collection.
    over_collections, means
        Means over collections; COLLECTION/SYSTEM/MEASURE -> mean over queries, and with several
        corpora mean/SYSTEM/MEASURE.
    checkpoint
        How the student came about; None of an import.
    imported
        None of a cell.
    origins
        Its lineage: the students that it took from elsewhere, and those that these took.
    """

    signature: str
    signatures: dict[str, str]
    levels: dict[str, str]
    seed: int
    health: str
    collections: dict[str, CollectionFacts]
    over_collections: OverCollections
    means: dict[str, float]
    precision: dict[str, str] = field(default_factory=dict)
    timing: dict[str, Timing] = field(default_factory=dict)
    checkpoint: CheckpointFacts | None = None
    imported: Imported | None = None
    origins: tuple[Origin, ...] = ()

    @property
    def training(self) -> TrainingFacts | None:
        """The training of the evaluated student; None if it was not trained."""
        return self.checkpoint.training if self.checkpoint else None
