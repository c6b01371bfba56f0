"""What a reader of a grid's table should know before it is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rdx.config import Cell, varied
from rdx.job import Parts
from rdx.parts import Length

ALL = 1000  # queries that stand for all of a collection, whose number is not known before
MOVED = 0.1  # share by which an axis may move steps and pairs


def cautions(cells: Sequence[Cell]) -> list[str]:
    """A line for everything that makes a grid say something else than it seems to."""
    return [*confounded(cells), *drawn(cells)]


def drawn(cells: Sequence[Cell]) -> list[str]:
    """One line if a teacher mixes its scores with those of passages that were drawn at random."""
    mixed: dict[tuple[str, float], None] = {}
    for cell in cells:
        parts = Parts(cell.cfg)
        weight = getattr(parts.teacher, "interpolation", 0.0)
        if weight and not getattr(parts.sampler, "scores", True):
            mixed[cell.level("sampler"), weight] = None
    return [
        f"sampler={sampler} draws, and its scores are the order of drawing, yet "
        f"teacher.interpolation={weight} mixes them into the teacher's order; with "
        "teacher.interpolation=0 that is the LLM's alone"
        for sampler, weight in mixed
    ]


def length(parts: Parts) -> Length | None:
    """How long a cell's distillation is, from its configuration; None without one.

    Every query is taken to have a list, of `depth.k` passages. Where `depth.queries` is null, all
    queries of the collection, the length is that of 1,000 of them.
    """
    if parts.loss is None:
        return None
    depth = parts.depth
    return parts.budget.length(depth.queries or ALL, depth.k, parts.trainer.batch)


def confounded(cells: Sequence[Cell]) -> list[str]:
    """One line for each axis of a grid that also moves how long is trained, by more than 10 %.

    An axis is a key of the command lines whose value differs between cells; keys that only move
    together are one. Compared are cells that agree in all other axes. The budget itself is none.
    """
    sized = [(cell, size) for cell in cells if (size := length(Parts(cell.cfg))) is not None]
    if not sized:
        return []
    axes = _axes([cell for cell, _ in sized])
    lines = []
    for i, (axis, values) in enumerate(axes):
        others = [column for j, (_, column) in enumerate(axes) if j != i]
        groups: dict[tuple[str, ...], list[Length]] = {}
        for at, (_, size) in enumerate(sized):
            groups.setdefault(tuple(column[at] for column in others), []).append(size)
        moved = {what: _widest(groups.values(), what) for what in ("steps", "pairs")}
        wide = {what: ends for what, ends in moved.items() if ends[1] > (1 + MOVED) * ends[0]}
        if not wide or all(key.split(".")[0] == "budget" for key in axis.split(" + ")):
            continue
        moves = " and ".join(f"{what} ({a:,} to {b:,})" for what, (a, b) in wide.items())
        cure, other = ("pairs", "steps") if "pairs" in wide else ("steps", "pairs")
        lines.append(
            f"{axis} ({', '.join(dict.fromkeys(values))}) also moves the {moves}: its effect "
            f"cannot be told from that of training for longer. budget={cure} budget.{cure}=... "
            f"holds the {cure} equal{'' if other in wide else f', not the {other}'}"
        )
    return lines


def _axes(cells: Sequence[Cell]) -> list[tuple[str, tuple[str, ...]]]:
    """The axes of a grid, with the level of every cell; keys that move together are one."""
    together: dict[tuple[int, ...], tuple[list[str], tuple[str, ...]]] = {}
    for key, levels in varied(cells).items():
        order = {level: i for i, level in enumerate(dict.fromkeys(levels))}
        names, _ = together.setdefault(tuple(order[level] for level in levels), ([], levels))
        names.append(key)
    return [(" + ".join(names), levels) for names, levels in together.values()]


def _widest(groups: Iterable[list[Length]], what: str) -> tuple[int, int]:
    """The least and the most of the group in which they are furthest apart."""
    ends = [(min(v), max(v)) for v in ([getattr(size, what) for size in g] for g in groups)]
    return max(ends, key=lambda pair: pair[1] / max(pair[0], 1))
