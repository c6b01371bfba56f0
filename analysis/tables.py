"""Numbers -> tables: rows of the spec by collection and measure, and declared comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis import claims, footer
from analysis.render.entry import (
    ABSENT,
    EQUIVALENT,
    MARKS,
    Column,
    Entry,
    Table,
    count,
    fixed,
    interval,
    mark_best,
    number,
    numbers,
    p_value,
    runs,
    significant,
    system,
    words,
)
from analysis.rows import Row
from analysis.summary import Contrast, Scores, Summary
from rdx.text import counted


def main_table(summary: Summary) -> Table:
    """Rows of the spec x (collection, measure); the columns at the right say on what they rest."""
    spec = summary.spec
    apart = {row.name for row in spec.rows if summary.apart(row.name)}
    competes = [row.competes and row.name not in apart for row in spec.rows]
    columns: list[Column] = []
    cells: list[Sequence[Entry]] = []
    for collection, measure in summary.places:
        columns.append(Column(measure, collection))
        scores = [_score(summary, row, collection, measure) for row in spec.rows]
        cells.append(mark_best(scores, competes))
        if (collection, measure) in summary.pairs:
            columns.append(Column("all pairs", collection, numeric=False))
            cells.append(_letters(summary, collection, measure))
    for mean in spec.means:
        for measure in spec.measures:
            columns.append(Column(measure, mean.name))
            means = [summary.lookup(row.name, mean.name, measure) for row in spec.rows]
            entries = [number(None if scores is None else scores.mean) for scores in means]
            cells.append(mark_best(entries, competes))
    lines = [
        (
            system(row.name, alarm=bool(footer.unhealthy(summary, row))),
            *(column[i] for column in cells),
            _query_counts(summary, row),
            _seed_counts(summary, row),
        )
        for i, row in enumerate(spec.rows)
    ]
    lines.sort(key=lambda line: line[0].text in apart)
    return Table(
        label=spec.name,
        caption=spec.claim or spec.name,
        columns=(*words("System"), *columns, *numbers("Queries", "Seeds")),
        rows=tuple(lines),
        notes=footer.sentences(summary),
        apart=len(apart),
    )


def comparison_table(summary: Summary) -> Table | None:
    """Lay out the spec's `comparisons`, a line per pair, collection and measure; None if none.

    A pair that no collection has both rows of is left to the footer of the main table.
    """
    spec = summary.spec
    not_run = footer.comparisons_not_run(summary)
    pairs = [pair for pair in spec.comparisons if pair not in not_run]
    if not pairs:
        return None
    declared = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    single = len(summary.collections) <= 1
    rows = tuple(
        (
            Entry(f"{treatment} − {baseline}", rows=(treatment, baseline)),
            Entry(measure if single else f"{collection} {measure}"),
            *_comparison_entries(declared.get((treatment, baseline, collection, measure))),
        )
        for treatment, baseline in pairs
        for collection, measure in summary.places
        if collection in summary.tested or (treatment, baseline, collection, measure) in declared
    )
    family = max((contrast.family for contrast in summary.comparisons), default=0)
    corrected = claims.CORRECTIONS[spec.correction]
    heads = ("Difference", "95 % CI", f"p ({corrected})", "Queries", "Seeds")
    over = "of this spec" if spec.family == "grid" else "of this table"
    test = claims.test_of(summary, [contrast.of_choice for contrast in summary.comparisons])
    return Table(
        label=f"{spec.name}-comparisons",
        caption="Declared comparisons, first minus second"
        + (f": {summary.collections[0]}." if summary.collections and single else "."),
        columns=(*words("Comparison", "Measure"), *numbers(*heads)),
        rows=rows,
        notes=(
            f"† = significant: {test}, {corrected} over all {family} tests "
            f"{over}, α = {spec.alpha:g}. {claims.interval_note(summary)}",
        ),
    )


def _score(summary: Summary, row: Row, collection: str, measure: str) -> Entry:
    """A row's score, with signs of the baselines from which it differs or does not."""
    scores = summary.scores.get((row.name, collection, measure))
    if scores is None:
        return ABSENT
    baselines = summary.spec.baselines
    tests = [
        contrast
        for contrast in summary.against
        if (contrast.treatment, contrast.collection, contrast.measure)
        == (row.name, collection, measure)
    ]
    first = any(c.significant and c.baseline == baselines[0] for c in tests)
    marks = [MARKS[i] for c in tests if c.significant and (i := baselines.index(c.baseline))]
    for contrast in tests:
        if contrast.equivalent:
            which = MARKS[baselines.index(contrast.baseline)] if len(baselines) > 1 else ""
            marks.append(EQUIVALENT + which)
    return Entry(
        fixed(scores.mean),
        scores.mean,
        significant(first),
        marks="".join(marks),
        detail=_detail(scores, tests, f"{collection}, {measure}"),
    )


def _detail(scores: Scores, tests: Sequence[Contrast], place: str) -> tuple[str, ...]:
    """What a score rests on, a line each: queries, seeds, tests."""
    lines = [f"{place}: {scores.mean!r}, {counted(len(scores.queries), 'query')}"]
    if scores.seeds:
        each = zip(scores.seeds, scores.seed_means.tolist(), strict=True)
        lines.append("by seed: " + ", ".join(f"{seed}: {mean:.4f}" for seed, mean in each))
    return (*lines, *map(_test, tests))


def _test(contrast: Contrast) -> str:
    result = contrast.comparison
    line = (
        f"minus {contrast.baseline}: {result.difference:+.4f} "
        f"[{result.low:+.4f}, {result.high:+.4f}], p {result.p:.2g}, "
        f"corrected {contrast.p_corrected:.2g} (of {contrast.family})"
    )
    if contrast.p_equivalence == contrast.p_equivalence:
        line += f", equivalence p {contrast.p_equivalence:.2g}"
    return line


def _letters(summary: Summary, collection: str, measure: str) -> list[Entry]:
    """Letters of the all-pairs tests; rows that share one do not differ."""
    pairs = summary.pairs[collection, measure]
    letters = dict(zip(pairs.rows, pairs.letters, strict=True))
    return [
        Entry(letters[row.name]) if row.name in letters else ABSENT for row in summary.spec.rows
    ]


def _query_counts(summary: Summary, row: Row) -> Entry:
    counts = _per_collection(summary, row, lambda scores: len(scores.queries))
    return _joined(counts) if counts else ABSENT


def _seed_counts(summary: Summary, row: Row) -> Entry:
    counts = _per_collection(summary, row, lambda scores: len(scores.seeds))
    return runs(sum(counts)) if len(counts) <= 1 else _joined(counts)


def _per_collection(summary: Summary, row: Row, size: Callable[[Scores], int]) -> list[int]:
    """One number if it is the same everywhere, else one per collection."""
    sizes = {
        collection: size(summary.scores[row.name, collection, measure])
        for collection, measure in summary.places
        if (row.name, collection, measure) in summary.scores
    }
    return list(sizes.values() if len(set(sizes.values())) > 1 else set(sizes.values()))


def _joined(counts: Sequence[int]) -> Entry:
    return Entry(" / ".join(map(str, counts)), float(counts[0]))


def _comparison_entries(contrast: Contrast | None) -> tuple[Entry, ...]:
    if contrast is None:
        return (ABSENT,) * 5
    result = contrast.comparison
    return (
        number(result.difference, sign=True, flags=significant(contrast.significant)),
        interval(result.low, result.high),
        p_value(contrast.p_corrected),
        count(result.n),
        runs(*map(len, contrast.seeds)),
    )
