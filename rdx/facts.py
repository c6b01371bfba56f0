"""Records that are written as JSON: typed, versioned, and shared with `analysis`.

Every JSON file of the store is one of these records, written by `dump` and read by `parse`; nobody
reads such a file by its keys. A field that is added needs a default, so that older files can be
read; one that changes its meaning raises `VERSION`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from rdx.text import counted

VERSION = 1  # of all records together; a file of another version is not read
OK = "ok"  # the health of a trial with which nothing is wrong

Record = TypeVar("Record")
Fingerprint = dict[str, JsonValue]  # what identifies a first stage: engine, version, parameters


class FactsError(ValueError):
    """JSON text that is not the record it should be; the message names the first wrong key."""


def dump(record: object) -> str:
    """A record as JSON text, with the version of all records."""
    plain = {"version": VERSION, **_adapter(type(record)).dump_python(record, mode="json")}
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def parse(kind: type[Record], text: str | bytes) -> Record:
    """Read a record from JSON text.

    Raises
    ------
    FactsError
        If the text is no JSON object, of another version, or lacks a key.
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise FactsError(f"damaged: {error}") from error
    if not isinstance(plain, dict):
        raise FactsError("not a JSON object")
    version = plain.pop("version", None)
    if version != VERSION:
        raise FactsError(
            f"its version is {version}, not {VERSION}: another version of rdx wrote it"
        )
    try:
        return _adapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FactsError(f"{place}: {first['msg']}: another version of rdx wrote it") from error


def numbers(record: object) -> dict[str, float]:
    """All numbers of a record by their path, as in ``moves/rbo``: what MLflow takes as metrics."""
    return dict(_numbers(_adapter(type(record)).dump_python(record), ""))


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}/{name}" if path else str(name))
    elif isinstance(value, int | float):
        yield path, float(value)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


@dataclass(frozen=True)
class Count:
    """How many, and of how many."""

    n: int
    of: int

    @property
    def share(self) -> float:
        """`n / of`; 0 of nothing."""
        return self.n / self.of if self.of else 0.0


Counts = dict[str, Count]

# --- the label audit: numbers of `rdx.teachers.audit`, explained in docs/teachers.md ---


@dataclass(frozen=True, kw_only=True)
class States:
    """How many lists (or windows) have each parse state."""

    total: int
    counts: dict[str, int]
    shares: dict[str, float]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Windows(States):
    """States of windows; answers that were asked for; words kept of a passage, with windows.

    Attributes
    ----------
    shortened
        Windows that were answered with shortened passages, because more did not fit the context.
    estimated_tokens, lost_tokens
        Tokens of answers whose service does not count them; of tries that were served in vain.
    thinking_tokens
        Of all answers, those that the model thought aloud and that nobody reads.
    """

    answers: int
    asked_again: float
    words: dict[str, int]
    shortened: int = 0
    estimated_tokens: int = 0
    lost_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Moves:
    """How far the teacher moves passages; None where no list has two."""

    lists: int
    shift: float | None
    shift_at_random: float | None
    kendall_tau: float | None
    rbo: float | None
    unchanged: float | None


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A mean over queries with its 95 % t interval; a single query has none."""

    mean: float
    low: float | None
    high: float | None
    queries: int


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Mean rank in the answer by position in the prompt, for windows of the most frequent size."""

    windows: int
    size: int
    mean_rank: tuple[float, ...]
    excess: tuple[float, ...]
    slope: Slope


@dataclass(frozen=True, kw_only=True)
class PositionBias:
    """Of all windows, and of the first windows of lists in random order."""

    all: Bias | None
    shuffled: Bias | None


@dataclass(frozen=True, kw_only=True)
class Effectiveness:
    """nDCG@10 of teacher, its input and the best order, and Judged@10 of the teacher."""

    queries: int
    teacher: float
    input: float
    oracle: float
    judged_at_10: float


