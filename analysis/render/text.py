"""Tables as plain text for a terminal: best between ``**``, second between ``_``."""

from __future__ import annotations

from collections.abc import Callable

from analysis.render.entry import APART, Entry, Flag, Table


def render(table: Table) -> str:
    """Head and rows; caption and notes are left to the caller."""
    head, *rows = padded(table, _entry, str)
    rule = ["-" * len(cell) for cell in head]
    lines = ["  ".join(line).rstrip() for line in (head, rule, *rows)]
    if table.apart:
        lines.insert(2 + table.together, APART)
    return "\n".join(lines) + "\n"


def padded(
    table: Table, entry: Callable[[Entry], str], escape: Callable[[str], str]
) -> list[list[str]]:
    """Head and rows as strings, those of a column equally long: 3 characters at least."""
    head = [escape(f"{column.group} {column.name}".strip()) for column in table.columns]
    lines = [head, *(list(map(entry, row)) for row in table.rows)]
    widths = [max(3, *map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ]
        for line in lines
    ]


def _entry(entry: Entry) -> str:
    mark = "**" if Flag.BEST in entry.flags else "_" if Flag.SECOND in entry.flags else ""
    return f"{mark}{entry.text}{entry.alarm}{mark}{entry.suffix}"
