"""One self-contained HTML page per experiment: no network, no other file, nothing computed.

Style and script are inline, figures are inline SVG. Without scripts everything can still be read:
what a click on a number shows also stands in the table of trials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import urlparse

from analysis import notes
from analysis.page_style import SCRIPT, STYLE
from analysis.spec import REFERENCES, Row
from analysis.summary import Contrast, Summary
from analysis.tables import EQUIVALENT, MARKS, MISSING, Column, Entry, Table
from rdx.text import counted

ALARM = "(!)"
SCHEMES = ("", "http", "https", "file")
CAPTIONS = {
    "differences": "Difference of each row to the baseline.",
    "lines": "Scores over the levels of the grid; 95 % intervals without what queries share.",
    "interaction": "Interactions: lines that are not parallel. Means over all else that was "
    "crossed; 95 % intervals without what queries share.",
    "grid": "Mean score of every cell of the grid.",
    "queries": "Difference to the baseline of every query, sorted; wins / ties / losses.",
    "efficiency": "Effectiveness against time per query.",
    "ranks": "Mean ranks over queries; a bar joins systems that are not told apart.",
    "power": "Probability that one uncorrected test finds a true difference.",
}


def page(
    summary: Summary,
    tables: Sequence[Table],
    figures: Mapping[str, str],
    links: Mapping[str, str],
) -> str:
    """Return the page: claim, tables, figures, trials.

    Parameters
    ----------
    summary : Summary
        For the claim, and to trace each number to its trials.
    tables : sequence of Table
        In their order; the cells of the one labelled as the spec is named are traced one by one,
        those of others by the rows that they name.
    figures : mapping of str to str
        Name -> figure as SVG text, as of `analysis.figures.svg`.
    links : mapping of str to str
        Words -> address of files beside the page, or of a tracking server.

    Raises
    ------
    ValueError
        If a link has another scheme than http, https and file.
    """
    spec = summary.spec
    body = [
        "<header>",
        f"<h1>{escape(spec.name)}</h1>",
        f'<p class="claim">{escape(spec.claim)}</p>' if spec.claim else "",
        _links(links),
        "</header>",
        "<main>",
        _alarms(summary),
        _legend(summary),
        *(_table(table, summary, i) for i, table in enumerate(tables)),
        _figures(figures),
        _trials(summary),
        "</main>",
        '<aside id="trace" hidden><button type="button" aria-label="Close">×</button>'
        '<pre aria-live="polite"></pre></aside>',
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(spec.name)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *filter(None, body),
            f"<script>{SCRIPT}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _links(links: Mapping[str, str]) -> str:
    for address in links.values():
        if urlparse(address).scheme not in SCHEMES:
            raise ValueError(f"a link must be relative, http, https or file, not {address!r}")
    items = [f'<a href="{escape(a)}">{escape(words)}</a>' for words, a in links.items()]
    return f"<nav>{' · '.join(items)}</nav>" if items else ""


def _alarms(summary: Summary) -> str:
    """Everything that a reader must see before the numbers."""
    said = [
        *notes.health_notes(summary),
        *notes.label_notes(summary),
        *notes.absent_notes(summary),
        notes.missing_note(summary),
    ]
    items = "".join(f"<li>{escape(note)}</li>" for note in said if note)
    return f'<ul class="alarms" role="note">{items}</ul>' if items else ""


def _legend(summary: Summary) -> str:
    spec = summary.spec
    parts = ["<strong>bold</strong> best", "<u>underlined</u> second"]
    parts += [
        f"<sup>{MARKS[i]}</sup> significantly different from {escape(name)}"
        for i, name in enumerate(spec.baselines)
    ]
    if spec.margin is not None:
        parts.append(f"<sup>{EQUIVALENT}</sup> equivalent within ±{spec.margin:g}")
    parts.append(f'<span class="alarm">{ALARM}</span> rests on a trial that is not healthy')
    said = " · ".join(parts)
    return f'<p class="legend">{said}. Click a heading to sort, a number to see its trials.</p>'


def _table(table: Table, summary: Summary, number: int) -> str:
    head = _head(table.columns)
    rows = []
    widths = [max(map(len, marks), default=0) for marks in _marks(table)]
    for i, line in enumerate(table.rows):
        cells = [
            _cell(entry, column, k, _trace(table, summary, i, line, column), widths[k])
            for k, (entry, column) in enumerate(zip(line, table.columns, strict=True))
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    said = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    caption = table.caption
    if number == 0 and caption == summary.spec.claim:
        caption = "Scores"  # the claim stands at the top of the page
    return "\n".join(
        [
            f'<section aria-labelledby="t{number}">',
            f'<h2 id="t{number}">{escape(caption)}</h2>',
            f'<div class="box" tabindex="0" role="region" aria-labelledby="t{number}"><table>',
            head,
            "<tbody>",
            *rows,
            "</tbody>",
            "</table></div>",
            f"<details open><summary>Notes</summary><ul>{said}</ul></details>" if said else "",
            "</section>",
        ]
    )


def _head(columns: Sequence[Column]) -> str:
    names = "".join(
        f'<th scope="col" class="{_kind(column)}" aria-sort="none">'
        f'<button type="button" class="sort">{escape(column.name)}</button></th>'
        for column in columns
    )
    groups, start = [], 0
    while start < len(columns):
        end = start + 1
        while end < len(columns) and columns[end].group == columns[start].group:
            end += 1
        name = columns[start].group
        tag = '<th scope="colgroup" class="group"' if name else "<td"
        close = "th" if name else "td"
        groups.append(f'{tag} colspan="{end - start}">{escape(name)}</{close}>')
        start = end
    above = f"<tr>{''.join(groups)}</tr>" if any(column.group for column in columns) else ""
    return f'<thead>{above}<tr class="names">{names}</tr></thead>'


def _kind(column: Column) -> str:
    return "num" if column.numeric else "word"


def _marks(table: Table) -> list[list[str]]:
    """Marks of every column, so that numbers without any keep their place."""
    return [[row[k].suffix for row in table.rows] for k in range(len(table.columns))]


def _cell(entry: Entry, column: Column, place: int, trace: str, width: int) -> str:
    text = escape(entry.text)
    if entry.text.endswith(ALARM):
        text = f'{escape(entry.text[: -len(ALARM)])}<span class="alarm">{ALARM}</span>'
    text = f"<strong>{text}</strong>" if entry.best else f"<u>{text}</u>" if entry.second else text
    if width:
        text += f'<sup style="min-width:{width}ch">{escape(entry.suffix)}</sup>'
    if trace and entry.text != MISSING:
        text = f'<button type="button" class="trace" title="{escape(trace)}">{text}</button>'
    value = sort_value(entry.text) if column.numeric else None
    key = "" if value is None else f' data-v="{value}"'
    if place == 0:
        return f'<th scope="row" class="{_kind(column)}"{key}>{text}</th>'
    return f'<td class="{_kind(column)}"{key}>{text}</td>'


def sort_value(text: str) -> float | None:
    """Number that a cell begins with, to sort by; None if it does not begin with one."""
    plain = text.replace("−", "-").lstrip("[<≤ ")
    found = re.match(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", plain)
    return float(found.group()) if found else None


def _trace(
    table: Table, summary: Summary, line: int, entries: Sequence[Entry], column: Column
) -> str:
    """What a number rests on, a line each; "" for a column of words."""
    if not column.numeric:
        return ""
    rows = summary.spec.rows
    if table.label == summary.spec.name and len(table.rows) == len(rows):
        row = rows[line]
        own = _score_lines(summary, row, column.group, column.name)
        return "\n".join([row.name, *own, *_trial_lines(summary, row)])
    said = " ".join(entry.text for entry in entries if sort_value(entry.text) is None)
    # A name that is part of a longer one that is there too is not meant itself.
    named = [row for row in rows if row.name in said]
    named = [r for r in named if not any(r.name != o.name and r.name in o.name for o in named)]
    return "\n".join(text for row in named for text in (row.name, *_trial_lines(summary, row)))


def _score_lines(summary: Summary, row: Row, collection: str, measure: str) -> list[str]:
    key = (row.name, collection, measure)
    scores = summary.scores.get(key)
    if scores is None:
        return []
    lines = [f"{collection}, {measure}: {scores.mean!r}, {counted(len(scores.queries), 'query')}"]
    if scores.seeds:
        each = zip(scores.seeds, scores.seed_means.tolist(), strict=True)
        lines.append("by seed: " + ", ".join(f"{seed}: {mean:.4f}" for seed, mean in each))
    lines += [
        _contrast_line(contrast)
        for contrast in summary.against
        if (contrast.treatment, contrast.collection, contrast.measure) == key
    ]
    return lines


def _contrast_line(contrast: Contrast) -> str:
    found = contrast.comparison
    line = (
        f"minus {contrast.baseline}: {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}],"
        f" p {found.p:.2g}, corrected {contrast.p_corrected:.2g} (of {contrast.family})"
    )
    if contrast.p_equivalence == contrast.p_equivalence:
        line += f", equivalence p {contrast.p_equivalence:.2g}"
    return line


def _trial_lines(summary: Summary, row: Row) -> list[str]:
    return [
        f"trial {signature}: seed {seed}, health {health}, MLflow run {run}"
        for signature, seed, health, run in _trials_of(summary, row)
    ]


def _trials_of(summary: Summary, row: Row) -> list[tuple[str, str, str, str]]:
    """Signature, seed, health and MLflow run of each trial of a row."""
    found = []
    for signature in summary.signatures[row.name]:
        facts = summary.trials.facts[signature]
        trained = row.system not in REFERENCES and not row.imported
        seed = str(facts.seed) if trained else MISSING
        health = facts.health if trained else MISSING
        found.append((signature, seed, health, summary.trials.runs.get(signature, MISSING)))
    return found


def _figures(figures: Mapping[str, str]) -> str:
    if not figures:
        return ""
    shown = []
    for name, svg in figures.items():
        caption = CAPTIONS.get(name) or CAPTIONS.get(name.split("-")[0], "")
        place = name.partition("-")[2]
        words = caption + (f" {place}" if place else "")
        shown.append(
            f"<figure>{inline(svg, words or name)}<figcaption>{escape(words)}</figcaption></figure>"
        )
    return "\n".join(['<section><h2>Figures</h2><div class="figures">', *shown, "</div></section>"])


def inline(svg: str, label: str) -> str:
    """Make an SVG document an element of a page: no prolog, no metadata, no addresses."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).rstrip()


