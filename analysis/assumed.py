"""The spec of a grid that has none: rows from the factors that vary, and what else is assumed."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.spec import Spec, parse
from rdx.config import Cell, varied


def assumed(name: str, cells: Sequence[Cell]) -> Spec:
    """A spec for cells whose grid declares none; its claim says what was assumed.

    A row for every combination of the factors that vary, the seed apart; the first measure of the
    evaluation; every row tested against the first.
    """
    axes = {key: levels for key, levels in varied(cells).items() if key != "seed"}
    measure = str(cells[0].cfg["evaluation"]["measures"][0])
    node = {
        "name": name,
        "measures": [measure],
        "rows": {"by": list(axes)},
        "factors": [key for key in _apart(axes) if all(cell.has(key) for cell in cells)],
    }
    rows = parse(node, cells).rows
    first = rows[0].name
    by = f"a row for every combination of {', '.join(axes)}" if axes else "one row, seeds averaged"
    tests = (
        f"; every row against the first, {first!r}, by paired t-tests with Holm's correction in "
        "each collection"
        if len(rows) > 1
        else ""
    )
    claim = (
        f"Assumed, since no spec declares this table: {by}; {measure}, the first of "
        f"evaluation.measures{tests}. What is chosen after the results are seen claims nothing: "
        "declare it in an experiments/NAME.yaml before the next run (docs/statistics.md)."
    )
    return parse(
        {**node, "claim": claim, "baseline": first if len(rows) > 1 else None},
        cells,
    )


def _apart(axes: dict[str, tuple[str, ...]]) -> list[str]:
    """Of keys that always move together the first: their effects cannot be told apart."""
    seen: dict[tuple[int, ...], str] = {}
    for key, levels in axes.items():
        order = {level: i for i, level in enumerate(dict.fromkeys(levels))}
        seen.setdefault(tuple(order[level] for level in levels), key)
    return list(seen.values())
