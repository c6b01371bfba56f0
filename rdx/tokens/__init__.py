"""Texts as numbers: tokenised once into flat arrays, and put together to pairs in numpy."""

from rdx.tokens.cutting import cut, parallel
from rdx.tokens.form import PairForm
from rdx.tokens.pairs import LISTS, PairRows, Tokens
from rdx.tokens.table import Table, UnknownText

__all__ = ["LISTS", "PairForm", "PairRows", "Table", "Tokens", "UnknownText", "cut", "parallel"]
