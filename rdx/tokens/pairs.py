"""Pairs of tokenised texts: their lengths, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdx.tokens.form import Numbers, PairForm, Piece
from rdx.tokens.table import Rows, Table

LISTS = "lists"  # what inputs are called that say which pairs make a list


@dataclass(frozen=True, eq=False)
class PairRows:
    """The rows of the queries [P] and of the passages [P] of pairs."""

    queries: Rows
    passages: Rows

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.queries)

    def __getitem__(self, index: slice | Numbers) -> PairRows:
        """Some of the pairs, by their positions."""
        return PairRows(self.queries[index], self.passages[index])


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokenised queries and passages, and the form of a student's pairs of them."""

    queries: Table
    passages: Table
    form: PairForm

    def rows(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> PairRows:
        """The rows of pairs of ids.

        Raises
        ------
        UnknownText
            If there is no text with an id; names the first.
        """
        return PairRows(self.queries.rows(query_ids), self.passages.rows(doc_ids))

    def lengths(self, rows: PairRows) -> Numbers:
        """Tokens [P] of every pair, special tokens counted."""
        own = self.queries.lengths(rows.queries) + self.passages.lengths(rows.passages)
        lengths: Numbers = own + self.form.special
        return lengths

    def assemble(
        self, rows: PairRows, sizes: Sequence[int] | Numbers | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs of the student [P, L] and parts [P, L], padded to the longest pair.

        Parts are 1 at tokens of the query, 2 at tokens of the passage, 0 at others. With the sizes
        of lists, which come one after the other, inputs also have `LISTS` [B, N]: the pairs of each
        list, -1 at padding.
        """
        form, lengths = self.form, self.lengths(rows)
        width = int(lengths.max(initial=0))
        shape = (len(rows), width)
        first = np.arange(len(rows)) * width  # where in the flat arrays a pair begins
        if form.side == "left":
            first = first + width - lengths
        ids = np.full(shape, form.padding, dtype=np.int64)
        types, parts = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        a, b = form.types or (0, 0)
        at = _put_piece(form.before, first, ids, types)
        at = _put_text(self.queries, rows.queries, at, ids, (types, a), (parts, 1))
        at = _put_piece(form.between, at, ids, types)
        at = _put_text(self.passages, rows.passages, at, ids, (types, b), (parts, 2))
        _put_piece(form.after, at, ids, types)
        steps = np.arange(width)
        begins = lengths[:, None]
        mask = steps >= width - begins if form.side == "left" else steps < begins
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if form.types is not None:
            inputs["token_type_ids"] = types
        if sizes is not None:
            inputs[LISTS] = _listed(np.asarray(sizes))
        return {name: torch.from_numpy(own) for name, own in inputs.items()}, torch.from_numpy(
            parts
        )


def _listed(sizes: Numbers) -> Numbers:
    """The pairs of each list [B, N], -1 at padding, of the sizes of lists [B]."""
    table = np.full((len(sizes), int(sizes.max(initial=0))), -1)
    table[np.arange(table.shape[1]) < sizes[:, None]] = np.arange(sizes.sum())
    return table


def _put_piece(piece: Piece, at: Numbers, ids: Numbers, types: Numbers) -> Numbers:
    """Put special tokens at a place of every pair; gives the places behind them."""
    for token, kind in zip(piece.ids, piece.types, strict=True):
        ids.reshape(-1)[at] = token
        if kind:
            types.reshape(-1)[at] = kind
        at = at + 1
    return at


def _put_text(
    table: Table, rows: Rows, at: Numbers, ids: Numbers, *kinds: tuple[Numbers, int]
) -> Numbers:
    """Put texts at a place of every pair; gives the places behind them.

    `kinds` are arrays and what to set in them at the tokens of the texts.
    """
    starts, lengths = table.offsets[rows], table.lengths(rows)
    before = np.cumsum(lengths) - lengths
    steps = np.arange(int(lengths.sum()))
    target = steps + np.repeat(at - before, lengths)
    ids.reshape(-1)[target] = table.ids[steps + np.repeat(starts - before, lengths)]
    for values, kind in kinds:
        if kind:
            values.reshape(-1)[target] = kind
    return at + lengths
