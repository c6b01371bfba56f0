"""The label audit: what a teacher ranking is worth, before a student learns from it.

Data frames in, plain numbers out; None where there is nothing to say. A list is usable if its
state is "ok" or "repaired"; the others have the order of the first stage and no label.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import scipy  # its parts load when used; scipy.stats takes half a second

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
    taught: pd.DataFrame,
    candidates: pd.DataFrame,
    windows: pd.DataFrame | None = None,
    qrels: pd.DataFrame | None = None,
    other: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Audit a teacher ranking.

    Parameters
    ----------
    taught
        Teacher ranking [query_id, doc_id, teacher_rank, state] of exactly the candidates.
    candidates
        What the teacher was given [query_id, doc_id, rank].
    windows
        What was asked, one row per window [query_id, shuffle, pass, start, end, state, tries,
        words, shown, given]: `tries` answers were asked for, the last is in `state`; `words` were
        kept of a passage; `shown` are the doc ids in the order of the prompt, `given` in the order
        of the answer. None for a teacher without windows.
    qrels
        Judgements [query_id, doc_id, relevance]; None if there are none.
    other
        Another teacher ranking of the same candidates.

    Returns
    -------
    dict
        "lists", "moves", and where there is something to measure "windows", "position_bias",
        "effectiveness", "agreement"; to be written as JSON. docs/teachers.md explains each number.

    Raises
    ------
    ValueError
        If the teacher ranking does not hold exactly the candidates.
    """
    lists = _joined(taught, candidates)
    found: dict[str, Any] = {"lists": _states(lists.groupby("query_id", sort=False).state.first())}
    found["moves"] = _moves(_usable(lists))
    if windows is not None and len(windows):
        found["windows"] = _windows(windows)
        found["position_bias"] = _position_bias(windows, candidates)
    if qrels is not None and qrels.query_id.isin(lists.query_id.unique()).any():
        found["effectiveness"] = _effectiveness(lists, qrels)
    if other is not None:
        found["agreement"] = _agreement(_usable(lists), _usable(other))
    return found


