"""The label audit: what a teacher ranking is worth, before a student learns from it.

Data frames in, `rdx.facts.Audit` out. A list is usable if its state is "ok" or "repaired"; the
others have the order of the first stage and no label.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import ir_measures
import numpy as np
import pandas as pd
import scipy  # its parts load when used; scipy.stats takes half a second

from rdx.facts import (
    Agreement,
    Audit,
    Bias,
    Effectiveness,
    LabelEffectiveness,
    Moves,
    PositionBias,
    Slope,
    States,
    Windows,
    shallow,
)
from rdx.rankings import STATES, USABLE
from rdx.text import counted

P = 0.9  # of RBO: the first ten ranks have 86 % of the weight
NDCG = ir_measures.nDCG @ 10
JUDGED = ir_measures.Judged @ 10

# Beyond these the summary has a remark. None of them is a test of significance.
MANY_UNUSABLE = 0.05
MOSTLY_UNCHANGED = 0.5
STRONG_BIAS = 0.1
FEW_JUDGED = 0.6


def audit(
    teacher_ranking: pd.DataFrame,
    candidates: pd.DataFrame,
    windows: pd.DataFrame | None = None,
    qrels: pd.DataFrame | None = None,
    other: pd.DataFrame | None = None,
) -> Audit:
    """Audit a teacher ranking.

    Parameters
    ----------
    teacher_ranking
        [query_id, doc_id, teacher_rank, state] of exactly the candidates.
    candidates
        What the teacher ranked [query_id, doc_id, rank].
    windows
        What was asked, one row per window [query_id, shuffle, pass, start, end, state, tries,
        words, shown, given]: `tries` answers were asked for, the last is in `state`; `words` were
        kept of a passage; `shown` are the doc ids in the order of the prompt, `given` in the order
        of the answer. It may have [shortened, estimated, lost, thinking]: whether passages were
        shortened to fit, tokens that are estimated, of tries in vain, and of thoughts. None for a
        teacher without windows.
    qrels
        Judgements [query_id, doc_id, relevance]; None if there are none.
    other
        Another teacher ranking of the same candidates.

    Returns
    -------
    Audit
        docs/teachers.md explains each number.

    Raises
    ------
    ValueError
        If the teacher ranking does not hold exactly the candidates.
    """
    lists = _joined(teacher_ranking, candidates)
    if windows is not None and windows.empty:
        windows = None
    if qrels is not None and not qrels.query_id.isin(lists.query_id.unique()).any():
        qrels = None
    states = lists.groupby("query_id", sort=False).state.first()
    return Audit(
        lists=_states(states),
        moves=_moves(_usable(lists)),
        windows=None if windows is None else _windows(windows),
        position_bias=None if windows is None else _position_bias(windows, candidates),
        effectiveness=None if qrels is None else _effectiveness(lists, qrels),
        agreement=None if other is None else _agreement(_usable(lists), _usable(other)),
    )


def rbo(ranking: Sequence[Hashable], other: Sequence[Hashable], p: float = P) -> float:
    """Rank-biased overlap, extrapolated beyond the end of the rankings (RBO_ext).

    Webber, Moffat and Zobel: A similarity measure for indefinite rankings. TOIS 28(4), 2010,
    equation 32 (equation 23 if both are equally long). With X_d items shared by the first d of
    both, the mean of X_d / d weighted by p^(d-1), as if the agreement at the end went on.

    Parameters
    ----------
    ranking, other
        Items, best first, without repetition; they may differ in length and content.
    p
        Persistence in (0, 1): the smaller, the more the top counts.

    Returns
    -------
    float
        0 (nothing shared) to 1 (the same, or one a prefix of the other).

    Examples
    --------
    >>> rbo("ab", "ba", 0.5)
    0.5
    """
    if not 0 < p < 1:
        raise ValueError(f"p={p}: must be between 0 and 1")
    short, long = sorted((ranking, other), key=len)
    s, n = len(short), len(long)
    if not s:
        raise ValueError("an empty ranking")
    if len(set(short)) < s or len(set(long)) < n:
        raise ValueError("a ranking names an item twice")
    place = {item: i for i, item in enumerate(long)}
    # an item counts from the depth on at which both rankings have shown it
    met = np.array([max(i, place[item]) for i, item in enumerate(short) if item in place], int)
    shared = np.cumsum(np.bincount(met, minlength=n))
    depth = np.arange(1, n + 1)
    agreement = shared / depth
    # beyond its end the short ranking is taken to go on as it agreed at its end
    agreement[s:] += shared[s - 1] * (depth[s:] - s) / (s * depth[s:])
    weight = p**depth
    return float((1 - p) / p * (agreement @ weight) + agreement[-1] * weight[-1])


def remarks(audit: Audit) -> list[str]:
    """What somebody who trains on these labels should know first; empty if nothing stands out."""
    lists, unchanged, bias = audit.lists, audit.moves.unchanged, audit.position_bias
    texts = []
    if lists.left_out > MANY_UNUSABLE * lists.total:
        texts.append(f"{lists.left_out:,} of {lists.total:,} lists have no label")
    if unchanged is not None and unchanged > MOSTLY_UNCHANGED:
        texts.append(f"{unchanged:.0%} of the lists came back as they were given")
    if bias and bias.shuffled and _strong(bias.shuffled.slope):
        end = "first" if bias.shuffled.slope.mean > 0 else "last"
        texts.append(f"of passages in random order, those shown {end} are ranked higher")
    if audit.effectiveness and audit.effectiveness.usable:
        usable = audit.effectiveness.usable
        if usable.teacher < usable.input:
            texts.append("by the judgements the teacher is worse than its input")
        if usable.judged_at_10 < FEW_JUDGED:
            texts.append(
                f"only {usable.judged_at_10:.0%} of the teacher's first ten are judged: "
                "its nDCG@10 is a lower bound"
            )
    return texts


def _strong(slope: Slope) -> bool:
    """Whether a slope is large and its interval excludes 0."""
    if slope.low is None or slope.high is None:
        return False
    return (slope.low > 0 or slope.high < 0) and abs(slope.mean) > STRONG_BIAS


def summary(audit: Audit) -> str:
    """The audit as plain text, one line per aspect."""
    lines = [("Lists", f"{_shares(audit.lists)}; {audit.lists.left_out:,} left out")]
    if audit.moves.lists:
        lines.append(("Moves", _moves_text(audit.moves)))
    if audit.windows:
        lines.append(("Windows", _windows_text(audit.windows)))
    if audit.position_bias:
        for bias, order in (
            (audit.position_bias.shuffled, "shown at random"),
            (audit.position_bias.all, "as shown"),
        ):
            if bias:
                lines.append(("Position bias", f"{order}: {_bias_text(bias)}"))
    if audit.effectiveness:
        usable, every = audit.effectiveness.usable, audit.effectiveness.all
        if usable:
            lines.append(("nDCG@10", _effectiveness_text(usable, "usable lists")))
        if every and audit.lists.left_out:
            lines.append(("nDCG@10", _effectiveness_text(every, "all lists, failed as given")))
    if audit.agreement:
        lines.append(("Other teacher", _agreement_text(audit.agreement)))
    lines += [("Remark", text) for text in remarks(audit)]
    return "\n".join(f"{label:<15}{text}" for label, text in lines)


def _shares(states: States) -> str:
    shares = [f"{states.shares[name]:.1%} {name}" for name, n in states.counts.items() if n]
    return f"{states.total:,}: " + (", ".join(shares) or "none")


def _moves_text(moves: Moves) -> str:
    return (
        f"a passage moves {moves.shift:.1f} places (at random: {moves.shift_at_random:.1f}); "
        f"with the input: Kendall tau {_number(moves.kendall_tau)}, RBO {moves.rbo:.3f}; "
        f"{moves.unchanged:.1%} of the lists unchanged"
    )


def _windows_text(windows: Windows) -> str:
    words = ", ".join(f"{words} ({n:,})" for words, n in windows.words.items())
    more = (
        (windows.shortened, "with shortened passages"),
        (windows.estimated_tokens, "tokens are estimated"),
        (windows.lost_tokens, "tokens of tries that failed"),
        (windows.thinking_tokens, "tokens of thoughts"),
    )
    return (
        f"{_shares(windows)}; {counted(windows.answers, 'answer')}, "
        f"{windows.asked_again:.1%} of the windows asked again; words of a passage: {words}"
        + "".join(f"; {n:,} {what}" for n, what in more if n)
    )


def _bias_text(bias: Bias) -> str:
    slope = bias.slope
    interval = "" if slope.low is None else f" [{slope.low:.3f}, {slope.high:.3f}]"
    return (
        f"slope {slope.mean:.3f}{interval} over {counted(slope.queries, 'query')}; of {bias.size} "
        f"passages the first comes out at {bias.mean_rank[0]:.1f}, the last at "
        f"{bias.mean_rank[-1]:.1f}"
    )


def _effectiveness_text(values: Effectiveness, lists: str) -> str:
    return (
        f"teacher {values.teacher:.4f}, input {values.input:.4f}, oracle {values.oracle:.4f} "
        f"({lists}, {counted(values.queries, 'query')}; Judged@10 {values.judged_at_10:.2f})"
    )


def _agreement_text(agreement: Agreement) -> str:
    if not agreement.lists:
        return "no list that both rank"
    return (
        f"RBO {agreement.rbo:.3f}, Kendall tau {_number(agreement.kendall_tau)} "
        f"({counted(agreement.lists, 'list')}, {agreement.shared:.0%} of their passages shared)"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _joined(teacher_ranking: pd.DataFrame, candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates with teacher rank, place (ties share their mean place) and state."""
    lists = candidates[["query_id", "doc_id", "rank"]].merge(
        teacher_ranking[["query_id", "doc_id", "teacher_rank", "state"]],
        on=["query_id", "doc_id"],
        how="left",
        validate="one_to_one",
    )
    if len(teacher_ranking) != len(lists) or lists.teacher_rank.isna().any():
        raise ValueError("the teacher ranking does not hold exactly the candidates")
    return lists.assign(place=lists.groupby("query_id").teacher_rank.rank("average"))


