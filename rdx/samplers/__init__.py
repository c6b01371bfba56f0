"""Retrieve or draw candidates.

Every sampler says what decides its index of a collection's passages (`index_of`), writes it into a
folder (`prepare`), for which queries it has candidates (`covered`), what they are (`candidates`)
and what it is itself (`fingerprint`).
"""

from typing import TYPE_CHECKING

from rdx.samplers.bm25 import BM25, VARIANTS
from rdx.samplers.by_part import ByPart, of_mixture
from rdx.samplers.colbert import ColBERT
from rdx.samplers.others import Others
from rdx.samplers.recorded import Recorded, top
from rdx.samplers.reranked import Reranked
from rdx.samplers.uniform import Random

if TYPE_CHECKING:
    from rdx.parts import Redrawn, Sampler

    _fit: tuple[type[Sampler], ...] = (BM25, ByPart, ColBERT, Others, Random, Recorded)
    _redraws: type[Redrawn] = Reranked

__all__ = [
    "BM25",
    "VARIANTS",
    "ByPart",
    "ColBERT",
    "Others",
    "Random",
    "Recorded",
    "Reranked",
    "of_mixture",
    "top",
]