def rbo(one: Sequence[Hashable], other: Sequence[Hashable], p: float = P) -> float:
    """Rank-biased overlap, extrapolated beyond the end of the rankings (RBO_ext).

    Webber, Moffat and Zobel: A similarity measure for indefinite rankings. TOIS 28(4), 2010,
    equation 32 (equation 23 if both are equally long). With X_d items shared by the first d of
    both, the mean of X_d / d weighted by p^(d-1), as if the agreement at the end went on.

    Parameters
    ----------
    one, other
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
    short, long = sorted((one, other), key=len)
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


def remarks(found: dict[str, Any]) -> list[str]:
    """What somebody who trains on these labels should know first; empty if nothing stands out."""
    lists, moves = found["lists"], found["moves"]
    bias = found.get("position_bias", {}).get("shuffled")
    measured = found.get("effectiveness", {}).get("usable")
    said = []
    if lists["left_out"] > MANY_UNUSABLE * lists["total"]:
        said.append(f"{lists['left_out']:,} of {lists['total']:,} lists have no label")
    if moves["lists"] and moves["unchanged"] > MOSTLY_UNCHANGED:
        said.append(f"{moves['unchanged']:.0%} of the lists came back as they were given")
    if bias and bias["slope"]["low"] is not None:
        slope = bias["slope"]
        excludes_zero = slope["low"] > 0 or slope["high"] < 0
        if excludes_zero and abs(slope["mean"]) > STRONG_BIAS:
            end = "first" if slope["mean"] > 0 else "last"
            said.append(f"of passages in random order, those shown {end} are ranked higher")
    if measured:
        if measured["teacher"] < measured["input"]:
            said.append("by the judgements the teacher is worse than its input")
        if measured["judged_at_10"] < FEW_JUDGED:
            said.append(
                f"only {measured['judged_at_10']:.0%} of the teacher's first ten are judged: "
                "its nDCG@10 is a lower bound"
            )
    return said


def summary(found: dict[str, Any]) -> str:
    """The audit as plain text, one line per aspect."""
    lines = [("Lists", _counts(found["lists"]) + f"; {found['lists']['left_out']:,} left out")]
    moves = found["moves"]
    if moves["lists"]:
        lines.append(
            (
                "Moves",
                f"a passage moves {moves['shift']:.1f} places (at random: "
                f"{moves['shift_at_random']:.1f}); with the input: Kendall tau "
                f"{_number(moves['kendall_tau'])}, RBO {moves['rbo']:.3f}; "
                f"{moves['unchanged']:.1%} of the lists unchanged",
            )
        )
    if "windows" in found:
        windows = found["windows"]
        lines.append(
            (
                "Windows",
                f"{_counts(windows)}; {counted(windows['answers'], 'answer')}, "
                f"{windows['asked_again']:.1%} of the windows asked again; words of a passage: "
                + ", ".join(f"{words} ({n:,})" for words, n in windows["words"].items()),
            )
        )
        bias = found["position_bias"]
        for name, said in (("shuffled", "shown at random"), ("all", "as shown")):
            if bias[name]:
                lines.append(("Position bias", f"{said}: {_slope_text(bias[name])}"))
    for name, said in (("usable", "usable lists"), ("all", "all lists, failed as given")):
        one = found.get("effectiveness", {}).get(name)
        if one and (name == "usable" or found["lists"]["left_out"]):
            lines.append(
                (
                    "nDCG@10",
                    f"teacher {one['teacher']:.4f}, input {one['input']:.4f}, oracle "
                    f"{one['oracle']:.4f} ({said}, {counted(one['queries'], 'query')}; "
                    f"Judged@10 {one['judged_at_10']:.2f})",
                )
            )
    if "agreement" in found:
        one = found["agreement"]
        text = "no list that both rank"
        if one["lists"]:
            text = (
                f"RBO {one['rbo']:.3f}, Kendall tau {_number(one['kendall_tau'])} "
                f"({counted(one['lists'], 'list')}, {one['shared']:.0%} of their passages shared)"
            )
        lines.append(("Other teacher", text))
    lines += [("Remark", text) for text in remarks(found)]
    return "\n".join(f"{name:<15}{text}" for name, text in lines)


def _joined(taught: pd.DataFrame, candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates with teacher rank, place (ties share their mean place) and state."""
    lists = candidates[["query_id", "doc_id", "rank"]].merge(
        taught[["query_id", "doc_id", "teacher_rank", "state"]],
        on=["query_id", "doc_id"],
        how="left",
        validate="one_to_one",
    )
    if len(taught) != len(lists) or lists.teacher_rank.isna().any():
        raise ValueError("the teacher ranking does not hold exactly the candidates")
    return lists.assign(place=lists.groupby("query_id").teacher_rank.rank("average"))


def _usable(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.state.isin(USABLE)] if "state" in frame else frame


def _states(states: pd.Series) -> dict[str, Any]:
    """How many have each state; all states are named, in a fixed order."""
    counts = {state: int((states == state).sum()) for state in STATES}
    kept = sum(counts[state] for state in USABLE)
    return {
        "total": len(states),
        "counts": counts,
        "shares": {state: n / max(len(states), 1) for state, n in counts.items()},
        "left_out": len(states) - kept,
    }


