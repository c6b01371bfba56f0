"""What a grid scored, as text: a line per setting, the mean of its seeds. No test is made here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rdx.facts import OK
from rdx.text import aligned, counted
from rdx.tracking.notes import score

if TYPE_CHECKING:
    from rdx.config import Cell
    from rdx.tracking import Row

MOST = 30  # settings that are shown


def table(cells: Sequence[Cell], rows: Sequence[Row], measure: str) -> str:
    """The settings of a grid in their order, with the mean score of each over its seeds.

    Parameters
    ----------
    cells, rows
        The cells of a grid, and what is recorded of each.
    measure
        What they are scored by: the student's mean over collections.

    Returns
    -------
    str
        "" if no cell has a score.
    """
    common = set(cells[0].overrides).intersection(*(cell.overrides for cell in cells))
    settings: dict[str, list[tuple[Row, float | None]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        told = [o for o in cell.overrides if o not in common and not o.startswith("seed=")]
        settings.setdefault(" ".join(told) or "all cells", []).append(
            (row, score(row.means, measure))
        )
    if all(value is None for own in settings.values() for _, value in own):
        return ""
    lines = [["setting", "seeds", measure, "of seeds", "not ok"]]
    for name, own in list(settings.items())[:MOST]:
        values = [value for _, value in own if value is not None]
        ends = sorted({f"{value:.3f}" for value in (min(values), max(values))}) if values else []
        wrong = dict.fromkeys(
            str(row.health if row.state == "finished" else row.state)
            for row, _ in own
            if row.state != "finished" or row.health != OK
        )
        mean = f"{sum(values) / len(values):.3f}" if values else "-"
        lines.append([name, str(len(values)), mean, " to ".join(ends) or "-", ", ".join(wrong)])
    if not any(line[-1] for line in lines[1:]):
        lines = [line[:-1] for line in lines]
    more = len(settings) - MOST
    shown = aligned(lines)
    return f"{shown}\nand {counted(more, 'setting')} more" if more > 0 else shown
