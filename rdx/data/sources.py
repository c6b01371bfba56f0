"""What a data set of ir_datasets is made of: its downloads, and the files that it keeps.

ir_datasets describes a data set by objects that hold each other: a document handler, the file that
it reads, the archive that this is taken out of, the download of that. They are followed here, and
nothing of them is called, so that nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when ir_datasets is imported: that it looks for small files, too, in its folder of local
# copies, where those are put that it would otherwise download anew in every process.
os.environ.setdefault("IR_DATASETS_SMALL_FILE_SIZE", "0")

PARTS = ("docs", "queries", "qrels")
TOPICS = ("queries", "qrels")  # all that measuring a given run takes


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


def sources(dataset: Any, parts: tuple[str, ...] = PARTS, lacking: bool = False) -> list[Source]:
    """The downloads of documents, queries and judgements.

    Parameters
    ----------
    dataset
        A data set of ir_datasets.
    parts
        Of which parts.
    lacking
        Only those that are not there, nor what is made of them.
    """
    from ir_datasets.util import Download

    found: dict[Source, None] = {}
    for part in having(dataset, parts):
        if lacking and part == "docs" and built(dataset):
            continue
        for one in walk(dataset, part, lacking):
            if isinstance(one, Download):
                source = _source(one)
                if not (lacking and source.path is not None and source.path.exists()):
                    found[source] = None
    return list(found)


def files(dataset: Any, parts: tuple[str, ...] = PARTS) -> dict[Path, str]:
    """The files that a data set keeps in ir_datasets' home, each with the part it belongs to.

    Downloads, what was taken out of them, and the store of passages.
    """
    from ir_datasets.util import Download

    found: dict[Path, str] = {}
    for part in having(dataset, parts):
        for one in walk(dataset, part):
            place = _source(one).path if isinstance(one, Download) else _made(one)
            if place is not None and place.is_file():
                found[place] = part
        folder = getattr(dataset.docs_store(), "path", None) if part == "docs" else None
        if folder is not None and Path(folder).is_dir():
            found |= {path: part for path in sorted(Path(folder).iterdir()) if path.is_file()}
    return {path: part for path, part in found.items() if home() in path.parents}


def having(dataset: Any, parts: tuple[str, ...]) -> list[str]:
    """Those of the parts that a data set has."""
    return [part for part in parts if dataset.has(part)]


def built(dataset: Any) -> bool:
    """Whether the store of passages is there."""
    store = dataset.docs_store()
    return bool(hasattr(store, "built") and store.built())


def home() -> Path:
    """The folder of ir_datasets."""
    from ir_datasets.util import home_path

    return Path(home_path())


def walk(dataset: Any, part: str, lacking: bool = False) -> Iterator[Any]:
    """The objects of ir_datasets that a part of a data set is made of.

    With `lacking`, nothing below what was already made (a file taken out of an archive).
    """
    yield from _walk(getattr(dataset, f"{part}_handler")(), lacking, set())


def _walk(thing: Any, lacking: bool, seen: set[int]) -> Iterator[Any]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, list | tuple):
        for one in thing:
            yield from _walk(one, lacking, seen)
    elif type(thing).__module__.startswith("ir_datasets"):
        yield thing
        made = _made(thing)
        if not (lacking and made is not None and made.exists()):
            for one in vars(thing).values():
                yield from _walk(one, lacking, seen)


def _made(thing: Any) -> Path | None:
    """The file or folder that an object keeps what it made in."""
    from ir_datasets.util import Download, LocalDownload

    if isinstance(thing, Download | LocalDownload):
        return None
    for name in ("_path", "_extract_path", "extract_path", "_output_file"):
        if isinstance(vars(thing).get(name), str | Path):
            return Path(vars(thing)[name])
    return None


def _source(one: Any) -> Source:
    """What a download of ir_datasets says about itself."""
    local = next((m._path for m in one.mirrors if hasattr(m, "_path")), None)
    note = next((m._message for m in one.mirrors if getattr(m, "_message", None)), "")
    plain = [m for m in one.mirrors if type(m).__name__ == "RequestsDownload" and not m.auth]
    place = one._cache_path or local
    return Source(
        address=plain[0].url if plain else "",
        path=None if place is None else Path(place),
        md5=one.expected_md5 or "",
        size=one._size_hint or 0,
        licence=one.dua or "",
        headers=tuple(sorted((plain[0].headers or {}).items())) if plain else (),
        note="" if len(one.mirrors) > (local is not None) else str(note),
    )