def _trials(summary: Summary) -> str:
    """Return the table of all trials, so that print and a page without scripts have them too."""
    lines = []
    for row in summary.spec.rows:
        if row.system in ("first_stage", "oracle"):
            continue  # the same in every trial: each is listed with the row that it trained
        for signature, seed, health, run in _trials_of(summary, row):
            sick = ' class="alarm"' if health not in ("ok", MISSING) else ""
            cells = _tags((row.name,), '<th scope="row" class="word">{}</th>')
            cells += (
                f'<td class="num">{escape(seed)}</td><td><span{sick}>{escape(health)}</span></td>'
            )
            cells += _tags((signature, run), "<td><code>{}</code></td>")
            lines.append(f"<tr>{cells}</tr>")
    heads = _head([Column(name, numeric=name == "Seed") for name in TRIALS])
    return "\n".join(
        [
            '<section aria-labelledby="trials"><h2 id="trials">Trials</h2>',
            '<div class="box" tabindex="0" role="region" aria-labelledby="trials"><table>',
            heads,
            "<tbody>",
            *lines,
            "</tbody></table></div></section>",
        ]
    )


TRIALS = ("System", "Seed", "Health", "Signature", "MLflow run")


def _tags(texts: Iterable[str], tag: str) -> str:
    return "".join(tag.format(escape(text)) for text in texts)