def _usable(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.state.isin(USABLE)] if "state" in frame else frame


def _states(states: pd.Series) -> States:
    """How many have each state; all states are named, in a fixed order."""
    counts = {state: int((states == state).sum()) for state in STATES}
    return States(
        total=len(states),
        counts=counts,
        shares={state: n / max(len(states), 1) for state, n in counts.items()},
        left_out=len(states) - sum(counts[state] for state in USABLE),
    )


def _moves(lists: pd.DataFrame) -> Moves:
    """How far the teacher moves passages; lists of one passage have nowhere to move them."""
    rows = []
    for place, teacher_rank, rank in _each(lists, ["place", "teacher_rank", "rank"]):
        n = len(rank)
        if n > 1:
            by_teacher, by_input = _order(teacher_rank, rank), _order(rank)
            rows.append(
                {
                    # candidates may be a part of the first stage's list: places, not ranks
                    "shift": np.abs(place - np.argsort(by_input) - 1).mean(),
                    # the mean of |i - j| over all pairs of places
                    "shift_at_random": (n * n - 1) / (3 * n),
                    "kendall_tau": _tau(teacher_rank, rank),
                    "rbo": rbo(by_teacher, by_input),
                    "unchanged": by_teacher == by_input and len(set(place)) == n,
                }
            )
    names = ("shift", "shift_at_random", "kendall_tau", "rbo", "unchanged")
    return Moves(lists=len(rows), **_mean_of_each(rows, names))


