"""Render a table of finished cells as Markdown, LaTeX or plain text. No arithmetic on results.

The model is small on purpose: whoever builds a `Table` has already decided what each cell says;
here it only gets its markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

MISSING = "–"
SIGNIFICANT = "†"
MARKS = "†‡§¶‖"  # of the first, second, ... baseline
EQUIVALENT = "≈"


@dataclass(frozen=True)
class Entry:
    """One cell: its text, and how it is set.

    Attributes
    ----------
    text : str
        What it says, plain (no markup, no escapes).
    best, second : bool
        Bold, underlined.
    significant : bool
        Followed by a dagger.
    marks : str
        What follows after that, such as marks of further baselines.
    """

    text: str
    best: bool = False
    second: bool = False
    significant: bool = False
    marks: str = ""

    @property
    def suffix(self) -> str:
        """All marks that follow the text."""
        return (SIGNIFICANT if self.significant else "") + self.marks


@dataclass(frozen=True)
class Column:
    """Head of one column; neighbouring columns of one `group` share a line above theirs.

    Attributes
    ----------
    name, group : str
        The two lines of the head.
    numeric : bool
        Right-aligned if true.
    """

    name: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    r"""A table ready to be set.

    Attributes
    ----------
    label : str
        Short name, for LaTeX's ``\label``.
    caption : str
        One sentence.
    columns : tuple of Column
        Heads.
    rows : tuple of tuple of Entry
        As wide as `columns`.
    notes : tuple of str
        What stands below it.
    """

    label: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject rows of another width than the head."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells under {len(self.columns)} heads: {row}")


def score(value: float | None, digits: int = 3) -> Entry:
    """Entry of a score with a fixed number of decimals; None is a missing cell."""
    return Entry(MISSING if value is None else f"{value:.{digits}f}")


def mark_best(entries: Sequence[Entry], competes: Sequence[bool]) -> tuple[Entry, ...]:
    """Mark best and second of one column, as printed: higher is better.

    Compared is what the reader sees, so values that print alike share the mark, and "second" is
    the next lower printed value, however many share the first. Missing cells and rows that do not
    compete are never marked. With no second distinct value nothing is second.
    """
    printed = [
        float(entry.text) if compete and entry.text != MISSING else None
        for entry, compete in zip(entries, competes, strict=True)
    ]
    places = sorted({value for value in printed if value is not None}, reverse=True)
    return tuple(
        replace(
            entry,
            best=value is not None and value == places[0],
            second=value is not None and places[1:2] == [value],
        )
        for entry, value in zip(entries, printed, strict=True)
    )


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: best bold, second underlined, dagger = significant."""
    lines = _grid(table, _markdown_entry, _markdown_escape)
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    rule = [
        "-" * (width - 1) + ":" if column.numeric else "-" * width
        for width, column in zip(widths, table.columns, strict=True)
    ]
    body = [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]
    notes = [f"- {_markdown_escape(note)}" for note in table.notes]
    parts = [_markdown_escape(table.caption), "\n".join(body), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(table: Table) -> str:
    """Plain text for a terminal: best between ``**``, second between ``_``."""
    lines = _grid(table, _text_entry, str)
    rule = ["-" * len(cell) for cell in lines[0]]
    return "\n".join("  ".join(line).rstrip() for line in (lines[0], rule, *lines[1:])) + "\n"


# A page of a float holds about so many lines; a longer table goes on in further floats, and notes
# that do not fit below it follow as text, which may break over pages.
PAGE_LINES = 42
MOST_ROWS = 36
CHARACTERS = 85  # of a line of notes


def latex(table: Table) -> str:
    r"""LaTeX ``table`` with booktabs rules, for ``\input``.

    Needs ``\usepackage{booktabs,graphicx}``; a table wider than the line is shrunk to fit, one
    longer than a page goes on in another.
    """
    starts = range(0, max(1, len(table.rows)), MOST_ROWS)
    pieces = [table.rows[start : start + MOST_ROWS] for start in starts]
    words = sum(1 + len(note) // CHARACTERS for note in (*table.notes, table.caption))
    notes = [rf"{latex_escape(note)}\par" for note in table.notes]
    below = len(pieces[-1]) + words <= PAGE_LINES
    floats = [
        line
        for i, rows in enumerate(pieces)
        for line in _latex_float(table, rows, i, notes if below and i == len(pieces) - 1 else [])
    ]
    apart = [r"{\raggedright\footnotesize", *notes, "}"] if notes and not below else []
    return "\n".join([*floats, *apart, ""])


def _latex_float(
    table: Table, rows: Sequence[Sequence[Entry]], number: int, notes: Sequence[str]
) -> list[str]:
    """Some rows of a table; `number` counts its floats from 0."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    caption = latex_escape(table.caption if not number else f"{table.caption[:60]}… (continued)")
    label = re.sub(r"[^A-Za-z0-9:-]", "-", table.label) + (f"-{number + 1}" if number else "")
    return [
        r"\begin{table}[tp]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        r"\par\smallskip\small",
        r"\sbox0{%",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        *_latex_head(table.columns),
        r"\midrule",
        *(" & ".join(_latex_entry(entry) for entry in row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        *([r"\par\smallskip", r"\raggedright\footnotesize", *notes] if notes else []),
        r"\end{table}",
    ]


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "α": r"$\alpha$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "§": r"$^{\S}$",
    "¶": r"$^{\P}$",
    "‖": r"$^{\|}$",
    "≈": r"$\approx$",
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
    "√": r"$\surd$",
    "τ": r"$\tau$",
    "ω": r"$\omega$",
    **{character: "\\" + character for character in "&%$#_"},
}


def latex_escape(plain: str) -> str:
    """Escape what LaTeX would take for a command; other characters of UTF-8 pass."""
    return "".join(_LATEX.get(character, character) for character in plain)


def _grid(
    table: Table, entry: Callable[[Entry], str], escape: Callable[[str], str]
) -> list[list[str]]:
    """Head and rows as padded strings."""
    head = [escape(f"{column.group} {column.name}".strip()) for column in table.columns]
    lines = [head, *([entry(cell) for cell in row] for row in table.rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    return [
        [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ]
        for line in lines
    ]


def _markdown_escape(plain: str) -> str:
    # "<" opens a tag only before a letter, "/", "!" or "?"; "< 0.001" stays as it is.
    return re.sub(r"([\\|*`]|<(?=[A-Za-z/!?]))", r"\\\1", " ".join(plain.split()))


def _markdown_entry(entry: Entry) -> str:
    cell = _markdown_escape(entry.text)
    cell = f"**{cell}**" if entry.best else f"<u>{cell}</u>" if entry.second else cell
    return cell + entry.suffix


def _text_entry(entry: Entry) -> str:
    mark = "**" if entry.best else "_" if entry.second else ""
    return f"{mark}{entry.text}{mark}{entry.suffix}"


def _latex_entry(entry: Entry) -> str:
    cell = latex_escape(entry.text)
    cell = rf"\textbf{{{cell}}}" if entry.best else cell
    cell = rf"\underline{{{cell}}}" if entry.second else cell
    return cell + latex_escape(entry.suffix)


def _latex_head(columns: Sequence[Column]) -> list[str]:
    names = " & ".join(latex_escape(column.name) for column in columns) + r" \\"
    if not any(column.group for column in columns):
        return [names]
    cells, rules, start = [], [], 0
    while start < len(columns):
        end = start + 1
        while end < len(columns) and columns[end].group == columns[start].group:
            end += 1
        group = columns[start].group
        span = rf"\multicolumn{{{end - start}}}{{c}}{{{latex_escape(group)}}}"
        cells += [span] if group else [""] * (end - start)
        rules += [rf"\cmidrule(lr){{{start + 1}-{end}}}"] if group else []
        start = end
    return [" & ".join(cells) + r" \\", "".join(rules), names]
