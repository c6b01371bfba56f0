"""Score and search by MaxSim of token vectors, exactly and in blocks (Khattab and Zaharia 2020).

    score(q, d) = sum over query tokens i of max over passage tokens j of  q_i . d_j

Products are float32. A passage without a token has no score: it is never among the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# Products that are held at once (float32): 64 MiB.
PRODUCTS = 2**24


def maxsim(queries: Sequence[Tensor], tokens: Tensor, lengths: Tensor) -> Tensor:
    """MaxSim of some queries and passages.

    Parameters
    ----------
    queries
        Token vectors [n_q, D] of each query.
    tokens
        Token vectors [T, D] of the passages, one passage after the other.
    lengths
        Number of tokens of each passage, [P]; they sum to T.

    Returns
    -------
    Tensor
        [Q, P], float32; -inf for passages without a token.
    """
    sizes = torch.tensor([len(query) for query in queries], device=tokens.device)
    products = tokens.float() @ torch.cat(list(queries)).to(tokens.device).float().T
    highest = _highest(products, lengths)  # [P, all query tokens]
    return torch.segment_reduce(highest.T.contiguous(), "sum", lengths=sizes, axis=0)


def _highest(products: Tensor, lengths: Tensor) -> Tensor:
    """Row-wise maximum of each passage's rows; -inf where it has none."""
    if products.device.type != "cpu":
        return torch.segment_reduce(products, "max", lengths=lengths, axis=0)
    # the same, five times faster on a CPU
    none = products.new_full((products.shape[1],), -torch.inf)
    parts = products.split(lengths.tolist())
    return torch.stack([part.amax(0) if len(part) else none for part in parts])


def pieces(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Cut consecutive lengths into pieces of at most `most` in all; a longer one is a piece alone.

    Returns
    -------
    list of (start, end)
        `end` excluded.
    """
    spans: list[tuple[int, int]] = []
    start = total = 0
    for i, length in enumerate(lengths):
        if i > start and total + length > most:
            spans.append((start, i))
            start, total = i, 0
        total += length
    return [*spans, (start, len(lengths))] if lengths else []


class Best:
    """The k best passages of each query so far: score descending, then doc id descending.

    Score and place of the doc id are packed into one integer, so that ties at the cut are settled
    as trec_eval does, whatever the blocks.

    Parameters
    ----------
    queries
        Number of queries.
    k
        Passages kept of each.
    device
        Where they are kept.
    """

    def __init__(self, queries: int, k: int, device: torch.device | str = "cpu") -> None:
        self.k = k
        self.keys = torch.empty((queries, 0), dtype=torch.int64, device=device)
        self.positions = torch.empty((queries, 0), dtype=torch.int64, device=device)
        self.scores = torch.empty((queries, 0), dtype=torch.float32, device=device)

    def add(self, scores: Tensor, positions: Tensor, places: Tensor) -> None:
        """Take more passages into account.

        Parameters
        ----------
        scores
            [Q, P], float32.
        positions
            [P], positions of the passages in the collection.
        places
            [P], places of their doc ids in ascending order.
        """
        scores = scores + 0.0  # -0.0 and 0.0 tie
        bits = scores.view(torch.int32).to(torch.int64)
        keys = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) << 32) | places
        keys = torch.cat([self.keys, keys], 1)
        self.keys, kept = keys.topk(min(self.k, keys.shape[1]), dim=1)
        known = torch.cat([self.positions, positions.expand(len(scores), -1)], 1)
        self.positions = known.gather(1, kept)
        self.scores = torch.cat([self.scores, scores], 1).gather(1, kept)


def search(
    queries: Sequence[Tensor],
    passages: Iterable[tuple[Tensor, Sequence[int]]],
    places: Tensor,
    k: int,
    device: torch.device | str = "cpu",
    products: int = PRODUCTS,
) -> list[tuple[Tensor, Tensor]]:
    """The k best of all passages for every query.

    Parameters
    ----------
    queries
        Token vectors [n_q, D] of each query.
    passages
        Blocks of (token vectors [T, D], number of tokens of each passage), in the order of the
        collection; of one block, the vectors of `products` are computed at once.
    places
        [N], place of every passage when the doc ids are in ascending order.
    k
        Passages of a query, at most.
    device
        Where to compute.
    products
        Scalar products that are held at once; changes nothing but memory and time.

    Returns
    -------
    list of (positions, scores)
        Per query, best first: score descending, then doc id descending.
    """
    spans = pieces([len(query) for query in queries], 1024)
    groups = [[query.to(device) for query in queries[start:end]] for start, end in spans]
    best = [Best(len(group), k, device) for group in groups]
    width = max((sum(map(len, group)) for group in groups), default=1)
    first = 0
    for tokens, lengths in passages:
        at = 0
        for start, end in pieces(lengths, max(products // max(width, 1), 1)):
            sizes = torch.tensor(lengths[start:end], device=device)
            total = int(sizes.sum())
            part = tokens[at : at + total].to(device).float()
            at += total
            rows = torch.arange(first + start, first + end, device=device)
            for group, of_group in zip(groups, best, strict=True):
                of_group.add(maxsim(group, part, sizes), rows, places[first + start : first + end])
        first += len(lengths)
    return [
        (positions[scores.isfinite()].cpu(), scores[scores.isfinite()].cpu())
        for of_group in best
        for positions, scores in zip(of_group.positions, of_group.scores, strict=True)
    ]
