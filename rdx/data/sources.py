"""List the downloads and files of a data set of ir_datasets.

ir_datasets describes a data set by objects that hold each other: a document handler, the file that
it reads, the archive that this is taken out of, the download of that. They are followed here, and
nothing of them is called, so that nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# Read when ir_datasets is imported: that it looks for small files, too, in its folder of local
# copies, where those are put that it would otherwise download anew in every process.
os.environ.setdefault("IR_DATASETS_SMALL_FILE_SIZE", "0")

PARTS = ("docs", "queries", "qrels")
TOPICS = ("queries", "qrels")  # all that measuring a given run takes


# ir_datasets has no types of its own.
class Text(Protocol):
    """A document or a query."""

    doc_id: str
    query_id: str
    default_text: Callable[[], str]


class Judgement(Protocol):
    """A row of the qrels."""

    query_id: str
    doc_id: str
    relevance: int


class DocStore(Protocol):
    """Documents by id; KeyError if there is none."""

    get: Callable[[str], Text]


class Dataset(Protocol):
    """A data set as `ir_datasets.load` gives it; parts are "docs", "queries", "qrels"."""

    has: Callable[[str], bool]
    metadata: Callable[[], dict[str, dict[str, int]]]
    docs_iter: Callable[[], Iterator[Text]]
    docs_store: Callable[[], DocStore]
    docs_count: Callable[[], int | None]
    queries_iter: Callable[[], Iterator[Text]]
    qrels_iter: Callable[[], Iterator[Judgement]]


@dataclass(frozen=True)
class Source:
    """One download of a data set.

    Attributes
    ----------
    address
        Where it comes from; "" if ir_datasets has a way of its own (or the user must fetch it).
    path
        Where it is kept; None if nowhere, so that ir_datasets fetches it each time.
    md5, size
        As ir_datasets knows them; size in bytes, 0 if unknown.
    licence
        Terms that ir_datasets asks to confirm; "" if none.
    headers
        What the server wants to be told, as pairs.
    note
        How to get it by hand; "" if there is an address.
    """

    address: str
    path: Path | None
    md5: str
    size: int
    licence: str
    headers: tuple[tuple[str, str], ...] = ()
    note: str = ""


def sources(
    dataset: Dataset, parts: tuple[str, ...] = PARTS, missing: bool = False
) -> list[Source]:
    """List the downloads of documents, queries and judgements.

    Parameters
    ----------
    dataset
        A data set of ir_datasets.
    parts
        Of which parts.
    missing
        Only those that are not there, nor what is made of them.
    """
    from ir_datasets.util import Download

    downloads: dict[Source, None] = {}
    for part in having(dataset, parts):
        if missing and part == "docs" and built(dataset):
            continue
        for component in components(dataset, part, missing):
            if isinstance(component, Download):
                source = _source(component)
                if not (missing and source.path is not None and source.path.exists()):
                    downloads[source] = None
    return list(downloads)


def files(dataset: Dataset, parts: tuple[str, ...] = PARTS) -> dict[Path, str]:
    """List the files of a data set in ir_datasets' home, each with the part it belongs to.

    Downloads, what was taken out of them, and the store of passages.
    """
    from ir_datasets.util import Download

    part_of: dict[Path, str] = {}
    for part in having(dataset, parts):
        for component in components(dataset, part):
            is_download = isinstance(component, Download)
            path = _source(component).path if is_download else _output(component)
            if path is not None and path.is_file():
                part_of[path] = part
        folder = getattr(dataset.docs_store(), "path", None) if part == "docs" else None
        if folder is not None and Path(folder).is_dir():
            part_of |= {path: part for path in sorted(Path(folder).iterdir()) if path.is_file()}
    return {path: part for path, part in part_of.items() if home() in path.parents}


def having(dataset: Dataset, parts: tuple[str, ...]) -> list[str]:
    """Those of the parts that a data set has."""
    return [part for part in parts if dataset.has(part)]


def built(dataset: Dataset) -> bool:
    """Whether the store of passages is there."""
    store: Any = dataset.docs_store()
    return bool(hasattr(store, "built") and store.built())


def home() -> Path:
    """The folder of ir_datasets."""
    from ir_datasets.util import home_path

    return Path(home_path())


def components(dataset: Dataset, part: str, missing: bool = False) -> Iterator[object]:
    """Yield the objects of ir_datasets that a part of a data set is made of.

    With `missing`, nothing below what is there already (a file taken out of an archive).
    """
    yield from _below(getattr(dataset, f"{part}_handler")(), missing, set())


def _below(thing: object, missing: bool, seen: set[int]) -> Iterator[object]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, list | tuple):
        for element in thing:
            yield from _below(element, missing, seen)
    elif type(thing).__module__.startswith("ir_datasets"):
        yield thing
        output = _output(thing)
        if not (missing and output is not None and output.exists()):
            for value in vars(thing).values():
                yield from _below(value, missing, seen)


def _output(thing: object) -> Path | None:
    """The file or folder in which an object keeps what it makes."""
    from ir_datasets.util import Download, LocalDownload

    if isinstance(thing, Download | LocalDownload):
        return None
    for name in ("_path", "_extract_path", "extract_path", "_output_file"):
        if isinstance(vars(thing).get(name), str | Path):
            return Path(vars(thing)[name])
    return None


def _source(download: Any) -> Source:
    """What a download of ir_datasets says about itself."""
    local = next((m._path for m in download.mirrors if hasattr(m, "_path")), None)
    note = next((m._message for m in download.mirrors if getattr(m, "_message", None)), "")
    plain = [m for m in download.mirrors if type(m).__name__ == "RequestsDownload" and not m.auth]
    path = download._cache_path or local
    return Source(
        address=plain[0].url if plain else "",
        path=None if path is None else Path(path),
        md5=download.expected_md5 or "",
        size=download._size_hint or 0,
        licence=download.dua or "",
        headers=tuple(sorted((plain[0].headers or {}).items())) if plain else (),
        note="" if len(download.mirrors) > (local is not None) else str(note),
    )
