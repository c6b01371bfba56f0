"""Variance components of scores over queries and training runs, and differences by them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.significance import FloatArray, Runs, counted_in, paired_t, score_table, t_of
from analysis.significance.runs import TINY

METHODS = ("anova", "reml")
AXES = "queries, runs"
NAN = float("nan")


@dataclass(frozen=True)
class Components:
    """Variance components of one system's scores, in squared units of the measure.

    Attributes
    ----------
    queries, runs : int
        Size of the table.
    query, run, rest : float
        Variance between queries, between training runs (of the part common to all queries), and
        of what is left: query x run interaction, which one value per cell cannot tell from error.
        `query` is NaN with one query, and `run` and `rest` are NaN with one run or one query.
    seed_sd : float
        Standard deviation over runs of the mean score on *these* queries,
        sqrt(run + rest / queries) unless truncated; NaN with one run.
    truncated : tuple of str
        Components whose estimate was negative and is given as 0.
    """

    queries: int
    runs: int
    query: float
    run: float
    rest: float
    seed_sd: float
    truncated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """Mean difference of two systems with queries and training runs random.

    Attributes
    ----------
    difference : float
        Mean of treatment - baseline, in units of the measure.
    low, high : float
        Ends of its confidence interval.
    p : float
        Two-sided p value, not corrected.
    error, df : float
        Standard error of the difference and the degrees of freedom of its t distribution.
    error_queries : float
        The standard error that a paired test over queries alone uses.
    runs : (int, int)
        Training runs of both sides; 0 for a side that is not trained.
    method : str
        What was done in the end: "anova", "reml" or "queries only".
    message : str
        Why it is not what was asked for, or on what it rests; "" if there is nothing to say.
    """

    difference: float
    low: float
    high: float
    p: float
    error: float
    df: float
    error_queries: float
    runs: tuple[int, int]
    method: str
    message: str = ""


def components(values: npt.ArrayLike) -> Components:
    """Variance components of one system, by the method of moments.

    Parameters
    ----------
    values : array_like, shape [n, S]
        Scores of n queries (rows) in S training runs (columns).

    Returns
    -------
    Components
        Negative estimates are set to 0 and named in `truncated`.

    Raises
    ------
    ValueError
        If the table is empty, not two-dimensional or not finite.

    Examples
    --------
    >>> round(components([[0.1, 0.2], [0.4, 0.5], [0.7, 0.8]]).query, 9)
    0.09
    """
    table = score_table(values, AXES)
    n, s = table.shape
    means = table.mean(axis=1)
    query = s * float(means.var(ddof=1)) if n > 1 else NAN
    query = 0.0 if query < TINY else query
    if s == 1:
        return Components(n, s, query, NAN, NAN, NAN)
    seed_sd = float(table.mean(axis=0).std(ddof=1))
    if n == 1:
        return Components(n, s, NAN, NAN, NAN, seed_sd)
    run, rest = map(float, Runs.of(table).squares)
    estimates = {"query": (query - rest) / s, "run": (run - rest) / n}
    return Components(
        queries=n,
        runs=s,
        query=max(0.0, estimates["query"]),
        run=max(0.0, estimates["run"]),
        rest=rest,
        seed_sd=seed_sd,
        truncated=tuple(name for name, value in estimates.items() if value < 0),
    )


def difference(
    treatment: npt.ArrayLike,
    baseline: npt.ArrayLike,
    *,
    trained: tuple[bool, bool] = (True, True),
    others: Sequence[npt.ArrayLike] = (),
    method: str = "anova",
    confidence: float = 0.95,
) -> Difference:
    """Difference of two systems with queries and training runs as random factors.

    Null hypothesis: over the populations of queries and of training runs, the mean difference is
    zero. The model adds to that of `components` a query x system interaction; runs belong to one
    system each (the same seed in two systems is not the same run), and all systems share the
    variances. So the standard error is sqrt(D / n + run · (1 / S_a + 1 / S_b)): D the variance
    over queries of the difference of means over runs, `run` the variance between runs pooled over
    both sides (and `others`), and the term of a side that is not trained left out.

    Parameters
    ----------
    treatment, baseline : array_like, shapes [n, S_a] and [n, S_b]
        Scores of the same n queries in the same order, a column per training run.
    trained : (bool, bool)
        False for a side that is not trained (a first stage): one column, and no variance of runs.
    others : sequence of array_like, shapes [n, S_i]
        Scores of further trained systems on these queries, from which the variance between runs is
        estimated too: a few runs on either side alone say little about it. Not for "reml".
    method : str
        "anova": mean squares, with Satterthwaite's (1946) degrees of freedom. "reml":
        `statsmodels.MixedLM` with the same random effects and those degrees of freedom (it has
        none of its own); equal on balanced data, and slow, since the covariance matrix of all
        n (S_a + S_b) scores is dense. Where it does not converge, "anova" is given, and `message`
        says so.
    confidence : float
        Coverage of the interval.

    Returns
    -------
    Difference
        Where no system has two runs, the variance between runs cannot be estimated: the paired
        t-test over queries is given, and `message` says that it is about these runs only. The same
        holds, without the message, where no side is trained. A variance between runs that is
        estimated negative counts as 0, which again gives the paired t-test.

    Raises
    ------
    ValueError
        If the queries of both sides differ in number, a value is not finite, a side that is not
        trained has several columns, or `method` is unknown or cannot use `others`.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of: {', '.join(METHODS)}")
    a, b = score_table(treatment, AXES), score_table(baseline, AXES)
    for side, random in ((a, trained[0]), (b, trained[1])):
        if not random and side.shape[1] > 1:
            raise ValueError("a side that is not trained must have one column")
    further = [score_table(other, AXES) for other in others]
    if any(len(table) != len(a) for table in further):
        raise ValueError("others must have the same queries")
    if further and method == "reml":
        raise ValueError("reml fits the two systems alone: leave out others")
    plain = _queries_only(a, b, trained, confidence)
    sides = [table for table, random in zip((a, b), trained, strict=True) if random]
    replicated = [table for table in (*sides, *further) if table.shape[1] > 1]
    if not any(trained) or not replicated or len(a) < 2:
        return plain
    mixed = _anova(a, b, trained, plain, Runs.pooled(replicated), confidence)
    if method == "reml":
        mixed = _reml(a, b, trained, mixed, confidence)
    if 1 in mixed.runs:
        message = "one training run on one side; other systems' variance between runs stands for it"
        mixed = replace(mixed, message="; ".join(filter(None, (message, mixed.message))))
    return mixed


