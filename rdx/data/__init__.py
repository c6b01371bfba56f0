"""Collections from the installed libraries' documentation, ir_datasets, or own files."""

from rdx.data.collection import Collection, sample_queries, split_of
from rdx.data.files import Files
from rdx.data.irds import IrDatasets
from rdx.data.pydocs import PyDocs

__all__ = ["Collection", "Files", "IrDatasets", "PyDocs", "sample_queries", "split_of"]
