"""Load collections: documentation of the installed libraries, ir_datasets, own files, mixtures.

Every one of them says whether what it is made of is there (`check`), lays out in a folder what
takes long to make (`prepare`), and gives the collection with the queries of a split (`load`), from
that folder or, without one, on the spot. None of them downloads anything: `rdx.fetching` does.
"""

from typing import TYPE_CHECKING

from rdx.collection import Collection, sample_queries, split_of
from rdx.data.beir import Beir
from rdx.data.files import Files
from rdx.data.irds import IrDatasets
from rdx.data.mixture import Mixture, Part
from rdx.data.pydocs import PyDocs

if TYPE_CHECKING:
    from rdx.parts import DataSource

    _fit: tuple[type[DataSource], ...] = (Beir, Files, IrDatasets, Mixture, PyDocs)

__all__ = [
    "Beir",
    "Collection",
    "Files",
    "IrDatasets",
    "Mixture",
    "Part",
    "PyDocs",
    "sample_queries",
    "split_of",
]
