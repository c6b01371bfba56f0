"""Collections from the installed libraries' documentation, ir_datasets, or own files.

Every one of them says whether what it is made of is there (`check`), lays out in a folder what
takes long to make (`prepare`), and gives the collection with the queries of a split (`load`), from
that folder or, without one, on the spot. None of them downloads anything: `rdx.fetching` does.
"""

from rdx.collection import Collection, sample_queries, split_of
from rdx.data.files import Files
from rdx.data.irds import IrDatasets
from rdx.data.pydocs import PyDocs

__all__ = ["Collection", "Files", "IrDatasets", "PyDocs", "sample_queries", "split_of"]
