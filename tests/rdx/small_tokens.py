"""Token tables by hand."""

from collections.abc import Mapping

import numpy as np

from rdx.ids import Places, hash_of
from rdx.tokens import PairForm, Table, Tokens
from rdx.tokens.form import Piece

BARE = PairForm(Piece(), Piece(), Piece(), types=None, padding=0)


def letters(queries: Mapping[str, str], passages: Mapping[str, str], most: int = 1000) -> Tokens:
    """Tokens that are letters (their code points), no special tokens; 0 is padding."""
    return Tokens(_table(queries, most), _table(passages, most), BARE)


def _table(texts: Mapping[str, str], most: int) -> Table:
    own = [text[:most] for text in texts.values()]
    return Table(
        ids=np.array([ord(letter) for text in own for letter in text], dtype=np.uint32),
        offsets=np.cumsum([0, *map(len, own)]),
        truncated=np.array([len(text) > most for text in texts.values()], dtype=bool),
        places=Places.of([hash_of(key) for key in texts]),
    )
