"""How long re-ranking took, and on what."""

from __future__ import annotations

from dataclasses import dataclass


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