def _moves(lists: pd.DataFrame) -> dict[str, Any]:
    """How far the teacher moves passages; lists of one passage have nowhere to move them."""
    rows = []
    for one in _each(lists, ["place", "teacher_rank", "rank"]):
        n = len(one["rank"])
        if n > 1:
            by_teacher, by_input = _order(one["teacher_rank"], one["rank"]), _order(one["rank"])
            rows.append(
                {
                    # candidates may be a part of the first stage's list: places, not ranks
                    "shift": np.abs(one["place"] - np.argsort(by_input) - 1).mean(),
                    # the mean of |i - j| over all pairs of places
                    "shift_at_random": (n * n - 1) / (3 * n),
                    "kendall_tau": _tau(one["teacher_rank"], one["rank"]),
                    "rbo": rbo(by_teacher, by_input),
                    "unchanged": by_teacher == by_input and len(set(one["place"])) == n,
                }
            )
    names = ("shift", "shift_at_random", "kendall_tau", "rbo", "unchanged")
    return {"lists": len(rows), **{name: _mean(row[name] for row in rows) for name in names}}


def _windows(windows: pd.DataFrame) -> dict[str, Any]:
    return {
        **_states(windows.state),
        "answers": int(windows.tries.sum()),
        "asked_again": float((windows.tries > 1).mean()),
        "words": {
            str(words): int(n)
            for words, n in windows.words.value_counts().sort_index(ascending=False).items()
        },
    }


def _position_bias(windows: pd.DataFrame, candidates: pd.DataFrame) -> dict[str, Any]:
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
    return {"all": _bias(windows), "shuffled": _bias(shuffled)}


def _bias(windows: pd.DataFrame) -> dict[str, Any] | None:
    """Mean rank in the answer by position in the prompt, and its slope."""
    usable = _usable(windows)
    usable = usable[usable.shown.map(len) > 1]
    if usable.empty:
        return None
    answered = [
        _answered(shown, given) for shown, given in zip(usable.shown, usable.given, strict=True)
    ]
    sizes = [len(one) for one in answered]
    size = max(set(sizes), key=lambda n: (sizes.count(n), n))
    mean_rank = np.mean([one for one in answered if len(one) == size], axis=0)
    slopes = pd.Series([_slope(one) for one in answered]).groupby(usable.query_id.to_numpy()).mean()
    return {
        "windows": len(answered),
        "size": size,  # the most frequent one, which these are the positions of
        "mean_rank": [float(value) for value in mean_rank],
        "excess": [float(value) for value in mean_rank - (size + 1) / 2],
        "slope": _interval(slopes.to_numpy()),
    }


def _answered(shown: Sequence[Hashable], given: Sequence[Hashable]) -> np.ndarray:
    """[size] rank in the answer of the passage at each position of the prompt."""
    place = {doc_id: rank for rank, doc_id in enumerate(given, start=1)}
    return np.array([place[doc_id] for doc_id in shown])


def _slope(ranks: np.ndarray) -> float:
    """Slope of rank on position: 0 they have nothing to do with each other, 1 the order is kept.

    Both are permutations of the same numbers, so that this is Spearman's correlation too.
    """
    centred = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    return float(centred @ ranks / (centred @ centred))


