"""How far a score can be trusted: ceilings, judged shares, degenerate collections, health."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rdx.declared import Share, settings
from rdx.evaluation.measures import judged, tied


@settings(frozen=True)
class Gates:
    """When a collection says nothing about re-rankers.

    Both look at the first stage alone, so that they say the same for every system.

    Parameters
    ----------
    ceiling
        Lowest mean of the first measure that the best order of the candidates must reach.
    judged
        Lowest Judged@10 of the first stage. (Collections with one judged passage a query, such as
        SciFact, have about 0.1.)
    """

    ceiling: Share = 0.1
    judged: Share = 0.05

    def reason(self, ceiling: float, judged_share: float, measure: str) -> str:
        """Why a collection is degenerate; "" if it is not."""
        found = []
        if ceiling < self.ceiling:
            found.append(f"oracle {measure} {ceiling:.3f} < {self.ceiling:g}")
        if judged_share < self.judged:
            found.append(f"Judged@10 of the first stage {judged_share:.3f} < {self.judged:g}")
        return "; ".join(found)


def facts(
    first: pd.DataFrame,
    ranking: pd.DataFrame,
    qrels: pd.DataFrame,
    table: pd.DataFrame,
    evaluation: Any,
    first_judged: float | None = None,
) -> dict[str, Any]:
    """What stands beside the score of a ranking in one collection.

    Parameters
    ----------
    first, ranking
        The candidates, and their order by the system that is judged.
    qrels
        Of the tested queries.
    table
        Per-query table of the collection, with the systems first_stage and oracle.
    evaluation
        The settings.
    first_judged
        Judged@10 of the candidates, where it is known.

    Returns
    -------
    dict
        "judged@10" of the ranking and "judged@10_first_stage"; "ceiling": the oracle's mean of the
        first measure; "degenerate", and if so the "reason"; "ties": the rule, and the shares of
        neighbours in the top k with equal scores; "missing_queries": judged ones without a
        candidate, which count 0.
    """
    measure = evaluation.measures[0]
    of_oracle = (table.system == "oracle") & (table.measure == measure)
    ceiling = float(table[of_oracle].value.mean())
    share = judged(first, qrels) if first_judged is None else first_judged
    reason = evaluation.gates.reason(ceiling, share, measure)
    return {
        "judged@10": judged(ranking, qrels),
        "judged@10_first_stage": share,
        "ceiling": ceiling,
        "degenerate": bool(reason),
        "reason": reason,
        "missing_queries": len(set(qrels.query_id) - set(first.query_id)),
        "ties": {
            "rule": evaluation.ties,
            "first_stage": tied(first[first["rank"] <= evaluation.k]),
            "system": tied(ranking[ranking["rank"] <= evaluation.k]),
        },
    }


def health(
    table: pd.DataFrame,
    student: pd.DataFrame,
    measure: str,
    weight_change: float | None,
    validation: tuple[float, float] | None = None,
) -> str:
    """State of a finished trial; the gravest that applies.

    "weights_unchanged": training left the probed weights as they were; "constant_scores": the
    student gives all passages of most queries one score; "below_first_stage": its mean of the
    first measure is below the first stage's in some collection; "below_start": of `validation`, the
    values before training and of the weights that were kept, the second is lower; else "ok".
    """
    if weight_change == 0:
        return "weights_unchanged"
    spread = student.groupby("query_id").score.agg(lambda s: s.max() - s.min())
    if (spread < 1e-6).mean() > 0.5:
        return "constant_scores"
    means = table[table.measure == measure].groupby(["collection", "system"]).value.mean()
    for name in table.collection.unique():
        if means[name, "student"] < means[name, "first_stage"]:
            return "below_first_stage"
    if validation is not None and validation[1] < validation[0]:
        return "below_start"
    return "ok"
