"""How far a score can be trusted: ceilings, judged shares, degenerate collections, health."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from rdx.declared import Share, settings
from rdx.equality import at_most
from rdx.evaluation.measures import judged, tied
from rdx.facts import OK, Quality, Ties, TrainingFacts

if TYPE_CHECKING:
    from rdx.evaluation.settings import Evaluation


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
        reasons = []
        if ceiling < self.ceiling:
            reasons.append(f"oracle {measure} {ceiling:.3f} < {self.ceiling:g}")
        if judged_share < self.judged:
            reasons.append(f"Judged@10 of the first stage {judged_share:.3f} < {self.judged:g}")
        return "; ".join(reasons)


def quality_of(
    first: pd.DataFrame,
    ranking: pd.DataFrame,
    qrels: pd.DataFrame,
    table: pd.DataFrame,
    evaluation: Evaluation,
    first_judged: float | None = None,
) -> Quality:
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
    Quality
        Without `tie_range`; its ties are those of a top as deep as the candidates.
    """
    measure = evaluation.measures[0]
    of_oracle = (table.system == "oracle") & (table.measure == measure)
    ceiling = float(table[of_oracle].value.mean())
    share = judged(first, qrels) if first_judged is None else first_judged
    return Quality(
        judged_at_10=judged(ranking, qrels),
        judged_at_10_first_stage=share,
        ceiling=ceiling,
        reason=evaluation.gates.reason(ceiling, share, measure),
        missing_queries=len(set(qrels.query_id) - set(first.query_id)),
        own_passages=int((first.query_id == first.doc_id).sum()),
        ties=Ties(
            rule=evaluation.ties,
            first_stage=tied(first),
            system=tied(ranking[ranking["rank"] <= first["rank"].max()]),
        ),
    )


def health(
    table: pd.DataFrame, student: pd.DataFrame, measure: str, training: TrainingFacts | None = None
) -> str:
    """State of a finished trial; the gravest that applies.

    "weights_unchanged": training left the probed weights as they were; "constant_scores": the
    student gives all passages of most queries one score; "below_first_stage": its mean of the
    measure is below the first stage's in some collection; "below_start": the weights that were kept
    validate worse than those before training; else "ok".

    Parameters
    ----------
    table
        Per-query table of the trial.
    student
        Its ranking of a collection.
    measure
        What is compared.
    training
        None of a student that was not trained.
    """
    if training is not None and training.weight_change == 0:
        return "weights_unchanged"
    spread = student.groupby("query_id").score.agg(lambda s: s.max() - s.min())
    if (spread < 1e-6).mean() > 0.5:
        return "constant_scores"
    means = table[table.measure == measure].groupby(["collection", "system"]).value.mean()
    for name in table.collection.unique():
        if not at_most(means[name, "first_stage"], means[name, "student"]):
            return "below_first_stage"
    validation = training.validation if training is not None else None
    if validation is not None and not at_most(validation.start, validation.kept):
        return "below_start"
    return OK
