"""The sentences below the main table: what its numbers rest on, what is missing or unhealthy.

Each function words what `summary` and the trials' facts hold, and gives an empty text or list
where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from analysis.claims import claim_note, interval_note, test_notes
from analysis.health import states
from analysis.means import averaged, why_left_out
from analysis.render.entry import ALARM
from analysis.rows import REFERENCES, Row
from analysis.spec import PROVENANCE
from analysis.summary import Summary
from rdx.facts import TrialFacts
from rdx.text import counted

if TYPE_CHECKING:
    from rdx.config import Cell

MOST_NAMED = 4  # rows or cells that an alarm names; the notes name all
RECIPE = {
    "paper": "as in the paper",
    "repository": "as in its repository",
    "assumed": "assumed here",
}


def sentences(summary: Summary) -> tuple[str, ...]:
    """Say what a reader must know to believe the main table, a sentence or two each."""
    return tuple(
        note
        for note in (
            "Scores are means over queries of the per-query mean over seeds.",
            *test_notes(summary),
            interval_note(summary) if summary.against else "",
            claim_note(summary),
            _mark_note(summary),
            _seed_note(summary),
            *subset_notes(summary),
            _weight_note(summary),
            *_collection_notes(summary),
            *_mean_notes(summary),
            _tie_note(summary),
            _precision_note(summary),
            *alarms(summary, most=None),
            _comparisons_note(summary),
            impossible_note(summary),
            *_imported_notes(summary),
            _recipe_note(summary),
            _signature_note(summary),
            _commit_note(summary),
        )
        if note
    )


def alarms(summary: Summary, most: int | None = MOST_NAMED) -> list[str]:
    """Everything that a reader must see before the numbers; of rows and cells the first `most`."""
    missing = _missing_note(summary, most)
    return [
        *_health_notes(summary, most),
        *_selection_notes(summary),
        *_label_notes(summary),
        *_absent_notes(summary),
        *([missing] if missing else []),
    ]


def _overrides(cell: Cell) -> str:
    """What a cell sets on the command line, with its sub-grid."""
    overrides = [o for o in cell.overrides if not o.startswith("+experiments=")]
    return " ".join(overrides) + (f" ({cell.grid})" if cell.grid else "")


def unhealthy(summary: Summary, row: Row) -> dict[str, list[str]]:
    """Map health states other than ok to seeds, of a row that rests on a run that went wrong."""
    if row.name in summary.sound:
        return {}
    return states(row, summary.signatures[row.name], summary.trials.facts)


def _mark_note(summary: Summary) -> str:
    competing = "; ".join(
        row.name for row in summary.spec.rows if row.competes and not summary.apart(row.name)
    )
    return (
        "Bold = best, underlined = second, after rounding to 3 decimals, ties sharing the mark; "
        f"rows that compete: {competing or 'none'}."
    )


def _seed_note(summary: Summary) -> str:
    seeds = {row.name: _seeds(summary, row.name) for row in summary.spec.rows}
    trained = [f"{name}: {_join(map(str, own))}" for name, own in seeds.items() if own]
    if not trained:
        return ""
    single = [
        name for name in seeds if any(len(scores.seeds) == 1 for scores in summary.scores_of(name))
    ]
    parts = [f"Seeds: {'; '.join(trained)}."]
    if single:
        parts.append(
            f"1 seed = a single training run ({'; '.join(single)}): a difference to it may be "
            "that run's alone."
        )
    return " ".join(parts)


def subset_notes(summary: Summary) -> list[str]:
    """Say which rows cover only some of a collection's queries."""
    notes = []
    for collection in summary.collections:
        counts = {
            row.name: len(summary.scores[row.name, collection, measure].queries)
            for row in summary.spec.rows
            for measure in summary.spec.measures
            if (row.name, collection, measure) in summary.scores
        }
        full = max(counts.values(), default=0)
        notes += [
            f"{row}: {count} of the {full} queries of {collection}; it is compared with other rows "
            "on these queries only, so its score does not stand beside theirs."
            for row, count in counts.items()
            if count < full
        ]
    return notes


