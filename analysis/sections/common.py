"""What the further tables share: wording of numbers, and the spread over training runs."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.power import ASSUMED_SEED_SD
from analysis.render.entry import DASH as MISSING
from analysis.replication import pooled_seed_sd
from analysis.spec import Row
from analysis.summary import Scores, Summary
from rdx.facts import OK

TRAINED = ("student", "student+first_stage")


def is_trained(row: Row) -> bool:
    """Whether the row's scores come from training runs."""
    return row.system in TRAINED


def runs(row: Row, scores: Scores) -> int:
    """Training runs behind the scores of a row; 0 for a system that is not trained."""
    return max(1, len(scores.seeds)) if is_trained(row) else 0


def healthy(summary: Summary, row: Row) -> bool:
    """Whether every trial of the row ended well."""
    return all(summary.trials.facts[s].health == OK for s in summary.signatures[row.name])


def seed_sd(summary: Summary, collection: str, measure: str) -> tuple[float, int | None, str]:
    """Spread over training runs of a mean score in one collection.

    Pooled over the rows that have several runs, all of them healthy: one collapsed run would
    otherwise make every number look like noise. Where there is none, the assumed one.

    Returns
    -------
    (float, int or None, str)
        Standard deviation, its degrees of freedom (None if assumed) and where it comes from.
    """
    found = pooled_seed_sd(
        [
            scores.seed_means
            for row in summary.spec.rows
            if is_trained(row) and healthy(summary, row)
            if (scores := summary.found(row.name, collection, measure)) is not None
        ]
    )
    if found is None:
        return ASSUMED_SEED_SD, None, f"assumed {ASSUMED_SEED_SD:g}"
    return *found, f"{found[0]:.4f}, pooled over rows with several runs, {found[1]} df"


def tie_range(
    summary: Summary, row: Row, collection: str, measure: str
) -> tuple[float, float] | None:
    """Lowest and highest mean of a row over all orders of its tied passages; None without ties.

    Of a trained row, the ends are averaged over its seeds, as its score is; a seed without ties
    adds its score to both.
    """
    scores = summary.scores.get((row.name, collection, measure))
    if scores is None:
        return None
    # A system that is the same in every trial has no seeds.
    own = dict(zip(scores.seeds, scores.seed_means.tolist(), strict=False))
    ends, tied = [], False
    for signature in summary.signatures[row.name]:
        trial = summary.trials.facts[signature]
        here = trial.collections.get(collection)
        found = here.tie_range.get(row.system, {}).get(measure) if here else None
        if found is not None and not own:
            return found
        tied = tied or found is not None
        ends.append(found or (own.get(trial.seed, scores.mean),) * 2)
    if not tied:
        return None
    low, high = (sum(end) / len(ends) for end in zip(*ends, strict=True))
    return low, high


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Fixed decimals with a true minus; a dash for what does not exist."""
    if value is None or value != value:
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(low: float, high: float, *, sign: bool = True) -> str:
    """Both ends in brackets; a dash if there is none."""
    if low != low or high != high:
        return MISSING
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def p_value(value: float) -> str:
    """A p value with three decimals."""
    return "< 0.001" if value < 0.001 else number(value)


def sentences(*parts: str) -> tuple[str, ...]:
    """Those that say something."""
    return tuple(part for part in parts if part)


def listed(parts: Iterable[str]) -> str:
    """Separate by commas, or say that there are none."""
    return ", ".join(parts) or "none"
