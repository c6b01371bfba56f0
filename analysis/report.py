"""Numbers -> cells and marks: the tables of a summary and the files of a result folder.

Nothing is computed here; `summary` did that.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis import claims, drawn, notes, records, sections, tables
from analysis.summary import Contrast, Scores, Summary
from analysis.tables import MISSING, Column, Entry, Table

ALARM = " (!)"


def main_table(summary: Summary) -> Table:
    """Rows of the spec x (collection, measure); the columns at the right say on what they rest."""
    spec = summary.spec
    places = summary.places
    columns = [Column("System", numeric=False)]
    cells: list[Sequence[Entry]] = []
    for place in places:
        columns.append(Column(place[1], place[0]))
        scores = [_score(summary, row.name, *place) for row in spec.rows]
        cells.append(tables.mark_best(scores, [row.competes for row in spec.rows]))
        if place in summary.pairs:
            columns.append(Column("all pairs", place[0], numeric=False))
            cells.append(_letters(summary, place))
    for mean in spec.means:
        for measure in spec.measures:
            columns.append(Column(measure, mean.name))
            values = [summary.found(row.name, mean.name, measure) for row in spec.rows]
            entries = [tables.score(None if value is None else value.mean) for value in values]
            cells.append(tables.mark_best(entries, [row.competes for row in spec.rows]))
    columns += [Column("Queries"), Column("Seeds")]
    rows = tuple(
        (
            Entry(row.name + (ALARM if notes.unhealthy(summary, row) else "")),
            *(column[i] for column in cells),
            Entry(_query_counts(summary, row.name)),
            Entry(_seed_count(summary, row.name)),
        )
        for i, row in enumerate(spec.rows)
    )
    return Table(
        label=spec.name,
        caption=spec.claim or spec.name,
        columns=tuple(columns),
        rows=rows,
        notes=notes.footer(summary),
    )


def comparison_table(summary: Summary) -> Table | None:
    """Lay out the spec's `comparisons`, a line per pair, collection and measure; None if none.

    A pair that no collection has both rows of is left to the footer of the main table.
    """
    spec = summary.spec
    not_run = notes.comparisons_not_run(summary)
    pairs = [pair for pair in spec.comparisons if pair not in not_run]
    if not pairs:
        return None
    found = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    one = len(summary.collections) <= 1
    rows = tuple(
        (
            Entry(f"{treatment} − {baseline}"),
            Entry(measure if one else f"{collection} {measure}"),
            *_comparison_entries(found.get((treatment, baseline, collection, measure))),
        )
        for treatment, baseline in pairs
        for collection, measure in summary.places
    )
    family = max((contrast.family for contrast in summary.comparisons), default=0)
    corrected = claims.CORRECTIONS[spec.correction]
    heads = ("Difference", "95 % CI", f"p ({corrected})", "Queries", "Seeds")
    over = "of this spec" if spec.family == "grid" else "of this table"
    return Table(
        label=f"{spec.name}-comparisons",
        caption="Declared comparisons, first minus second"
        + (f": {summary.collections[0]}." if summary.collections and one else "."),
        columns=(
            Column("Comparison", numeric=False),
            Column("Measure", numeric=False),
            *(Column(head) for head in heads),
        ),
        rows=rows,
        notes=(
            f"† = significant: {claims.TESTS[spec.test]}, {corrected} over all {family} tests "
            f"{over}, α = {spec.alpha:g}. {claims.interval_note(summary)}",
        ),
    )


def shown(summary: Summary) -> list[Table]:
    """Every table of a summary, the main one first."""
    own = [table for table in (main_table(summary), comparison_table(summary)) if table]
    return [*own, *sections.tables(summary)]


def write(summary: Summary, folder: Path) -> tuple[Path, ...]:
    """Write tables and figures; the same in, the same out.

    Returns
    -------
    tuple of Path
        table.md, table.tex, table.csv, report.html, and the figures that there is something to
        draw in, each as PDF, SVG and PNG; older ones are removed. Page and figures are left as
        they are if they were drawn from the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = shown(summary)
    title = f"# {summary.spec.name}\n\n"
    paths = [folder / name for name in ("table.md", "table.tex", "table.csv")]
    paths[0].write_text(title + "\n".join(map(tables.markdown, found)), encoding="utf-8")
    paths[1].write_text(
        "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(map(tables.latex, found)),
        encoding="utf-8",
    )
    with paths[2].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, records.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records.csv_rows(summary))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    key = drawn.key(summary, texts)
    stamp = drawn.read(folder)
    if stamp.key != key or not stamp.whole(folder):
        stamp = _draw(summary, found, folder, paths, stamp)
        drawn.write(folder, stamp := replace(stamp, key=key))
    return (*paths, *(folder / name for name in stamp.files))