def _interval(values: np.ndarray) -> dict[str, Any]:
    """Mean over queries and its 95 % t interval; a single query has none."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "queries": n}
    half = float(scipy.special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "queries": n}


def _effectiveness(lists: pd.DataFrame, qrels: pd.DataFrame) -> dict[str, Any]:
    """Means over the judged queries, of teacher, input and oracle.

    "usable": of usable lists only; "all": of all lists, the others in the order of the input.
    """
    judged = qrels[qrels.query_id.isin(lists.query_id.unique())].astype({"relevance": int})
    as_given = lists.teacher_rank.where(lists.state.isin(USABLE), lists["rank"])
    usable = _usable(lists)
    all_lists = _measured(lists.assign(teacher_rank=as_given), judged)
    if len(usable) == len(lists):
        return {"measure": str(NDCG), "usable": all_lists, "all": all_lists}
    some = _measured(usable, judged[judged.query_id.isin(usable.query_id.unique())])
    return {"measure": str(NDCG), "usable": some, "all": all_lists}


def _measured(lists: pd.DataFrame, qrels: pd.DataFrame) -> dict[str, Any] | None:
    if qrels.empty:
        return None
    grades = lists.merge(qrels, on=["query_id", "doc_id"], how="left").relevance.fillna(0)
    graded = lists.assign(worst_first=-grades.to_numpy())
    queries = list(dict.fromkeys(qrels.query_id))
    teacher = _means(graded, ["teacher_rank", "rank"], qrels, queries)
    return {
        "queries": len(queries),
        "teacher": teacher[NDCG],
        "input": _means(graded, ["rank"], qrels, queries)[NDCG],
        "oracle": _means(graded, ["worst_first", "rank"], qrels, queries)[NDCG],
        "judged_at_10": teacher[JUDGED],
    }


def _means(
    lists: pd.DataFrame, by: list[str], qrels: pd.DataFrame, queries: list[str]
) -> dict[Any, float]:
    """Means over queries of the ranking that sorts the lists by some columns."""
    order = lists.sort_values(by, kind="stable")
    # Distinct scores: ir_measures' providers break ties differently. No measure looks below 10.
    score = -order.groupby("query_id").cumcount().astype("float64")
    run = order[["query_id", "doc_id"]].assign(score=score)[score > -10]
    totals = dict.fromkeys((NDCG, JUDGED), 0.0)
    for one in ir_measures.iter_calc([NDCG, JUDGED], qrels, run):
        totals[one.measure] += float(one.value)
    return {measure: total / len(queries) for measure, total in totals.items()}


def _agreement(lists: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """RBO and Kendall's tau-b with another teacher, of the candidates that both rank."""
    theirs = other[["query_id", "doc_id", "teacher_rank"]].rename(
        columns={"teacher_rank": "theirs"}
    )
    both = lists.merge(theirs, on=["query_id", "doc_id"], how="left", validate="one_to_one")
    rows = []
    for one in _each(both, ["teacher_rank", "rank", "theirs"]):
        shared = np.flatnonzero(~np.isnan(one["theirs"]))
        if len(shared) > 1:
            ranks, theirs = one["rank"][shared], one["theirs"][shared]
            by_other = shared[_order(theirs, ranks)].tolist()
            rows.append(
                {
                    "rbo": rbo(_order(one["teacher_rank"], one["rank"]), by_other),
                    "kendall_tau": _tau(one["teacher_rank"][shared], theirs),
                    "shared": len(shared) / len(one["rank"]),
                }
            )
    names = ("rbo", "kendall_tau", "shared")
    return {"lists": len(rows), "p": P, **{name: _mean(r[name] for r in rows) for name in names}}


def _each(lists: pd.DataFrame, columns: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """Columns of each list, as arrays: a data frame per list would take minutes."""
    values = {name: lists[name].to_numpy() for name in columns}
    for rows in lists.groupby("query_id").indices.values():
        yield {name: column[rows] for name, column in values.items()}


def _order(*by: np.ndarray) -> list[int]:
    """Positions in the order of the first array, ties in that of the next."""
    order: list[int] = np.lexsort(by[::-1]).tolist()
    return order


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau-b; NaN if one of the two ties all."""
    return float(scipy.stats.kendalltau(one, other).statistic)


def _mean(values: Iterable[float]) -> float | None:
    """Mean of what is not NaN; None if nothing is."""
    known = [float(value) for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else None


def _counts(states: dict[str, Any]) -> str:
    shares = [f"{states['shares'][s]:.1%} {s}" for s, n in states["counts"].items() if n]
    return f"{states['total']:,}: " + (", ".join(shares) or "none")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _slope_text(bias: dict[str, Any]) -> str:
    slope = bias["slope"]
    interval = "" if slope["low"] is None else f" [{slope['low']:.3f}, {slope['high']:.3f}]"
    first, last = bias["mean_rank"][0], bias["mean_rank"][-1]
    return (
        f"slope {slope['mean']:.3f}{interval} over {counted(slope['queries'], 'query')}; of "
        f"{bias['size']} passages the first comes out at {first:.1f}, the last at {last:.1f}"
    )
