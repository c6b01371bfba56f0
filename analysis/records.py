"""Every number of a summary at full precision, for ``table.csv``.

Nothing is computed here; `summary` did that.
"""

from __future__ import annotations

from typing import Any

from analysis.summary import Contrast, Pairs, Summary

COLUMNS = (
    *("table", "row", "system", "collection", "measure", "queries", "seeds", "mean"),
    *("baseline", "baseline_mean", "n", "difference", "low", "high", "d_z"),
    *("p", "p_corrected", "family", "significant", "test", "interval", "correction"),
    *("p_equivalence", "equivalent", "p_non_inferiority", "non_inferior", "margin", "letters"),
    *("signatures", "runs"),
)


def csv_rows(summary: Summary) -> list[dict[str, object]]:
    """One line per row (or test), collection and measure; missing numbers are empty.

    The column `table` says what a line is: ``main`` (a row and its test against the first
    baseline), ``means`` (a row's mean over collections), ``baselines`` (tests against further
    ones), ``comparisons`` or ``pairs``. `mean` is over all queries of the row; `baseline_mean`, `n`
    and what follows are of the queries that both sides have.
    """
    spec = summary.spec
    lines: list[dict[str, object]] = []
    for row in spec.rows:
        for collection, measure in summary.places:
            line = _line("main", row.name, summary, collection, measure)
            found = summary.pairs.get((collection, measure))
            if found is not None and row.name in found.rows:
                line["letters"] = found.letters[found.rows.index(row.name)]
            contrast = summary.contrasts.get((row.name, collection, measure))
            lines.append(line | _contrast(contrast, summary))
        for mean in spec.means:
            lines += [_line("means", row.name, summary, mean.name, m) for m in spec.measures]
    for contrast in summary.against:
        if contrast.baseline != spec.baseline:
            place = (contrast.collection, contrast.measure)
            line = _line("baselines", contrast.treatment, summary, *place)
            lines.append(line | _contrast(contrast, summary))
    declared = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    for treatment, baseline in spec.comparisons:
        for collection, measure in summary.places:
            contrast = declared.get((treatment, baseline, collection, measure))
            line = _line("comparisons", treatment, summary, collection, measure)
            lines.append(line | {"baseline": baseline} | _contrast(contrast, summary))
    for place, pairs in summary.pairs.items():
        lines += _pairs(pairs, summary, *place)
    return lines


def _line(
    table: str, row: str, summary: Summary, collection: str, measure: str
) -> dict[str, object]:
    system = next(one.system for one in summary.spec.rows if one.name == row)
    line: dict[str, object] = {
        "table": table,
        "row": row,
        "system": system,
        "collection": collection,
        "measure": measure,
        "baseline": "",
    }
    scores = summary.found(row, collection, measure)
    if scores is not None:
        signatures = summary.signatures[row]
        runs = summary.trials.runs
        line |= {
            "queries": "" if table == "means" else len(scores.queries),
            "seeds": " ".join(map(str, scores.seeds)),
            "mean": _full(scores.mean),
            "signatures": " ".join(signatures),
            "runs": " ".join(runs[s] for s in signatures if s in runs),
        }
    return line


def _contrast(contrast: Contrast | None, summary: Summary) -> dict[str, object]:
    if contrast is None:
        return {}
    result, spec = contrast.comparison, summary.spec
    numbers: dict[str, Any] = {
        "baseline_mean": contrast.baseline_mean,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "d_z": result.d_z,
        "p": result.p,
        "p_corrected": contrast.p_corrected,
        "p_equivalence": contrast.p_equivalence,
        "p_non_inferiority": contrast.p_non_inferiority,
    }
    line = {key: _full(value) for key, value in numbers.items()} | {
        "baseline": contrast.baseline,
        "n": result.n,
        "family": contrast.family,
        "significant": contrast.significant,
        "test": spec.test,
        "interval": spec.interval,
        "correction": spec.correction,
    }
    if line["p_equivalence"]:
        line |= {
            "margin": spec.margin,
            "equivalent": contrast.equivalent,
            "non_inferior": contrast.non_inferior,
        }
    return line


def _pairs(
    pairs: Pairs, summary: Summary, collection: str, measure: str
) -> list[dict[str, object]]:
    return [
        {
            "table": "pairs",
            "row": row,
            "baseline": other,
            "collection": collection,
            "measure": measure,
            "p": _full(pairs.p[i, j]),
            "p_corrected": _full(pairs.p_corrected[i, j]),
            "family": pairs.family,
            "significant": bool(pairs.significant[i, j]),
            "test": summary.spec.test,
            "correction": summary.spec.correction,
        }
        for i, row in enumerate(pairs.rows)
        for j, other in enumerate(pairs.rows)
        if i < j
    ]


def _full(value: float) -> str:
    """Shortest text that reads back as the same float; empty for NaN."""
    return "" if value != value else repr(float(value))