@dataclass(frozen=True, kw_only=True)
class LabelEffectiveness:
    """Of the usable lists, and of all lists, the others in the order of their input."""

    measure: str
    usable: Effectiveness | None
    all: Effectiveness | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """With another teacher, over the candidates that both rank; None without such lists."""

    lists: int
    p: float
    rbo: float | None
    kendall_tau: float | None
    shared: float | None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a teacher ranking is worth; None where there is nothing to say."""

    lists: States
    moves: Moves
    windows: Windows | None = None
    position_bias: PositionBias | None = None
    effectiveness: LabelEffectiveness | None = None
    agreement: Agreement | None = None


# --- training ---


@dataclass(frozen=True)
class QuerySample:
    """Training queries that candidates were ranked for; passages of a given run without text."""

    collection: str
    queries: tuple[str, ...]
    passages_missing: Count | None = None


@dataclass(frozen=True)
class Selection:
    """What became of the sampled training queries, and of their passages.

    Attributes
    ----------
    collection
        Name of the training collection.
    fates
        Query id -> "used", or why it has no list (`rdx.accounting.LOST`).
    dropped
        Training data that was left out, by name (`rdx.accounting.NAMES`).
    """

    collection: str
    fates: dict[str, str]
    dropped: Counts


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validated measure before training and of the kept weights, each with its step.

    `best_step`: after how many steps it was best; `kept_step`: of the weights that were kept.
    """

    start: float
    kept: float
    best_step: int
    kept_step: int


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a training did.

    Attributes
    ----------
    steps, pairs, lists
        Optimiser steps; (query, passage) pairs; training lists of an epoch.
    tokens, padding, flops
        Tokens without padding; padding's share of the computed tokens; floating-point operations
        (`rdx.trainer.budgets.flops`).
    max_tokens
        Of a micro-batch, in the end.
    truncated_texts
        Texts, by their ids, of which the student saw the beginning only.
    last_loss, weight_change
        Loss of the last step; largest change of some probed weights.
    validation
        None without one.
    """

    steps: int
    pairs: int
    lists: int
    tokens: int
    padding: float
    flops: int
    max_tokens: int
    truncated_texts: int
    last_loss: float
    weight_change: float
    validation: Validation | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """How a checkpoint came about.

    Attributes
    ----------
    training
        None of a student that was saved as it came.
    dropped
        Training data that was left out or cut, by name (`rdx.accounting.NAMES`).
    audit, states
        Of the labels of a distillation: their audit, and rows of the teacher ranking by state.
    student
        What decided it as a student (its configuration's identity): what begins from its weights
        must be of its kind.
    """

    training: TrainingFacts | None = None
    dropped: Counts = field(default_factory=dict)
    audit: Audit | None = None
    states: dict[str, int] = field(default_factory=dict)
    student: dict[str, JsonValue] | None = None


# --- evaluation ---


@dataclass(frozen=True)
class Ties:
    """The rule for ties, and the shares of neighbours in the top k with equal scores."""

    rule: str
    first_stage: float
    system: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What must be equal before two systems may stand in one table, and where it is averaged.

    Attributes
    ----------
    queries, k
        Tested queries; passages of the first stage that are re-ranked.
    digest
        Of the collection's identity and the tested queries.
    first_stage
        Its fingerprint; of a pooled corpus, those of its test sets by name.
    corpus, in_mean
        As of `rdx.evaluation.TestSet`.
    passages_of_copy
        Passages of a local copy that was measured in place of the original; None of an original.
    """

    queries: int
    k: int
    digest: str
    first_stage: Fingerprint
    corpus: str | None = None
    in_mean: bool = True
    passages_of_copy: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What stands beside the score of a ranking in a collection (`rdx.evaluation.quality`).

    Attributes
    ----------
    judged_at_10, judged_at_10_first_stage
        Judged@10 of the ranking and of the first stage.
    ceiling
        The oracle's mean of the first measure.
    reason
        Why the collection is degenerate; "" if it is not.
    missing_queries
        Judged queries without a candidate, which count 0.
    own_passages
        Candidates with the id of their query (`evaluation.self_retrieval`).
    ties
        Rule and shares.
    tie_range
        System with tied passages -> measure -> lowest and highest mean that an order of them gives.
    """

    judged_at_10: float
    judged_at_10_first_stage: float
    ceiling: float
    reason: str
    missing_queries: int
    ties: Ties
    tie_range: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    own_passages: int = 0

    @property
    def degenerate(self) -> bool:
        """Whether the collection says nothing about re-rankers."""
        return bool(self.reason)


@dataclass(frozen=True, kw_only=True)
class CollectionFacts(Setting, Quality):
    """A test collection of a trial.

    Attributes
    ----------
    weight
        Of the student in its interpolation with the first stage; None without one.
    shared
        Query ids that an earlier test set of the corpus has, too: they count once in means.
    pooled, colliding_queries
        Of a corpus that was pooled as in the paper: its test sets, and queries whose ids collide.
    oddities
        What is odd in its files, by name (docs/data.md).
    selected_on
        Whether scores on it decided which weights were kept (`trainer.validate_on`), in this cell
        or in one that its students come from: it is no test of them.
    """

    weight: float | None = None
    shared: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()
    colliding_queries: int = 0
    oddities: dict[str, int] = field(default_factory=dict)
    selected_on: bool = False


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds per query: median, 95th percentile and mean over queries."""

    p50: float
    p95: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Peak memory in bytes: of the process, and of torch on a GPU; None where nothing tells."""

    rss: int | None = None
    cuda: int | None = None

    @property
    def bytes(self) -> int | None:
        """Of the GPU where there is one, else of the process."""
        return self.rss if self.cuda is None else self.cuda


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Joules per query by the machine's counters, and which; None where it has none."""

    joules_per_query: float | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What was timed on."""

    device: str
    cpu: str
    cores: int | None
    threads: int
    torch: str


@dataclass(frozen=True, kw_only=True)
class QueryTiming:
    """The re-ranking of single queries (`rdx.evaluation.efficiency`).

    Attributes
    ----------
    seconds
        Query id -> one number per repetition.
    pairs
        Query id -> passages.
    latency, pairs_per_second
        Of the medians over repetitions.
    """

    seconds: dict[str, tuple[float, ...]]
    pairs: dict[str, int]
    latency: Latency
    pairs_per_second: float
    peak_memory: Peak
    energy: Energy
    hardware: Hardware
    warm_up: int
    repetitions: int
    precision: str
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The re-ranking of a collection; `texts_truncated` of `texts` were cut for the student."""

    seconds: float
    pairs_per_second: float
    queries: int
    texts: int
    texts_truncated: int
    single: QueryTiming | None = None


@dataclass(frozen=True, kw_only=True)
class Means:
    """Means over corpora.

    Attributes
    ----------
    corpora
        Their names.
    left_out
        Collection -> why it takes no part.
    arithmetic, geometric
        SYSTEM/MEASURE -> mean; systems that some corpus lacks are absent.
    """

    corpora: tuple[str, ...]
    left_out: dict[str, str]
    arithmetic: dict[str, float]
    geometric: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class OverCollections:
    """Means over collections.

    Attributes
    ----------
    collections
        Over all that take part.
    paper_compat
        The paper's, if corpora were pooled.
    named
        Those of ``evaluation.means``, each over the test sets that its `corpora` are.
    """

    collections: Means
    paper_compat: Means | None = None
    named: dict[str, Means] = field(default_factory=dict)


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


# --- the store ---


@dataclass(frozen=True)
class Device:
    """What computes, by the name that people know it by, and how many of it.

    Attributes
    ----------
    name
        Of the GPU or the processor.
    gpu
        Whether it is a GPU.
    count
        GPUs; or cores that are computed on. Of all processes together.
    """

    name: str
    gpu: bool
    count: int = 1

    def __str__(self) -> str:
        """As in "NVIDIA H200", "2 x NVIDIA H200" and "AMD EPYC 9645, 2 cores"."""
        if self.gpu:
            return self.name if self.count == 1 else f"{self.count} x {self.name}"
        return f"{self.name}, {counted(self.count, 'core')}"


@dataclass(frozen=True)
class Pace:
    """How fast work went on: its share that was done in so many seconds, without the start."""

    share: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A stored result.

    Attributes
    ----------
    signed, files
        What was signed; the sha256 of its files.
    seconds
        That it took; if it was `resumed`, those since then.
    resumed
        Whether a process that was killed or failed had begun it.
    device, pace
        What it was made on, and how fast after its start; None where that was not recorded.
    """

    stage: str
    signature: str
    signed: JsonValue
    files: dict[str, str]
    seconds: float
    resumed: bool = False
    device: Device | None = None
    pace: Pace | None = None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who makes a result, and how far it is (``KEY.running.json``).

    Attributes
    ----------
    host, pid
        The process.
    since, stage_since, now
        Unix times: when it began, when its present stage began, when this was written.
    stage, first_step, step, steps
        The stage; its first step here, which begins its time anew, steps done and steps of all;
        None where it counts none.
    """

    host: str
    pid: int
    since: float
    stage: str = ""
    stage_since: float = 0.0
    first_step: int | None = None
    step: int | None = None
    steps: int | None = None
    now: float = 0.0

    @property
    def pace(self) -> Pace | None:
        """Of the stage's steps after the first that was done here; None where there is none."""
        first, step = self.first_step, self.step
        if not self.steps or step is None or first is None or step <= first:
            return None
        return Pace((step - first) / self.steps, max(self.now - self.stage_since, 0.0))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why the last try of a cell failed (``KEY.failed.json``).

    Attributes
    ----------
    state, cause
        One of `rdx.progress.TO_RETRY`; the error in a line.
    log, where
        File with the traceback; host:pid.
    max_tokens
        Sizes of micro-batches that the configuration gives as numbers, by their keys.
    """

    state: str
    cause: str
    log: str
    where: str
    max_tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GridCell:
    """A cell: the command line that gives it, its signature, and those of its steps by name."""

    overrides: tuple[str, ...]
    signature: str
    signatures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What was begun on a command line, of its own or for a grid (``STAGE/KEY.cell.json``).

    Attributes
    ----------
    cell
        Of labels without a training, as far as these.
    host, pid
        The process that works on it, or was killed; "" and 0: it has ended.
    since
        When it began, in seconds since 1970.
    """

    cell: GridCell
    host: str
    pid: int
    since: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid that was launched (``grids/GRID.json``); `arguments` and `hydra` launch it again."""

    grid: str
    arguments: tuple[str, ...]
    hydra: tuple[str, ...]
    cells: tuple[GridCell, ...]
    launched: float


@dataclass(frozen=True, kw_only=True)
class Made:
    """How long a stage's result took, and on what; None where that was not recorded."""

    seconds: float
    device: Device | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedTrial:
    """A trial without weights, texts, judgements and rankings; its scores lie beside it.

    Attributes
    ----------
    overrides
        The command line that gives its cell; empty of an imported system.
    settings
        Its configuration, of paths the names alone; empty of an imported system.
    made
        Training and evaluation by stage, as far as the store still had them.
    """

    facts: TrialFacts
    overrides: tuple[str, ...] = ()
    settings: dict[str, JsonValue] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The results of a grid (``results.json``): what `arguments` expand to, and its trials."""

    grid: str
    arguments: tuple[str, ...]
    trials: tuple[PublishedTrial, ...]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What an experiment's spec will test, as far as its grid tells.

    Attributes
    ----------
    systems
        Rows of the table that are trained.
    tests
        Collection -> how many tests are corrected together with one in it, of its first measure.
    pooled
        Collection that is joined from others -> these (`pooled` of a spec).
    family
        Of the spec: "collection", "all" or "grid".
    """

    systems: int
    tests: dict[str, int]
    pooled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    family: str = "collection"


def shallow(record: object) -> dict[str, Any]:
    """The fields of a record by name, not converted: to build a record that extends it."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}  # type: ignore[arg-type]
