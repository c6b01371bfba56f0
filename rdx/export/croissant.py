"""A Croissant 1.0 description of exported labels: JSON-LD that data sets are found and loaded by.

Akhtar et al. (2024), *Croissant: A Metadata Format for ML-Ready Datasets*.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILE = "croissant.json"
CR = "http://mlcommons.org/croissant/"
OWN = (  # terms of Croissant, each under its own name
    "column", "extract", "field", "fileObject", "recordSet", "repeated", "source"
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": CR,
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in OWN},
}
ENCODINGS = {".parquet": "application/x-parquet", ".gz": "application/gzip"}


def croissant(
    folder: Path, name: str, description: str, licence: str | None, terms: list[str], texts: bool
) -> None:
    """Describe the files of a folder of labels, and the rows of its lists, in the folder."""
    files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in ENCODINGS}
    columns = ("query", "docs") if texts else ("query_id", "doc_ids")
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": description,
        "conformsTo": f"{CR}1.0",
        "license": [licence or "to be given", *terms],
        "distribution": [_file(path) for path in files.values()],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "lists",
                "name": "lists",
                "description": "One row a training list, its passages the best first.",
                "field": [
                    _field(columns[0], "sc:Text", "The query."),
                    _field(columns[1], "sc:Text", "Its passages.", repeated=True),
                    _field("labels", "sc:Float", "Their labels, higher is better.", repeated=True),
                ],
            }
        ],
    }
    text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def _file(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": ENCODINGS[path.suffix],
        "sha256": digest,
    }


def _field(name: str, kind: str, description: str, repeated: bool = False) -> dict[str, Any]:
    source = {"fileObject": {"@id": "labels.parquet"}, "extract": {"column": name}}
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"lists/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
        "source": source,
    }
    return field | ({"repeated": True} if repeated else {})
