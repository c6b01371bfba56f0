"""Numbers -> words: the cells, marks and footnotes of a summary, and the files of a result folder.

Nothing is computed here; `summary` did that.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis import figures, tables
from analysis.spec import REFERENCES, Row
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
    places = _places(summary)
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
            Entry(row.name + (ALARM if _unhealthy(summary, row) else "")),
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
        notes=notes(summary),
    )


def comparison_table(summary: Summary) -> Table | None:
    """Lay out the spec's `comparisons`, a line per pair, collection and measure; None if none."""
    spec = summary.spec
    if not spec.comparisons:
        return None
    found = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    rows = tuple(
        (
            Entry(f"{treatment} − {baseline}"),
            Entry(f"{collection} {measure}".strip()),
            *_comparison_entries(found.get((treatment, baseline, collection, measure))),
        )
        for treatment, baseline in spec.comparisons
        for collection, measure in _places(summary)
    )
    family = max((contrast.family for contrast in summary.comparisons), default=0)
    heads = ("Difference", "95 % CI", "d_z", "p (Holm)", "Queries", "Seeds")
    return Table(
        label=f"{spec.name}-comparisons",
        caption="Declared comparisons: first minus second.",
        columns=(
            Column("Comparison", numeric=False),
            Column("Measure", numeric=False),
            *(Column(head) for head in heads),
        ),
        rows=rows,
        notes=(
            f"† = significant: two-sided paired t-test over queries, Holm over all {family} tests "
            f"of this table, α = {spec.alpha:g}. d_z = mean difference / standard deviation of the "
            "per-query differences.",
        ),
    )


def notes(summary: Summary) -> tuple[str, ...]:
    """Say what a reader must know to believe the main table, a sentence or two each."""
    return tuple(
        note
        for note in (
            "Scores are means over queries of the per-query mean over seeds.",
            _test_note(summary),
            "Bold = best, underlined = second, after rounding to 3 decimals, ties sharing the "
            "mark; rows that compete: "
            + (_join(row.name for row in summary.spec.rows if row.competes) or "none")
            + ".",
            _seed_note(summary),
            *_subset_notes(summary),
            _weight_note(summary),
            *_collection_notes(summary),
            "Ties in a ranking are broken as trec_eval does: score descending, then doc id "
            "descending.",
            *_health_notes(summary),
            *_absent_notes(summary),
            _missing_note(summary),
            _signature_note(summary),
        )
        if note
    )


def missing_cells(summary: Summary) -> tuple[str, ...]:
    """List the command-line overrides of each cell without a finished trial, with its sub-grid."""
    lines = []
    for cell in summary.trials.missing:
        own = [o for o in cell.overrides if not o.startswith("+experiments=")]
        lines.append(" ".join(own) + (f" ({cell.grid})" if cell.grid else ""))
    return tuple(lines)


def csv_rows(summary: Summary) -> list[dict[str, object]]:
    """Every number at full precision, one line per row (or comparison), collection and measure.

    Missing numbers are empty. `mean` is over all queries of the row; `baseline_mean`, `n` and what
    follows are of the queries that both sides have.
    """
    systems = {row.name: row.system for row in summary.spec.rows}
    lines: list[dict[str, object]] = []
    for row in summary.spec.rows:
        for collection, measure in _places(summary):
            key = (row.name, collection, measure)
            lines.append(
                _csv_line("main", row.name, systems, summary, collection, measure)
                | _csv_contrast(summary.contrasts.get(key))
            )
    found = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    for treatment, baseline in summary.spec.comparisons:
        for collection, measure in _places(summary):
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
        "% needs \\usepackage{booktabs}\n" + "\n".join(map(tables.latex, shown)), encoding="utf-8"
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
    lines = [f"{summary.spec.name}: {summary.spec.claim}", "", tables.text(main_table(summary))]
    lines += [_test_note(summary), "** = best, _ = second of the competing rows."]
    comparisons = comparison_table(summary)
    if comparisons is not None:
        lines += ["", comparisons.caption, "", tables.text(comparisons)]
    lines += [_missing_note(summary)] if summary.trials.missing else []
    lines += [*_subset_notes(summary), *_health_notes(summary), *_absent_notes(summary)]
    return "\n".join(line for line in lines if line is not None)


