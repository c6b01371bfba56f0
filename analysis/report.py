"""Numbers -> cells, marks and points: the tables of a summary and the files of a result folder.

Nothing is computed here; `summary` did that.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis import figures, notes, tables
from analysis.spec import REFERENCES
from analysis.summary import Contrast, Scores, Summary
from analysis.tables import MISSING, Column, Entry, Table

CSV_COLUMNS = (
    "table",
    "row",
    "system",
    "collection",
    "measure",
    "queries",
    "seeds",
    "mean",
    "baseline",
    "baseline_mean",
    "n",
    "difference",
    "low",
    "high",
    "d_z",
    "p",
    "p_holm",
    "family",
    "significant",
    "signatures",
)
ALARM = " (!)"


def main_table(summary: Summary) -> Table:
    """Rows of the spec x (collection, measure); the columns at the right say on what they rest."""
    spec = summary.spec
    places = summary.places
    columns = [Column("System", numeric=False)]
    columns += [Column(measure, collection) for collection, measure in places]
    columns += [Column("Queries"), Column("Seeds")]
    marked = [
        tables.mark_best(
            [_score(summary, row.name, *place) for row in spec.rows],
            [row.competes for row in spec.rows],
        )
        for place in places
    ]
    rows = tuple(
        (
            Entry(row.name + (ALARM if notes.unhealthy(summary, row) else "")),
            *(column[i] for column in marked),
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
    """Lay out the spec's `comparisons`, a line per pair, collection and measure; None if none."""
    spec = summary.spec
    if not spec.comparisons:
        return None
    found = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    one = len(summary.collections) <= 1
    rows = tuple(
        (
            Entry(f"{treatment} − {baseline}"),
            Entry(measure if one else f"{collection} {measure}"),
            *_comparison_entries(found.get((treatment, baseline, collection, measure))),
        )
        for treatment, baseline in spec.comparisons
        for collection, measure in summary.places
    )
    family = max((contrast.family for contrast in summary.comparisons), default=0)
    heads = ("Difference", "95 % CI", "p (Holm)", "Queries", "Seeds")
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
            f"† = significant: two-sided paired t-test over queries, Holm over all {family} tests "
            f"of this table, α = {spec.alpha:g}. The intervals are not corrected.",
        ),
    )


def csv_rows(summary: Summary) -> list[dict[str, object]]:
    """Every number at full precision, one line per row (or comparison), collection and measure.

    Missing numbers are empty. `mean` is over all queries of the row; `baseline_mean`, `n` and what
    follows are of the queries that both sides have.
    """
    systems = {row.name: row.system for row in summary.spec.rows}
    lines: list[dict[str, object]] = []
    for row in summary.spec.rows:
        for collection, measure in summary.places:
            key = (row.name, collection, measure)
            lines.append(
                _csv_line("main", row.name, systems, summary, collection, measure)
                | _csv_contrast(summary.contrasts.get(key))
            )
    found = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    for treatment, baseline in summary.spec.comparisons:
        for collection, measure in summary.places:
            contrast = found.get((treatment, baseline, collection, measure))
            lines.append(
                _csv_line("comparisons", treatment, systems, summary, collection, measure)
                | {"baseline": baseline}
                | _csv_contrast(contrast)
            )
    return lines


def figure_panels(summary: Summary) -> dict[str, list[figures.Point]]:
    """Map collection -> tested rows of the spec's `figure` measure; empty if none was tested."""
    panels: dict[str, list[figures.Point]] = {}
    for collection in summary.collections:
        for row in summary.spec.rows:
            contrast = summary.contrasts.get((row.name, collection, summary.spec.figure))
            if contrast is None:
                continue
            panels.setdefault(collection, []).append(
                figures.Point(
                    name=row.name,
                    difference=contrast.comparison.difference,
                    low=contrast.comparison.low,
                    high=contrast.comparison.high,
                    seeds=contrast.seed_differences,
                    significant=contrast.significant,
                    reference=row.system in REFERENCES,
                )
            )
    return panels


def write(summary: Summary, folder: Path) -> tuple[Path, ...]:
    """Write table.md, table.tex, table.csv, figure.pdf and figure.png; the same in, the same out.

    Without anything to draw there is no figure, and an older one is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = [table for table in (main_table(summary), comparison_table(summary)) if table]
    title = f"# {summary.spec.name}\n\n"
    paths = [folder / "table.md", folder / "table.tex", folder / "table.csv"]
    paths[0].write_text(title + "\n".join(map(tables.markdown, shown)), encoding="utf-8")
    paths[1].write_text(
        "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(map(tables.latex, shown)),
        encoding="utf-8",
    )
    with paths[2].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(csv_rows(summary))
    panels = figure_panels(summary)
    stem = folder / "figure"
    if not panels:
        for suffix in (".pdf", ".png"):
            stem.with_suffix(suffix).unlink(missing_ok=True)
        return tuple(paths)
    figure = figures.differences(
        panels, baseline=str(summary.spec.baseline), measure=summary.spec.figure
    )
    return (*paths, *figures.save(figure, stem))


def terminal(summary: Summary) -> str:
    """Both tables and what is missing, for people at a terminal."""
    comparisons = comparison_table(summary)
    parts = [_wrap(f"{summary.spec.name}: {summary.spec.claim}"), tables.text(main_table(summary))]
    marks = "** = best, _ = second of the competing rows."
    parts.append(_lines(marks, notes.baseline_note(summary), *notes.subset_notes(summary)))
    if comparisons is not None:
        parts += [comparisons.caption, tables.text(comparisons)]
    parts.append(
        _lines(
            *notes.health_notes(summary),
            *notes.label_notes(summary),
            *notes.absent_notes(summary),
            notes.missing_note(summary),
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
    contrast = summary.contrasts.get((row, collection, measure))
    return Entry(entry.text, significant=contrast is not None and contrast.significant)


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
        Entry(_p(contrast.p_holm)),
        Entry(str(result.n)),
        Entry(seeds + (" (1 seed)" if contrast.single_seed else "")),
    )


def _signed(value: float) -> str:
    return MISSING if value != value else f"{value:+.3f}".replace("-", "−")


def _p(value: float) -> str:
    if value != value:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _csv_line(
    table: str, row: str, systems: dict[str, str], summary: Summary, collection: str, measure: str
) -> dict[str, object]:
    line: dict[str, object] = {
        "table": table,
        "row": row,
        "system": systems[row],
        "collection": collection,
        "measure": measure,
        "baseline": "",
    }
    scores = summary.scores.get((row, collection, measure))
    if scores is not None:
        line |= {
            "queries": len(scores.queries),
            "seeds": " ".join(map(str, scores.seeds)),
            "mean": _full(scores.mean),
            "signatures": " ".join(summary.signatures[row]),
        }
    return line


def _csv_contrast(contrast: Contrast | None) -> dict[str, object]:
    if contrast is None:
        return {}
    result = contrast.comparison
    numbers: dict[str, Any] = {
        "baseline_mean": contrast.baseline_mean,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "d_z": result.d_z,
        "p": result.p,
        "p_holm": contrast.p_holm,
    }
    return {key: _full(value) for key, value in numbers.items()} | {
        "baseline": contrast.baseline,
        "n": result.n,
        "family": contrast.family,
        "significant": contrast.significant,
    }


def _full(value: float) -> str:
    """Shortest text that reads back as the same float; empty for NaN."""
    return "" if value != value else repr(float(value))