def _queries_only(
    a: FloatArray, b: FloatArray, trained: tuple[bool, bool], confidence: float
) -> Difference:
    first, second = a.mean(axis=1), b.mean(axis=1)
    test = paired_t(first, second, confidence)
    error = float((first - second).std(ddof=1) / len(a) ** 0.5) if test.n > 1 else NAN
    return Difference(
        difference=test.difference,
        low=test.low,
        high=test.high,
        p=test.p,
        error=error,
        df=float(test.n - 1),
        error_queries=error,
        runs=(a.shape[1] if trained[0] else 0, b.shape[1] if trained[1] else 0),
        method="queries only",
        message="one training run: speaks about other queries, not about other runs"
        if any(trained)
        else "",
    )


def _anova(
    a: FloatArray,
    b: FloatArray,
    trained: tuple[bool, bool],
    plain: Difference,
    runs: Runs,
    confidence: float,
) -> Difference:
    n, shares = len(a), sum(1 / t.shape[1] for t, own in zip((a, b), trained, strict=True) if own)
    variance, df = counted_in(plain.error_queries**2, n - 1, runs, shares / n)
    between, rest = runs.squares
    if not between > rest:
        return replace(
            plain,
            method="anova",
            message="variance between runs estimated as 0 or less, taken as 0",
        )
    error = float(variance) ** 0.5
    return replace(_t(plain, error, float(df), confidence), method="anova", message="")


def _t(plain: Difference, error: float, df: float, confidence: float) -> Difference:
    low, high, p = map(float, t_of(plain.difference, error, df, confidence))
    return replace(plain, low=low, high=high, p=p, error=error, df=df)


def _reml(
    a: FloatArray, b: FloatArray, trained: tuple[bool, bool], moments: Difference, confidence: float
) -> Difference:
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    scores = np.concatenate([a.ravel(), b.ravel()])
    system = np.repeat([1.0, 0.0], [a.size, b.size])
    query = np.concatenate([np.repeat(np.arange(len(t)), t.shape[1]) for t in (a, b)])
    run = np.concatenate([np.tile(np.arange(t.shape[1]), len(t)) for t in (a, b)])
    run = run + (system == 0) * a.shape[1]
    # A side that is not trained has no run to vary: its column of the design is left out.
    varies = np.repeat(trained, (a.shape[1], b.shape[1]))
    effects = {
        "query": _indicators(query),
        "query x system": _indicators(2 * query + system.astype(int)),
        "run": _indicators(run)[:, varies],
    }
    design = VCSpec(
        list(effects),
        [[[f"{name} {i}" for i in range(m.shape[1])]] for name, m in effects.items()],
        [[m] for m in effects.values()],
    )
    exog = np.column_stack([np.ones_like(system), system])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in `converged` and in the components
        try:
            fit = MixedLM(scores, exog, np.zeros(len(scores)), exog_vc=design).fit(reml=True)
            error = float(fit.bse_fe[1])
            converged = bool(fit.converged) and np.isfinite(error) and error > 0
        except (np.linalg.LinAlgError, ValueError):
            converged = False
    if not converged:
        return replace(moments, message="the mixed model did not converge; mean squares instead")
    return replace(_t(moments, error, moments.df, confidence), method="reml", message="")


def _indicators(labels: npt.NDArray[np.int_]) -> FloatArray:
    return np.asarray(labels[:, None] == np.unique(labels)[None, :], dtype=np.float64)