def _places(summary: Summary) -> list[tuple[str, str]]:
    # Before the first trial nobody knows the collections; the table still shows its rows.
    return [(c, m) for c in summary.collections or ("",) for m in summary.spec.measures]


def _score(summary: Summary, row: str, collection: str, measure: str) -> Entry:
    scores = summary.scores.get((row, collection, measure))
    entry = tables.score(None if scores is None else scores.mean)
    contrast = summary.contrasts.get((row, collection, measure))
    return Entry(entry.text, significant=contrast is not None and contrast.significant)


def _scores_of(summary: Summary, row: str) -> list[Scores]:
    places = _places(summary)
    return [summary.scores[row, c, m] for c, m in places if (row, c, m) in summary.scores]


def _query_counts(summary: Summary, row: str) -> str:
    return _per_collection(summary, row, lambda scores: len(scores.queries)) or MISSING


def _seeds(summary: Summary, row: str) -> list[int]:
    return sorted({seed for scores in _scores_of(summary, row) for seed in scores.seeds})


def _seed_count(summary: Summary, row: str) -> str:
    counts = _per_collection(summary, row, lambda scores: len(scores.seeds))
    return "1 seed" if counts == "1" else MISSING if counts in ("", "0") else counts


def _single_seed(summary: Summary, row: str) -> bool:
    return any(len(scores.seeds) == 1 for scores in _scores_of(summary, row))


def _per_collection(summary: Summary, row: str, count: Callable[[Scores], int]) -> str:
    """One number if it is the same everywhere, else one per collection."""
    counts = {
        collection: str(count(summary.scores[row, collection, measure]))
        for collection, measure in _places(summary)
        if (row, collection, measure) in summary.scores
    }
    return " / ".join(counts.values() if len(set(counts.values())) > 1 else set(counts.values()))


def _unhealthy(summary: Summary, row: Row) -> dict[str, list[str]]:
    """Health state other than ok -> seeds; only of systems that a trial trained."""
    states: dict[str, list[str]] = {}
    if row.system in REFERENCES:
        return states
    for signature in summary.signatures[row.name]:
        facts = summary.trials.facts[signature]
        if (state := str(facts.get("health", "ok"))) != "ok":
            states.setdefault(state, []).append(str(facts["seed"]))
    return states


def _test_note(summary: Summary) -> str:
    spec = summary.spec
    if spec.baseline is None:
        return ""
    sizes = sorted({contrast.family for contrast in summary.contrasts.values()})
    family = "each collection and measure" if spec.family == "collection" else "the whole table"
    return (
        f"† = differs significantly from the baseline, {spec.baseline}: two-sided paired t-test "
        f"over queries, Holm within {family} (family of {_join(map(str, sizes)) or 0}), "
        f"α = {spec.alpha:g}."
    )


def _seed_note(summary: Summary) -> str:
    named = [(row.name, _seeds(summary, row.name)) for row in summary.spec.rows]
    several = [f"{name}: {_join(map(str, seeds))}" for name, seeds in named if seeds]
    single = [name for name, _ in named if _single_seed(summary, name)]
    note = f"Seeds: {'; '.join(several)}." if several else ""
    if single:
        note += (
            f" 1 seed = a single training run ({_join(single)}): a difference to it may be that "
            "run's alone."
        )
    if several:
        note += " Tests speak about other queries, not about other training runs."
    return note.strip()


def _subset_notes(summary: Summary) -> list[str]:
    lines = []
    for collection in summary.collections:
        counts = {
            row.name: len(summary.scores[row.name, collection, measure].queries)
            for row in summary.spec.rows
            for measure in summary.spec.measures
            if (row.name, collection, measure) in summary.scores
        }
        full = max(counts.values(), default=0)
        lines += [
            f"{row}: {count} of the {full} queries of {collection}; it is compared with other rows "
            "on these queries only, so its score does not stand beside theirs."
            for row, count in counts.items()
            if count < full
        ]
    return lines


