"""Scales of scores: what makes those of one query comparable with those of another."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rdx.declared import SELECTS, one_of

SCALES = ("none", "minmax", "zscore", "quantile")
Scale = Annotated[str, one_of(*SCALES), SELECTS]  # of a teacher's scores


def scaled(scores: ArrayLike, queries: ArrayLike, how: str) -> np.ndarray:
    """Bring the scores of each query to a scale; the order of its passages stays, ties included.

    Parameters
    ----------
    scores
        [rows], higher is better. NaN, where there is no score, stays NaN and counts for nothing.
    queries
        [rows], whose score each is: ids or codes; the rows of a query need not be together.
    how
        "none": as they are; "minmax": ``(s - min) / (max - min)``, from 0 to 1; "zscore":
        ``(s - mean) / SD``, the SD over all n scores (population); "quantile": the share of the
        query's other passages that score lower, a tie counts half, so
        ``(mean rank from below - 1) / (n - 1)``, from 0 to 1. Where all scores of a query are
        equal, and where there is one, they stand in the middle: 0.5, 0 for "zscore".

    Returns
    -------
    numpy.ndarray
        [rows], float64.

    Raises
    ------
    ValueError
        If there is no such scale.
    """
    if how not in SCALES:
        raise ValueError(f"how={how!r}: must be one of {list(SCALES)}")
    values = pd.Series(np.asarray(scores, dtype=np.float64))
    if how == "none":
        return np.asarray(values)
    groups = values.groupby(np.asarray(queries), sort=False)
    lowest, highest = groups.transform("min"), groups.transform("max")
    if how == "minmax":
        result = (values - lowest) / (highest - lowest)
    elif how == "zscore":
        result = (values - groups.transform("mean")) / groups.transform("std", ddof=0)
    else:
        result = (groups.rank() - 1) / (groups.transform("count") - 1)
    middle = 0.0 if how == "zscore" else 0.5
    return np.asarray(result.mask(lowest == highest, middle))
