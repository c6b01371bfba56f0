"""Plain-text tables of what `python -m rdx evaluate` measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rdx.facts import Hardware, shallow
from rdx.text import aligned

if TYPE_CHECKING:
    from rdx.systems import Cost, Scored


def scores(rows: Sequence[Scored], measures: Sequence[str]) -> str:
    """Means of systems, and what stands beside them."""
    with_first = rows[0].outside is not None
    heads = ["system", *measures, f"oracle {measures[0]}", "Judged@10", "queries", "missing"]
    lines = [[*heads, "tied", *(["outside"] if with_first else [])]]
    for row in rows:
        quality = row.quality
        values = [*(row.means[m] for m in measures), quality.ceiling, quality.judged_at_10]
        shares = [quality.ties.system, *([] if row.outside is None else [row.outside])]
        lines.append([
            row.system,
            *(f"{value:.4f}" for value in values),
            str(row.queries),
            str(row.missing),
            *(f"{share:.1%}" for share in shares),
        ])  # fmt: skip
    return aligned(lines)


def costs(rows: Sequence[Cost]) -> str:
    """Time, memory and energy of cells; below, what they were timed on."""
    heads = ["cell", "collection", "p50 ms", "p95 ms", "pairs/s", "RSS GB", "CUDA GB", "J/query"]
    lines = [[*heads, "times the first (95 %)"]]

    def number(value: float | None, unit: float = 1) -> str:
        return "-" if value is None else f"{value / unit:.3g}"

    for row in rows:
        timing = row.timing
        lines.append([
            row.cell[:12],
            row.collection,
            f"{1000 * timing.latency.p50:.1f}",
            f"{1000 * timing.latency.p95:.1f}",
            f"{timing.pairs_per_second:.0f}",
            number(timing.peak_memory.rss, 1e9),
            number(timing.peak_memory.cuda, 1e9),
            number(timing.energy.joules_per_query),
            "-" if row.ratio is None else "{:.3g} [{:.3g}, {:.3g}]".format(*row.ratio),
        ])  # fmt: skip
    machines = dict.fromkeys(_hardware(row.timing.hardware) for row in rows)
    return "\n".join([aligned(lines), *machines])


def _hardware(hardware: Hardware) -> str:
    return ", ".join(f"{key}: {value}" for key, value in sorted(shallow(hardware).items()))