def _weight_note(summary: Summary) -> str:
    lines = []
    for row in summary.spec.rows:
        if row.system != "student+first_stage":
            continue
        weights = {
            f"{collection} {weight:g}"
            for signature in summary.signatures[row.name]
            for collection, facts in summary.trials.facts[signature]["collections"].items()
            if isinstance(weight := facts.get("weight"), int | float)
        }
        if weights:
            lines.append(f"{row.name}: {_join(sorted(weights))}")
    return f"Weight of the interpolation, chosen on dev: {'; '.join(lines)}." if lines else ""


def _collection_notes(summary: Summary) -> list[str]:
    lines = []
    for name in summary.collections:
        facts = summary.collection_facts.get(name)
        if facts is None:
            continue
        parts = [f"{facts.get('queries', '?')} queries"]
        if facts.get("k") is not None:
            parts.append(f"top {facts['k']} re-ranked")
        parts.append(f"first stage {_first_stage(facts.get('first_stage'))}")
        judged = facts.get("judged@10")
        if judged is not None:
            parts.append(f"Judged@10 {_plain(judged)}")
        parts.append(f"data {str(facts.get('digest', '?'))[:16]}")
        lines.append(f"{name}: {', '.join(parts)}.")
    return lines


def _first_stage(fingerprint: object) -> str:
    if not isinstance(fingerprint, Mapping):
        return str(fingerprint)
    rest = dict(fingerprint)
    name = " ".join(str(rest.pop(key)) for key in ("engine", "version") if key in rest)
    return f"{name} ({_plain(rest)})" if rest else name


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        parts = [
            _plain(inner) if isinstance(inner, Mapping) else f"{key}={_plain(inner)}"
            for key, inner in value.items()
        ]
        return ", ".join(part for part in parts if part)
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(_plain, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _health_notes(summary: Summary) -> list[str]:
    lines = []
    for row in summary.spec.rows:
        states = [
            f"{state} (seed {_join(seeds)})" for state, seeds in _unhealthy(summary, row).items()
        ]
        if states:
            lines.append(f"(!) Health of {row.name}: {'; '.join(states)}.")
    return lines


def _absent_notes(summary: Summary) -> list[str]:
    return [
        f"{row.name}: its trials hold no system {row.system!r} with these measures."
        for row in summary.spec.rows
        if summary.signatures[row.name] and not _scores_of(summary, row.name)
    ]


def _missing_note(summary: Summary) -> str:
    missing = missing_cells(summary)
    if not missing:
        return ""
    total = len(summary.trials.cells)
    return f"Missing cells ({len(missing)} of {total}): {'; '.join(missing)}."


def _signature_note(summary: Summary) -> str:
    parts = [
        f"{row.name}: {' '.join(s[:8] for s in summary.signatures[row.name])}"
        for row in summary.spec.rows
        if summary.signatures[row.name] and row.grids
    ]
    return f"Signatures of the trials: {'; '.join(parts)}." if parts else ""


def _comparison_entries(contrast: Contrast | None) -> tuple[Entry, ...]:
    if contrast is None:
        return (Entry(MISSING),) * 6
    result = contrast.comparison
    seeds = " vs ".join(str(len(seeds)) if seeds else MISSING for seeds in contrast.seeds)
    return (
        Entry(_signed(result.difference), significant=contrast.significant),
        Entry(f"[{_signed(result.low)}, {_signed(result.high)}]"),
        Entry(_signed(result.d_z, 2)),
        Entry(_p(contrast.p_holm)),
        Entry(str(result.n)),
        Entry(seeds + (" (1 seed)" if contrast.single_seed else "")),
    )


def _signed(value: float, digits: int = 3) -> str:
    if value != value:
        return MISSING
    return f"{value:+.{digits}f}".replace("-", "−").replace("inf", "∞")


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


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts)