def _windows(windows: pd.DataFrame) -> Windows:
    words = windows.words.value_counts().sort_index(ascending=False)
    return Windows(
        **shallow(_states(windows.state)),
        answers=int(windows.tries.sum()),
        asked_again=float((windows.tries > 1).mean()),
        words={str(length): int(n) for length, n in words.items()},
        shortened=_total(windows, "shortened"),
        estimated_tokens=_total(windows, "estimated"),
        lost_tokens=_total(windows, "lost"),
        thinking_tokens=_total(windows, "thinking"),
    )


def _total(windows: pd.DataFrame, column: str) -> int:
    """Sum of a column; 0 without it, as in tables of earlier versions."""
    return int(windows[column].sum()) if column in windows else 0


def _position_bias(windows: pd.DataFrame, candidates: pd.DataFrame) -> PositionBias:
    """Where the passages at each position of a window end up.

    "all" is confounded: what is shown first was ranked first, by the first stage or by the window
    before, and deserves it. "shuffled" is not: the first window of a list in random order.
    """
    lists = ["query_id", "shuffle"]
    first = windows[
        (windows["pass"] == 0) & (windows.end == windows.groupby(lists).end.transform("max"))
    ]
    ranks = candidates.set_index(["query_id", "doc_id"])["rank"].to_dict()
    # The first input order of a list may be the first stage's, of all lists or of none.
    plain = first[first.shuffle == 0]
    sorted_lists = [
        np.all(np.diff([ranks[query_id, doc_id] for doc_id in shown]) > 0)
        for query_id, shown in zip(plain.query_id, plain.shown, strict=True)
    ]
    shuffled = first if not all(sorted_lists) else first[first.shuffle > 0]
    return PositionBias(all=_bias(windows), shuffled=_bias(shuffled))


