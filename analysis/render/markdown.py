"""Tables as GitHub-flavoured Markdown: best bold, second underlined, dagger = significant."""

from __future__ import annotations

import re

from analysis.render.entry import APART, Entry, Flag, Table
from analysis.render.text import padded


def render(table: Table) -> str:
    """Caption, table and notes."""
    head, *rows = padded(table, _entry, escape)
    rule = [
        "-" * (len(cell) - 1) + ":" if column.numeric else "-" * len(cell)
        for cell, column in zip(head, table.columns, strict=True)
    ]
    body = [f"| {' | '.join(line)} |" for line in (head, rule, *rows)]
    if table.apart:
        body.insert(2 + table.together, f"| *{APART}* |{' |' * (len(head) - 1)}")
    parts = [escape(table.caption), "\n".join(body), notes(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def notes(table: Table) -> str:
    """What stands below the table, as a list."""
    return "\n".join(f"- {escape(note)}" for note in table.notes)


def escape(plain: str) -> str:
    """Escape what Markdown would take for markup, and put it on one line."""
    # "<" opens a tag only before a letter, "/", "!" or "?"; "< 0.001" stays as it is.
    return re.sub(r"([\\|*`]|<(?=[A-Za-z/!?]))", r"\\\1", " ".join(plain.split()))


def _entry(entry: Entry) -> str:
    cell = escape(entry.text + entry.alarm)
    if Flag.BEST in entry.flags:
        cell = f"**{cell}**"
    elif Flag.SECOND in entry.flags:
        cell = f"<u>{cell}</u>"
    return cell + entry.suffix