def _draw(
    summary: Summary,
    found: Sequence[Table],
    folder: Path,
    beside: Sequence[Path],
    before: drawn.Stamp,
) -> drawn.Stamp:
    from analysis import figures, html  # matplotlib: half a second, and often nothing is to draw

    shown = figures.sketches(summary)
    saved = figures.save(shown, folder, before.figures)
    page = folder / "report.html"
    vectors = {
        name: next(path for path in files if path.suffix == ".svg").read_text(encoding="utf-8")
        for name, files in saved.items()
    }
    links = {path.name: path.name for path in beside}
    page.write_text(html.page(summary, found, vectors, links), encoding="utf-8")
    names = [path.name for files in saved.values() for path in files]
    return drawn.Stamp("", (page.name, *names), {name: one.key for name, one in shown.items()})


def terminal(summary: Summary) -> str:
    """Every table and what is missing, for people at a terminal."""
    parts = [_wrap(f"{summary.spec.name}: {summary.spec.claim}"), tables.text(main_table(summary))]
    marks = "** = best, _ = second of the competing rows."
    parts.append(_lines(marks, *claims.test_notes(summary), *notes.subset_notes(summary)))
    for table in shown(summary)[1:]:
        parts += [_wrap(table.caption), tables.text(table)]
    parts.append(
        _lines(
            *notes.health_notes(summary),
            *notes.label_notes(summary),
            *notes.absent_notes(summary),
            notes.missing_note(summary),
            notes.impossible_note(summary),
        )
    )
    return "\n\n".join(part.rstrip() for part in parts if part)


def _lines(*sentences: str) -> str:
    return "\n".join(_wrap(sentence) for sentence in sentences if sentence)


def _wrap(sentence: str) -> str:
    return textwrap.fill(sentence, 100, subsequent_indent="  ", break_on_hyphens=False)


def _score(summary: Summary, row: str, collection: str, measure: str) -> Entry:
    scores = summary.scores.get((row, collection, measure))
    entry = tables.score(None if scores is None else scores.mean)
    baselines = summary.spec.baselines
    here = [
        c for c in summary.against
        if (c.treatment, c.collection, c.measure) == (row, collection, measure)
    ]  # fmt: skip
    different = "".join(tables.MARKS[baselines.index(c.baseline)] for c in here if c.significant)
    same = "".join(
        tables.EQUIVALENT
        + (tables.MARKS[baselines.index(c.baseline)] if len(baselines) > 1 else "")
        for c in here
        if c.equivalent
    )
    first = different.startswith(tables.SIGNIFICANT)
    return Entry(entry.text, significant=first, marks=different[first:] + same)


def _letters(summary: Summary, place: tuple[str, str]) -> list[Entry]:
    pairs = summary.pairs[place]
    letters = dict(zip(pairs.rows, pairs.letters, strict=True))
    return [Entry(letters.get(row.name, MISSING)) for row in summary.spec.rows]


def _query_counts(summary: Summary, row: str) -> str:
    return _per_collection(summary, row, lambda scores: len(scores.queries)) or MISSING


def _seed_count(summary: Summary, row: str) -> str:
    counts = _per_collection(summary, row, lambda scores: len(scores.seeds))
    return "1 seed" if counts == "1" else MISSING if counts in ("", "0") else counts


def _per_collection(summary: Summary, row: str, count: Callable[[Scores], int]) -> str:
    """One number if it is the same everywhere, else one per collection."""
    counts = {
        collection: str(count(summary.scores[row, collection, measure]))
        for collection, measure in summary.places
        if (row, collection, measure) in summary.scores
    }
    return " / ".join(counts.values() if len(set(counts.values())) > 1 else set(counts.values()))


def _comparison_entries(contrast: Contrast | None) -> tuple[Entry, ...]:
    if contrast is None:
        return (Entry(MISSING),) * 5
    result = contrast.comparison
    seeds = " vs ".join(str(len(seeds)) if seeds else MISSING for seeds in contrast.seeds)
    return (
        Entry(_signed(result.difference), significant=contrast.significant),
        Entry(f"[{_signed(result.low)}, {_signed(result.high)}]"),
        Entry(_p(contrast.p_corrected)),
        Entry(str(result.n)),
        Entry(seeds + (" (1 seed)" if contrast.single_seed else "")),
    )


def _signed(value: float) -> str:
    return MISSING if value != value else f"{value:+.3f}".replace("-", "−")


def _p(value: float) -> str:
    if value != value:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