def _weight_note(summary: Summary) -> str:
    lines = []
    for row in summary.spec.rows:
        if row.system != "student+first_stage":
            continue
        weights = {
            f"{collection} {weight:g}"
            for signature in summary.signatures[row.name]
            for collection, facts in summary.trials.facts[signature].collections.items()
            if (weight := facts.weight) is not None
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
        parts = [counted(facts.queries, "query"), f"top {facts.k} re-ranked"]
        if pool := next((pool for pool in summary.spec.pools if pool.name == name), None):
            parts[0] += f" of {' and '.join(pool.of)}, each scored by the trials tested on it"
        parts.append(f"first stage {_first_stage(facts.first_stage)}")
        if shares := _judged(summary, name):
            parts.append(f"Judged@10 of the trials {' to '.join(shares)}")
        parts.append(f"best possible order {facts.ceiling:.3f}")
        copy = facts.passages_of_copy
        local = "" if copy is None else f" (a local copy with {counted(copy, 'passage')})"
        parts.append(f"data {facts.digest[:16]}{local}")
        if facts.degenerate:
            parts.append(f"DEGENERATE ({facts.reason})")
        lines.append(f"{name}: {', '.join(parts)}.")
    return lines


TIES = {
    "trec_eval": "Ties in a ranking are broken as trec_eval does: score descending, then doc id "
    "descending.",
    "expected": "Ties in a ranking count as their mean over all orders (McSherry, Najork 2008).",
    "rank": "Ties in a ranking are broken by its rank column.",
}


def _tie_note(summary: Summary) -> str:
    rules = {facts.ties.rule for facts in summary.collection_facts.values()}
    return " ".join(TIES[rule] for rule in sorted(rules or {"trec_eval"}))


def _precision_note(summary: Summary) -> str:
    """In which precision models computed; marked where rows of the table differ in one."""
    rows: dict[str, dict[str, dict[str, None]]] = {}  # key -> precision -> names of rows
    for row in summary.spec.rows:
        for signature in summary.signatures[row.name] if row.system not in REFERENCES else ():
            for key, value in summary.trials.facts[signature].precision.items():
                by_value = rows.setdefault(key.removesuffix(".precision"), {})
                by_value.setdefault(value, {})[row.name] = None
    equal = [f"{key} {next(iter(by))}" for key, by in rows.items() if len(by) == 1]
    notes = [f"Precision: {_join(equal)}."] if equal else []
    for key, by in rows.items():
        if len(by) > 1:
            values = "; ".join(f"{value} ({_join(names)})" for value, names in by.items())
            notes.append(f"Rows differ in {key}.precision: {values}.")
    return " ".join(notes)


def _mean_notes(summary: Summary) -> list[str]:
    """What each mean over collections is of, and what it leaves out for which reason."""
    lines, facts = [], summary.collection_facts
    for mean in summary.spec.means:
        of = averaged(mean, summary.collections, facts)
        reasons = {c: why_left_out(facts[c]) for c in summary.collections if c in facts}
        out = "" if mean.of else "; ".join(f"{c}: {why}" for c, why in reasons.items() if why)
        lines.append(
            f"{mean.name}: {mean.kind} mean over {', '.join(of) or 'no collection'}, each weighing "
            "the same; not tested" + (f"; left out: {out}." if out else ".")
        )
    return lines


def _judged(summary: Summary, collection: str) -> list[str]:
    """Lowest and highest share of judged passages among the trials, one if they print alike."""
    shares = {
        f"{trial.collections[collection].judged_at_10:.3f}"
        for trial in summary.trials.facts.values()
        if collection in trial.collections
    }
    return sorted({min(shares), max(shares)}) if shares else []


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


def _health_notes(summary: Summary, most: int | None) -> list[str]:
    """A line per state other than ok: the rows with such trials, of these the first `most`."""
    rows: dict[str, list[str]] = {}
    for row in summary.spec.rows:
        for state, seeds in unhealthy(summary, row).items():
            rows.setdefault(state, []).append(f"{row.name} (seed {_join(seeds)})")
    lines = []
    for state, named in rows.items():
        rest = len(named) - len(named[:most])
        more = f"; and {counted(rest, 'row')} more" if rest else ""
        lines.append(f"{ALARM} Health {state}: {'; '.join(named[:most])}{more}.")
    everywhere = {
        state: None
        for row in summary.spec.rows
        if row.name in summary.sound
        for state in states(row, summary.signatures[row.name], summary.trials.facts)
    }
    if everywhere:
        lines.append(
            f"No trained row is without health {' or '.join(everywhere)}, so that this tells no "
            "run that went wrong from the others: none is marked, and all count."
        )
    return lines


def _selection_notes(summary: Summary) -> list[str]:
    """Say which rows were tested on what decided which of their weights were kept."""
    lines = []
    for row in summary.spec.rows:
        trials = [summary.trials.facts[s] for s in summary.signatures[row.name]]
        names = [c for c in summary.collections if any(_selected(t, c) for t in trials)]
        if names and row.system not in REFERENCES:
            lines.append(
                f"{row.name}: its weights were selected by their scores on "
                f"{_join(names)}, which is no test of them."
            )
    return lines


def _selected(trial: TrialFacts, collection: str) -> bool:
    return collection in trial.collections and trial.collections[collection].selected_on


def _label_notes(summary: Summary) -> list[str]:
    """Say which rows learned from fewer lists than the teacher was asked for."""
    lines = []
    for row in summary.spec.rows:
        if row.system in REFERENCES:
            continue
        checkpoints = [summary.trials.facts[s].checkpoint for s in summary.signatures[row.name]]
        counts = [c.dropped.get("lists_left_out") for c in checkpoints if c]
        lost = [f"{n} of {of}" for n, of in sorted({(c.n, c.of) for c in counts if c and c.n})]
        if lost:
            lines.append(
                f"Labels of {row.name}: {_join(lost)} training lists were left out, since "
                "the teacher gave no usable ranking of them."
            )
    return lines


def _absent_notes(summary: Summary) -> list[str]:
    """Say which rows have trials, but none that holds their system."""
    return [
        f"{row.name}: its trials hold no system {row.system!r} with these measures."
        for row in summary.spec.rows
        if summary.signatures[row.name] and not summary.scores_of(row.name)
    ]


def _missing_note(summary: Summary, most: int | None) -> str:
    missing = [_overrides(cell) for cell in summary.trials.missing]
    if not missing:
        return ""
    named = missing[:most] + [f"and {len(missing) - len(missing[:most])} more"] * (
        len(missing) > len(missing[:most])
    )
    return f"Missing cells ({len(missing)} of {len(summary.trials.cells)}): {'; '.join(named)}."


def comparisons_not_run(summary: Summary) -> list[tuple[str, str]]:
    """Declared comparisons that no collection and measure has both rows of."""
    run = {(contrast.treatment, contrast.baseline) for contrast in summary.comparisons}
    return [pair for pair in summary.spec.comparisons if pair not in run]


def _comparisons_note(summary: Summary) -> str:
    absent = [f"{first} − {second}" for first, second in comparisons_not_run(summary)]
    return f"Declared comparisons not run: {'; '.join(absent)}." if absent else ""


def impossible_note(summary: Summary) -> str:
    """List the cells of the grid that cannot be run, with the reason."""
    cells = [f"{_overrides(cell)}: {why}" for cell, why in summary.trials.left_out]
    return f"Impossible cells ({len(cells)}): {'; '.join(cells)}." if cells else ""


def _imported_notes(summary: Summary) -> list[str]:
    lines = []
    for row in summary.spec.rows:
        if not row.imported:
            continue
        if not summary.signatures[row.name]:
            lines.append(f"{row.name}: no run has been imported under the name {row.imported!r}.")
        for signature in summary.signatures[row.name]:
            run = summary.trials.facts[signature].imported
            assert run is not None
            origin = [text for text in (run.file, run.source) if text]
            origin += [f"sha256 {run.sha256[:12]}"] * bool(run.sha256)
            lines.append(f"{row.name} was imported: {_join(origin) or row.imported}.")
    return lines


def _recipe_note(summary: Summary) -> str:
    spec = summary.spec
    parts = []
    for source in PROVENANCE:
        values = [f"{field.key} = {field.value}" for field in spec.fields if field.source == source]
        if values:
            parts.append(f"{RECIPE[source]}: {_join(values)}")
    notes = [f"Recipe{f' of {spec.source}' * bool(spec.source)}, {'; '.join(parts)}."] * bool(parts)
    notes += [f"It deviates: {'; '.join(spec.deviations)}."] * bool(spec.deviations)
    return " ".join(notes)


def _commit_note(summary: Summary) -> str:
    commits = sorted({commit[:10] for commit in summary.trials.commits.values()})
    return f"Code that ran the trials: commit {_join(commits)}." if commits else ""


def _signature_note(summary: Summary) -> str:
    parts = [
        f"{row.name}: {' '.join(s[:8] for s in summary.signatures[row.name])}"
        for row in summary.spec.rows
        if summary.signatures[row.name] and (row.trained or row.levels or row.imported)
    ]
    return f"Signatures of the trials: {'; '.join(parts)}." if parts else ""


def _seeds(summary: Summary, row: str) -> list[int]:
    return sorted({seed for scores in summary.scores_of(row) for seed in scores.seeds})


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts)
