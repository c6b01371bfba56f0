"""Fetch data sets of ir_datasets before any cell needs them, and check what is there.

ir_datasets downloads on first use, which must not happen in the middle of a grid. Here a data set
is *fetched*: everything is downloaded, built, has the sums and the numbers of records that
ir_datasets knows, and that was written down beside it (in the folder `RECORDS`).
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from rdx.bars import bar
from rdx.data.blank import blank
from rdx.data.download import DownloadError, download, locked, md5_of
from rdx.data.records import read_record, write_record
from rdx.data.sources import PARTS, Dataset, built, files, having, home, sources
from rdx.rankings import FormatError

RECORDS = "rdx"  # in ir_datasets' home


@dataclass(frozen=True)
class KeptFile:
    """A file in ir_datasets' home: the part of the data set, its bytes, its md5."""

    part: str
    size: int
    md5: str


@dataclass(frozen=True)
class Inventory:
    """Files and records of a data set, as they were when they were fetched or are now.

    Attributes
    ----------
    counts
        Numbers of records by part.
    content
        Hash of queries and judgements.
    files
        By their paths in ir_datasets' home.
    """

    counts: dict[str, int] = field(default_factory=dict)
    content: str = ""
    files: dict[str, KeptFile] = field(default_factory=dict)


@dataclass(frozen=True)
class BlankDocs:
    """Ids of the documents without text of the data sets that share a corpus."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """A data set of ir_datasets that a configuration names.

    Attributes
    ----------
    id
        Its id.
    parts
        What is wanted of it.
    """

    id: str
    parts: tuple[str, ...] = PARTS

    @property
    def name(self) -> str:
        """Its id, and whose it is."""
        return f"ir_datasets:{self.id}"

    def known(self) -> bool:
        """Whether it can be fetched."""
        return True

    def present(self) -> bool:
        """Whether it can be loaded without a download."""
        return fetched(self.id, load(self.id), self.parts)

    def size(self) -> int:
        """Bytes on the disk, of what was fetched."""
        return sum(file.size for file in inventory(self.id).files.values())

    def lacking(self) -> list[tuple[str, int]]:
        """List what is still to be downloaded: address, and bytes as ir_datasets knows them."""
        if self.present():
            return []
        missing = sources(load(self.id), self.parts, missing=True)
        return [(source.address or source.note, source.size) for source in missing]

    def licences(self) -> list[str]:
        """The terms that ir_datasets asks to confirm."""
        downloads = sources(load(self.id), self.parts)
        return [source.licence for source in downloads if source.licence]

    def verified(self) -> bool:
        """Whether it was checked when it was fetched, and its files have kept their sizes."""
        nothing = not sources(load(self.id), self.parts)
        return self.present() and (nothing or bool(inventory(self.id).counts))

    def unchecked(self) -> bool:
        """Whether it is there unchecked: never, since one that is there was fetched."""
        return False

    def fetch(self) -> None:
        """Download what is missing, let ir_datasets build its stores, check and write it down.

        Parts that were fetched before stay so.

        Raises
        ------
        DownloadError
            If a file cannot be fetched or has another md5 than ir_datasets knows.
        FormatError
            If the numbers of records are not those that ir_datasets knows.
        """
        dataset = load(self.id)
        with locked(home() / f"{RECORDS}.lock", f"data sets of ir_datasets into {home()}"):
            if fetched(self.id, dataset, self.parts):
                return
            for source in sources(dataset, self.parts, missing=True):
                if source.address and source.path is not None:
                    md5 = [source.md5] if source.md5 else []
                    download(source.address, source.path, md5, dict(source.headers))
                elif source.note:
                    raise DownloadError(f"{self.id}: {source.note}")
            now = self._measured(dataset)
            if "docs" in now.counts:
                blank_docs(self.id, dataset)
            missing = sources(dataset, self.parts, missing=True)
            unkept = [source.address for source in missing if source.path is None]
            if unkept:
                raise DownloadError(
                    f"{self.id}: ir_datasets keeps no copy of {', '.join(unkept)}, so that every "
                    "cell would download it"
                )
            before = inventory(self.id)
            both = Inventory(before.counts | now.counts, now.content, before.files | now.files)
            write_record(_record_path(self.id), both)

    def verify(self) -> list[str]:
        """List what is wrong with its files; nothing is downloaded.

        Compared are: the sums of downloads with those that ir_datasets knows, and numbers of
        records, sizes and sums of all files and a hash of queries and judgements with what was
        written down when they were fetched.
        """
        dataset = load(self.id)
        if not fetched(self.id, dataset, self.parts):
            missing = sources(dataset, self.parts, missing=True)
            names = ", ".join(str(source.path or source.address) for source in missing)
            return [f"not fetched ({names or 'changed since'}): {_command(self.id, self.parts)}"]
        if not sources(dataset, self.parts):
            return []
        try:
            now = self._measured(dataset)
        except (DownloadError, FormatError) as error:
            return [str(error)]
        before = inventory(self.id)
        problems = [
            f"{home() / name}: md5 {file.md5}, when fetched {before.files[name].md5}"
            for name, file in now.files.items()
            if name in before.files and file.md5 != before.files[name].md5
        ]
        for part, number in now.counts.items():
            if number != before.counts[part]:
                problems.append(f"{self.id}: {number} {part}, when fetched {before.counts[part]}")
        if now.content != before.content:
            problems.append(f"{self.id}: other queries or judgements than when it was fetched")
        return problems

    def _measured(self, dataset: Dataset) -> Inventory:
        """Take the inventory and compare it with what ir_datasets knows of it."""
        for source in sources(dataset, self.parts):
            if source.path is not None and source.path.is_file() and source.md5:
                md5 = md5_of(source.path)
                if md5 != source.md5:
                    raise DownloadError(
                        f"{source.path}: md5 {md5}, ir_datasets expects {source.md5}; remove the "
                        "file and fetch it again"
                    )
        measured = measure(dataset, self.parts)
        known = dataset.metadata() if hasattr(dataset, "metadata") else {}
        for part, number in measured.counts.items():
            expected = known.get(part, {}).get("count")
            if expected is not None and number != expected:
                raise FormatError(
                    f"{self.id}: {number:,} {part}, ir_datasets expects {expected:,}: what lies in "
                    f"{home()} is not the whole data set"
                )
        return measured


def load(dataset_id: str) -> Dataset:
    """Load a data set of ir_datasets; ImportError or KeyError if there is none."""
    try:
        import ir_datasets
    except ImportError as error:
        raise ImportError(
            f"data.id={dataset_id} needs ir_datasets: pip install ir-datasets"
        ) from error
    return cast(Dataset, ir_datasets.load(dataset_id))


def ids() -> list[str]:
    """The ids of all data sets."""
    import ir_datasets

    return list(ir_datasets.registry)


def fetched(dataset_id: str, dataset: Dataset, parts: tuple[str, ...] = PARTS) -> bool:
    """Whether parts of a data set can be loaded without a download and are known to be right.

    True of data sets of local files, which have nothing to download. Looks at sizes only.
    """
    wanted = [part for part in having(dataset, parts) if sources(dataset, (part,))]
    known = inventory(dataset_id)
    return all(part in known.counts for part in wanted) and all(
        (home() / name).is_file() and (home() / name).stat().st_size == file.size
        for name, file in known.files.items()
        if file.part in wanted
    )


def refuse_absent(dataset_id: str, dataset: Dataset, parts: tuple[str, ...] = PARTS) -> None:
    """Raise FileNotFoundError, naming the command that fetches them, if parts are not there."""
    if not fetched(dataset_id, dataset, parts):
        raise FileNotFoundError(
            f"data.id={dataset_id}: not fetched, and no cell downloads anything; run first: "
            f"{_command(dataset_id, parts)}"
        )


def blank_docs(dataset_id: str, dataset: Dataset) -> tuple[str, ...]:
    """Ids of the documents without text (`rdx.data.blank`), in the order of the corpus.

    All documents are read for it, once, when they are fetched: what was found is written down.
    They are not where they are not there, nor where ir_datasets itself never reads all of them
    (ClueWeb, which it looks up in its archives): then it is unknown, and nothing is named.
    """
    import ir_datasets

    downloaded = bool(sources(dataset, ("docs",)))
    if not dataset.has("docs") or (downloaded and not built(dataset)):
        return ()
    parent = ir_datasets.docs_parent_id(dataset_id) if downloaded else dataset_id
    path = _record_path(f"{parent}.blank")
    known = read_record(BlankDocs, path) if downloaded else None
    if known is not None:
        return known.ids
    total = dataset.docs_count()
    shown = bar(dataset.docs_iter(), desc="looking for empty texts", total=total, unit="passage")
    found = BlankDocs(tuple(doc.doc_id for doc in shown if blank(str(doc.default_text()))))
    if downloaded:
        with suppress(OSError):  # somebody else's folder
            write_record(path, found)
    return found.ids


def inventory(dataset_id: str) -> Inventory:
    """Read the inventory that was taken at the fetch; empty for a data set of local files."""
    return read_record(Inventory, _record_path(dataset_id)) or Inventory()


def measure(dataset: Dataset, parts: tuple[str, ...] = PARTS) -> Inventory:
    """Take the inventory: count records, hash queries and judgements, and sum every file.

    Runs over all queries and judgements and builds the store of passages if there is none.
    """
    counts: dict[str, int] = {}
    digest = hashlib.sha256()
    for part in having(dataset, parts):
        if part == "docs":
            counts[part] = _build(dataset)
            continue
        counts[part] = 0
        for row in getattr(dataset, f"{part}_iter")():
            counts[part] += 1
            rest = [row.doc_id, row.relevance] if part == "qrels" else [row.default_text()]
            digest.update(json.dumps([row.query_id, *rest]).encode())
    part_of = files(dataset, parts)
    kept = {
        str(path.relative_to(home())): KeptFile(part, path.stat().st_size, md5_of(path))
        for path, part in bar(part_of.items(), desc="checksums", unit="file", total=len(part_of))
    }
    return Inventory(counts, digest.hexdigest()[:16], kept)


def _build(dataset: Dataset) -> int:
    """Build the store of passages, which takes long for a large corpus, and count them."""
    store: object = dataset.docs_store()
    if hasattr(store, "build"):
        store.build()
    return int(dataset.docs_count() or 0)


def _command(dataset_id: str, parts: tuple[str, ...]) -> str:
    less = "" if "docs" in parts else "--without-passages "
    return f"python -m rdx data fetch {less}data=ir_datasets data.id={dataset_id}"


def _record_path(dataset_id: str) -> Path:
    return home() / RECORDS / f"{dataset_id.replace('/', '__')}.json"
