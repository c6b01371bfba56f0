"""Fetching data sets of ir_datasets before any cell needs them, and checking what is there.

ir_datasets downloads on first use, which must not happen in the middle of a grid. Here a data set
is *fetched*: everything is downloaded, built, has the sums and the numbers of records that
ir_datasets knows, and that was written down beside it (in the folder `RECORDS`).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rdx.bars import bar
from rdx.data.download import DownloadError, download, locked, md5_of
from rdx.data.sources import PARTS, files, having, home, sources
from rdx.rankings import FormatError

RECORDS = "rdx"  # in ir_datasets' home


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
        return sum(facts["size"] for facts in record(self.id).get("files", {}).values())

    def lacking(self) -> list[tuple[str, int]]:
        """Addresses that are still to be fetched, and bytes as ir_datasets knows them."""
        if self.present():
            return []
        found = sources(load(self.id), self.parts, lacking=True)
        return [(one.address or one.note, one.size) for one in found]

    def licences(self) -> list[str]:
        """The terms that ir_datasets asks to confirm."""
        return [one.licence for one in sources(load(self.id), self.parts) if one.licence]

    def verified(self) -> bool:
        """Whether it was checked when it was fetched, and its files have kept their sizes."""
        nothing = not sources(load(self.id), self.parts)
        return self.present() and (nothing or bool(record(self.id)))

    def unchecked(self) -> bool:
        """Whether it is there and nothing is known of it: never, one that is there was fetched."""
        return False

    def fetch(self) -> None:
        """Download what is lacking, let ir_datasets build its stores, check and write it down.

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
            for source in sources(dataset, self.parts, lacking=True):
                if source.address and source.path is not None:
                    md5 = [source.md5] if source.md5 else []
                    download(source.address, source.path, md5, dict(source.headers))
                elif source.note:
                    raise DownloadError(f"{self.id}: {source.note}")
            found = self._measured(dataset)
            left = sources(dataset, self.parts, lacking=True)
            passing = [one.address for one in left if one.path is None]
            if passing:
                raise DownloadError(
                    f"{self.id}: ir_datasets keeps no copy of {', '.join(passing)}, so that every "
                    "cell would download it"
                )
            before = record(self.id)
            for key in ("counts", "files"):
                found[key] = before.get(key, {}) | found[key]
            _write(_record_path(self.id), found)

    def verify(self) -> list[str]:
        """What is wrong with its files; nothing is downloaded.

        Compared are: the sums of downloads with those that ir_datasets knows, and numbers of
        records, sizes and sums of all files and a hash of queries and judgements with what was
        written down when they were fetched.
        """
        dataset = load(self.id)
        if not fetched(self.id, dataset, self.parts):
            left = sources(dataset, self.parts, lacking=True)
            gone = ", ".join(str(one.path or one.address) for one in left) or "changed since"
            return [f"not fetched ({gone}): {_command(self.id, self.parts)}"]
        if not sources(dataset, self.parts):
            return []
        try:
            found = self._measured(dataset)
        except (DownloadError, FormatError) as error:
            return [str(error)]
        known = record(self.id)
        problems = [
            f"{home() / name}: md5 {facts['md5']}, when fetched {known['files'][name]['md5']}"
            for name, facts in found["files"].items()
            if name in known["files"] and facts["md5"] != known["files"][name]["md5"]
        ]
        for part, number in found["counts"].items():
            if number != known["counts"][part]:
                problems.append(f"{self.id}: {number} {part}, when fetched {known['counts'][part]}")
        if found["content"] != known["content"]:
            problems.append(f"{self.id}: other queries or judgements than when it was fetched")
        return problems

    def _measured(self, dataset: Any) -> dict[str, Any]:
        """Sums and numbers of records, compared with what ir_datasets knows of them."""
        for source in sources(dataset, self.parts):
            if source.path is not None and source.path.is_file() and source.md5:
                found = md5_of(source.path)
                if found != source.md5:
                    raise DownloadError(
                        f"{source.path}: md5 {found}, ir_datasets expects {source.md5}; remove the "
                        "file and fetch it again"
                    )
        measured = measure(dataset, self.parts)
        known = dataset.metadata() if hasattr(dataset, "metadata") else {}
        for part, number in measured["counts"].items():
            expected = known.get(part, {}).get("count")
            if expected is not None and number != expected:
                raise FormatError(
                    f"{self.id}: {number:,} {part}, ir_datasets expects {expected:,}: what lies in "
                    f"{home()} is not the whole data set"
                )
        return measured


