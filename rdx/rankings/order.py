"""Sort rows within queries and find repeated ones: quick for most files, exact for all."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# The odd number nearest 2^64 over the golden ratio (Knuth 1973, section 6.4)
_ODD = np.uint64(0x9E3779B97F4A7C15)


def order_within(key: np.ndarray, starts: np.ndarray, docs: pa.ChunkedArray) -> np.ndarray | None:
    """Rows by query, key ascending, doc id descending; None if they are in that order.

    Most files are in order but for a few ties, so only what is out of place is sorted.

    Parameters
    ----------
    key
        [rows].
    starts
        Row at which each query starts, then the number of rows.
    docs
        [rows].
    """
    # edge i lies between the rows i and i + 1
    within = np.ones(max(len(key) - 1, 0), bool)
    within[starts[1:-1] - 1] = False
    tied = (key[1:] == key[:-1]) & within
    falling = np.append((key[1:] < key[:-1]) & within, False)
    if not (tied.any() or falling.any()):
        return None
    # a query that is out of order is one group; of the others, each stretch of ties
    disordered = np.logical_or.reduceat(falling, starts[:-1])
    loose = tied | (np.repeat(disordered, np.diff(starts))[:-1] & within)
    group = np.concatenate(([0], np.cumsum(~loose)))
    rows = np.flatnonzero(np.append(loose, False) | np.insert(loose, 0, False))
    part = pa.table({"group": group[rows], "key": key[rows], "doc": docs.take(rows)})
    keys = [("group", "ascending"), ("key", "ascending"), ("doc", "descending")]
    order = np.arange(len(key))
    order[rows] = rows[pc.sort_indices(part, sort_keys=keys).to_numpy()]
    return order


def misordered(ranks: np.ndarray, scores: np.ndarray, starts: np.ndarray) -> int:
    """How many queries have a passage whose rank is better than that of one with a higher score.

    Equal scores contradict no ranks, nor do equal ranks.

    Parameters
    ----------
    ranks, scores
        [rows].
    starts
        Row at which each query starts, then the number of rows.
    """
    rising = ranks[1:] > ranks[:-1]
    rising[starts[1:-1] - 1] = True  # from one query to the next
    if not rising.all():
        # by query, rank, score from high to low: what is next is the best of all that come later
        query = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.lexsort((-scores, ranks, query))
        ranks, scores = ranks[order], scores[order]
    wrong = np.append((scores[1:] > scores[:-1]) & (ranks[1:] != ranks[:-1]), False)
    wrong[starts[1:] - 1] = False
    return int(np.logical_or.reduceat(wrong, starts[:-1]).sum()) if len(wrong) else 0


def may_repeat(starts: np.ndarray, docs: pa.Array) -> bool:
    """Whether a query may have a doc id twice; False is certain, True is not.

    Compares 64-bit hashes, which takes a fraction of the time of comparing strings.

    Parameters
    ----------
    starts
        Row at which each query starts, then the number of rows.
    docs
        [rows], strings with 64-bit offsets.
    """
    hashes = _hashes(docs)
    lengths = np.diff(starts)
    queries, longest = len(lengths), int(lengths.max(initial=0))
    if queries * longest > 2 * len(hashes):
        # a few long lists among short ones: one sort of all
        mixed = np.sort(hashes + np.repeat(np.arange(queries, dtype=np.uint64), lengths) * _ODD)
        return bool((mixed[1:] == mixed[:-1]).any())
    if queries * longest == len(hashes):
        lists = hashes.reshape(queries, longest)
    else:
        lists = np.tile(np.arange(longest, dtype=np.uint64), (queries, 1))
        lists[np.arange(longest) < lengths[:, None]] = hashes
    # many short rows sort several times faster than one long one
    lists = np.sort(lists, axis=1)
    return bool((lists[:, 1:] == lists[:, :-1]).any())


def joined(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Merge two frames on query and doc ids; their other columns have different names.

    Hashes are joined, and the rows kept whose ids agree: faster than a join of strings.
    """
    pair = ["query_id", "doc_id"]
    own = right.rename(columns={name: f"{name} right" for name in pair})
    rows = left.assign(pair=_pair_hashes(left)).merge(
        own.assign(pair=_pair_hashes(right)), on="pair"
    )
    same = np.ones(len(rows), bool)
    for name in pair:
        same &= (rows[name] == rows[f"{name} right"]).to_numpy(dtype=bool)
    rows = rows.drop(columns=["pair", *(f"{name} right" for name in pair)])
    return rows if same.all() else rows[same].reset_index(drop=True)


def _pair_hashes(frame: pd.DataFrame) -> np.ndarray:
    hashes = np.zeros(len(frame), np.uint64)
    for name in ("query_id", "doc_id"):
        ids = pa.array(frame[name], from_pandas=True)
        ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        hashes = hashes * _ODD + _hashes(ids.cast(pa.large_string()))
    return hashes


def _hashes(docs: pa.Array) -> np.ndarray:
    """64-bit hashes of strings, the same for equal ones; one to one up to eight bytes."""
    _, offsets, data = docs.buffers()
    ends = np.frombuffer(offsets, np.int64)[docs.offset : docs.offset + len(docs) + 1]
    lengths = np.diff(ends)
    # every run of eight bytes as a number, also those that overlap
    padded = np.zeros(ends[-1] + 8, np.uint8)
    padded[:-8] = np.frombuffer(data, np.uint8)[: ends[-1]]
    words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    masks = np.array([256**i - 1 for i in range(9)], np.uint64)
    hashes = lengths.astype(np.uint64)
    for at in range(0, int(lengths.max(initial=0)), 8):
        left = np.clip(lengths - at, 0, 8)
        hashes ^= words[np.minimum(ends[:-1] + at, ends[-1])] & masks[left]
        hashes *= _ODD
        hashes ^= hashes >> np.uint64(29)
    return hashes