def _bias(windows: pd.DataFrame) -> Bias | None:
    """Mean rank in the answer by position in the prompt, and its slope."""
    usable = _usable(windows)
    usable = usable[usable.shown.map(len) > 1]
    if usable.empty:
        return None
    ranks = [
        _answered(shown, answer) for shown, answer in zip(usable.shown, usable.given, strict=True)
    ]
    sizes = [len(window) for window in ranks]
    size = max(set(sizes), key=lambda n: (sizes.count(n), n))
    mean_rank = np.mean([window for window in ranks if len(window) == size], axis=0)
    slopes = pd.Series([_slope(window) for window in ranks])
    return Bias(
        windows=len(ranks),
        size=size,  # the most frequent one, which these are the positions of
        mean_rank=tuple(mean_rank.tolist()),
        excess=tuple((mean_rank - (size + 1) / 2).tolist()),
        slope=_interval(slopes.groupby(usable.query_id.to_numpy()).mean().to_numpy()),
    )


def _answered(shown: Sequence[Hashable], answer: Sequence[Hashable]) -> np.ndarray:
    """[size] rank in the answer of the passage at each position of the prompt."""
    place = {doc_id: rank for rank, doc_id in enumerate(answer, start=1)}
    return np.array([place[doc_id] for doc_id in shown])


def _slope(ranks: np.ndarray) -> float:
    """Slope of rank on position: 0 they have nothing to do with each other, 1 the order is kept.

    Both are permutations of the same numbers, so that this is Spearman's correlation too.
    """
    centred = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    return float(centred @ ranks / (centred @ centred))