def load(dataset_id: str) -> Any:
    """The data set as ir_datasets knows it; ImportError or KeyError if it does not."""
    try:
        import ir_datasets
    except ImportError as error:
        raise ImportError(
            f"data.id={dataset_id} needs ir_datasets: pip install ir-datasets"
        ) from error
    return ir_datasets.load(dataset_id)


def ids() -> list[str]:
    """The ids of all data sets."""
    import ir_datasets

    return list(ir_datasets.registry)


def fetched(dataset_id: str, dataset: Any, parts: tuple[str, ...] = PARTS) -> bool:
    """Whether parts of a data set can be loaded without a download and are known to be right.

    True of data sets of local files, which have nothing to download. Looks at sizes only.
    """
    wanted = [part for part in having(dataset, parts) if sources(dataset, (part,))]
    known = record(dataset_id)
    return all(part in known.get("counts", {}) for part in wanted) and all(
        (home() / name).is_file() and (home() / name).stat().st_size == facts["size"]
        for name, facts in known.get("files", {}).items()
        if facts["part"] in wanted
    )


def refuse_absent(dataset_id: str, dataset: Any, parts: tuple[str, ...] = PARTS) -> None:
    """Raise FileNotFoundError, naming the command that fetches them, if parts are not there."""
    if not fetched(dataset_id, dataset, parts):
        raise FileNotFoundError(
            f"data.id={dataset_id}: not fetched, and no cell downloads anything; run first: "
            f"{_command(dataset_id, parts)}"
        )


def record(dataset_id: str) -> dict[str, Any]:
    """What was written down when a data set was fetched; empty for one of local files."""
    path = _record_path(dataset_id)
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


def measure(dataset: Any, parts: tuple[str, ...] = PARTS) -> dict[str, Any]:
    """Numbers of records, a hash of queries and judgements, and size and md5 of every file.

    Runs over all queries and judgements and builds the store of passages if there is none.
    """
    counts: dict[str, int] = {}
    digest = hashlib.sha256()
    for part in having(dataset, parts):
        if part == "docs":
            counts[part] = _build(dataset)
            continue
        counts[part] = 0
        for one in getattr(dataset, f"{part}_iter")():
            counts[part] += 1
            rest = [one.doc_id, one.relevance] if part == "qrels" else [one.default_text()]
            digest.update(json.dumps([one.query_id, *rest]).encode())
    kept = files(dataset, parts)
    facts = {
        str(path.relative_to(home())): {
            "part": part,
            "size": path.stat().st_size,
            "md5": md5_of(path),
        }
        for path, part in bar(kept.items(), desc="checksums", unit="file", total=len(kept))
    }
    return {"counts": counts, "content": digest.hexdigest()[:16], "files": facts}


def _build(dataset: Any) -> int:
    """Build the store of passages, which takes long for a large corpus; the number of passages."""
    store = dataset.docs_store()
    if hasattr(store, "build"):
        store.build()
    return int(dataset.docs_count() or 0)


def _command(dataset_id: str, parts: tuple[str, ...]) -> str:
    less = "" if "docs" in parts else "--without-passages "
    return f"python -m rdx data fetch {less}data=ir_datasets data.id={dataset_id}"


def _record_path(dataset_id: str) -> Path:
    return home() / RECORDS / f"{dataset_id.replace('/', '__')}.json"


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(temporary, path)


@lru_cache(maxsize=64)
def _read(path: Path, modified: int) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
