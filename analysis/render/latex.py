r"""Tables as LaTeX ``table`` floats with booktabs rules, for ``\input``.

They need ``\usepackage{booktabs,graphicx}``. A table wider than the line is shrunk to fit, one
longer than a page goes on in another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.render.entry import APART, Entry, Flag, Table

# A page of a float holds about so many lines; a longer table goes on in further floats, and notes
# that do not fit below it follow as text, which may break over pages.
PAGE_LINES = 42
MOST_ROWS = 36
CHARACTERS = 85  # of a line of notes
SIGNS = str.maketrans(
    {
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
)


def render(table: Table) -> str:
    """All floats of a table, and its notes."""
    starts = range(0, max(1, len(table.rows)), MOST_ROWS)
    pieces = [table.rows[start : start + MOST_ROWS] for start in starts]
    lines = sum(1 + len(note) // CHARACTERS for note in (*table.notes, table.caption))
    notes = [rf"{escape(note)}\par" for note in table.notes]
    below = len(pieces[-1]) + lines <= PAGE_LINES
    floats = [
        line
        for i, rows in enumerate(pieces)
        for line in _float(table, rows, i, notes if below and i == len(pieces) - 1 else [])
    ]
    apart = [r"{\raggedright\footnotesize", *notes, "}"] if notes and not below else []
    return "\n".join([*floats, *apart, ""])


def escape(plain: str) -> str:
    """Escape what LaTeX would take for a command; other characters of UTF-8 pass."""
    return plain.translate(SIGNS)


def _float(
    table: Table, rows: Sequence[Sequence[Entry]], number: int, notes: Sequence[str]
) -> list[str]:
    """Some rows of a table; `number` counts its floats from 0."""
    lines = [" & ".join(map(_entry, row)) + r" \\" for row in rows]
    split = table.together - number * MOST_ROWS
    if table.apart and 0 <= split < len(lines):
        lines.insert(split, rf"\midrule \multicolumn{{{len(table.columns)}}}{{l}}{{{APART}}} \\")
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    caption = escape(table.caption if not number else f"{table.caption[:60]}… (continued)")
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
        *_head(table),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        *([r"\par\smallskip", r"\raggedright\footnotesize", *notes] if notes else []),
        r"\end{table}",
    ]


def _head(table: Table) -> list[str]:
    names = " & ".join(escape(column.name) for column in table.columns) + r" \\"
    cells: list[str] = []
    rules: list[str] = []
    start = 1
    for group, width in table.spans():
        if group:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        else:
            cells += [""] * width
        start += width
    return [" & ".join(cells) + r" \\", "".join(rules), names] if cells else [names]


def _entry(entry: Entry) -> str:
    cell = escape(entry.text + entry.alarm)
    if Flag.BEST in entry.flags:
        cell = rf"\textbf{{{cell}}}"
    elif Flag.SECOND in entry.flags:
        cell = rf"\underline{{{cell}}}"
    return cell + escape(entry.suffix)