def _interval(values: np.ndarray) -> Slope:
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Slope(mean=mean, low=None, high=None, queries=n)
    half = float(scipy.special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return Slope(mean=mean, low=mean - half, high=mean + half, queries=n)


def _effectiveness(lists: pd.DataFrame, qrels: pd.DataFrame) -> LabelEffectiveness:
    """Means over the judged queries, of teacher, input and oracle.

    "usable": of usable lists only; "all": of all lists, the others in the order of the input.
    """
    judged = qrels[qrels.query_id.isin(lists.query_id.unique())].astype({"relevance": int})
    as_given = lists.teacher_rank.where(lists.state.isin(USABLE), lists["rank"])
    usable = _usable(lists)
    all_lists = _measured(lists.assign(teacher_rank=as_given), judged)
    if len(usable) == len(lists):
        return LabelEffectiveness(measure=str(NDCG), usable=all_lists, all=all_lists)
    some = _measured(usable, judged[judged.query_id.isin(usable.query_id.unique())])
    return LabelEffectiveness(measure=str(NDCG), usable=some, all=all_lists)


def _measured(lists: pd.DataFrame, qrels: pd.DataFrame) -> Effectiveness | None:
    if qrels.empty:
        return None
    grades = lists.merge(qrels, on=["query_id", "doc_id"], how="left").relevance.fillna(0)
    graded = lists.assign(worst_first=-grades.to_numpy())
    queries = len(qrels.query_id.unique())
    ndcg, judged = _means(graded, ["teacher_rank", "rank"], qrels, queries)
    return Effectiveness(
        queries=queries,
        teacher=ndcg,
        input=_means(graded, ["rank"], qrels, queries)[0],
        oracle=_means(graded, ["worst_first", "rank"], qrels, queries)[0],
        judged_at_10=judged,
    )


def _means(
    lists: pd.DataFrame, by: list[str], qrels: pd.DataFrame, queries: int
) -> tuple[float, float]:
    """Mean nDCG@10 and Judged@10 of the ranking that sorts the lists by some columns."""
    order = lists.sort_values(by, kind="stable")
    # Distinct scores: ir_measures' providers break ties differently. No measure looks below 10.
    score = -order.groupby("query_id").cumcount().astype("float64")
    run = order[["query_id", "doc_id"]].assign(score=score)[score > -10]
    totals = dict.fromkeys((NDCG, JUDGED), 0.0)
    for value in ir_measures.iter_calc([NDCG, JUDGED], qrels, run):
        totals[value.measure] += float(value.value)
    return totals[NDCG] / queries, totals[JUDGED] / queries


def _agreement(lists: pd.DataFrame, other: pd.DataFrame) -> Agreement:
    """RBO and Kendall's tau-b with another teacher, of the candidates that both rank."""
    theirs = other[["query_id", "doc_id", "teacher_rank"]].rename(
        columns={"teacher_rank": "theirs"}
    )
    both = lists.merge(theirs, on=["query_id", "doc_id"], how="left", validate="one_to_one")
    rows = []
    for ours, rank, theirs in _each(both, ["teacher_rank", "rank", "theirs"]):
        shared = np.flatnonzero(~np.isnan(theirs))
        if len(shared) > 1:
            by_other = shared[_order(theirs[shared], rank[shared])].tolist()
            rows.append(
                {
                    "rbo": rbo(_order(ours, rank), by_other),
                    "kendall_tau": _tau(ours[shared], theirs[shared]),
                    "shared": len(shared) / len(rank),
                }
            )
    means = _mean_of_each(rows, ("rbo", "kendall_tau", "shared"))
    return Agreement(lists=len(rows), p=P, **means)


def _each(lists: pd.DataFrame, columns: list[str]) -> Iterator[list[np.ndarray]]:
    """Columns of each list, as arrays: a data frame per list would take minutes."""
    values = [lists[name].to_numpy() for name in columns]
    for rows in lists.groupby("query_id").indices.values():
        yield [column[rows] for column in values]


def _order(*by: np.ndarray) -> list[int]:
    """Positions in the order of the first array, ties in that of the next."""
    order: list[int] = np.lexsort(by[::-1]).tolist()
    return order


def _tau(ranks: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau-b; NaN if one of the two ties all."""
    return float(scipy.stats.kendalltau(ranks, other).statistic)


def _mean_of_each(
    rows: Sequence[Mapping[str, float]], names: Iterable[str]
) -> dict[str, float | None]:
    """Mean of each name over the rows that have a value; None if no row has."""
    means: dict[str, float | None] = {}
    for name in names:
        known = [float(row[name]) for row in rows if not np.isnan(row[name])]
        means[name] = sum(known) / len(known) if known else None
    return means
