"""Released ranking files: where they are, what they must hold, and what is made of them.

The files of Rank-DistiLLM (Schlatt et al. 2025), doi 10.5281/zenodo.15131907. One of them has had
two md5s without a change of name, so what a file holds is checked as well: its number of queries,
the lengths of its lists, and a hash of all its lists (`rdx.rankings.content`), which agrees between
two files of one ranking however they were written down.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import rankings
from rdx.data.download import DownloadError, download, locked, md5_of
from rdx.text import as_typed

ZENODO = "https://zenodo.org/records/15131907/files/"
HUB = "https://huggingface.co/datasets/webis/rank-distillm/resolve/main/"
END = "__msmarco-passage-train-judged"
JUDGED = 502_939  # MS MARCO training queries with a judgement
LICENCE = (
    "Rank-DistiLLM, doi 10.5281/zenodo.15131907: no licence is stated for the rankings; the terms "
    "of MS MARCO (research, not commerce) hold for the texts that their ids name "
    "<https://microsoft.github.io/msmarco/>"
)
RECORDS = ".rdx"  # folder beside the files


@dataclass(frozen=True)
class Released:
    """One released file.

    Attributes
    ----------
    address
        Where it is.
    md5
        The sums that it has had.
    size
        Bytes, about: as its record prints it.
    queries
        Fewest and most lists that it may hold.
    longest
        Passages of its longest list.
    """

    address: str
    md5: tuple[str, ...]
    size: int
    queries: tuple[int, int]
    longest: int


def _zenodo(name: str, md5: str, size: float, queries: tuple[int, int], longest: int) -> Released:
    return Released(f"{ZENODO}{name}?download=1", (md5,), int(size), queries, longest)


def _ranked(first: str, depth: int) -> str:
    return f"__rankzephyr-{first}-10000-sampled-{depth}{END}"


# The records round these numbers, and a query may be without candidates.
_FEW = (9_900, 10_000)
_ALL = (JUDGED - 5_000, JUDGED)
RELEASED = {
    name: _zenodo(name, md5, size, queries, longest)
    for name, md5, size, queries, longest in (
        (f"__bm25{END}.run", "835372b2ab4d20acf10addeae526c559", 13.3e9, _ALL, 500),
        (f"__colbert{END}.run", "6ed152027f7270f32fcbfaaa6def951e", 9.5e9, _ALL, 500),
        (_ranked("bm25", 100) + ".run", "05e3137ea3526671e1565cc90f9a2c8a", 28.7e6, _FEW, 100),
        (_ranked("colbert", 100) + ".run", "49f8dbf2c1ee7a2ca1fe517eda528af6", 28.7e6, _FEW, 100),
        (_ranked("colbert", 50) + ".run", "c37b78874d4893a00566ab40aa453c56", 14e6, _FEW, 50),
        (_ranked("colbert", 10) + ".run", "619bc815bd133bdca44d6331b241d39a", 2.8e6, _FEW, 10),
    )
} | {
    _ranked("colbert", 100) + ".parquet": Released(
        f"{HUB}{_ranked('colbert', 100)}.parquet",
        ("02a245c712b4ea1804d0cb504005c0e2", "38f69a3c8a5ed21c639e882a6c2eff7c"),
        0,
        _FEW,
        100,
    )
}
# Training sets that are made of two of them: the candidates that a teacher was given, which are cut
# out of the ranking of all queries, and beside them the teacher's ranking.
MADE = {f"rd-{first}.run": first for first in ("bm25", "colbert")}


@dataclass(frozen=True)
class File:
    """A ranking file that a configuration names; most of them are the user's own."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(as_typed(self.path))

    def parts(self) -> list[Path]:
        """The released files that it is, or is made of; empty if none is known."""
        name, folder = self.path.name, self.path.parent
        if name in RELEASED:
            return [self.path]
        first = MADE.get(name.removesuffix(".teacher"))
        if first is None:
            return []
        teacher = folder / f"{_ranked(first, 100)}.run"
        if name.endswith(".teacher"):
            return [teacher]
        return [folder / f"__{first}{END}.run", teacher]

    def known(self) -> bool:
        """Whether it can be fetched."""
        return bool(self.parts())

    def present(self) -> bool:
        """Whether it is there, of the size that it had when it was fetched (if it was)."""
        return self.path.is_file() and _recorded(self.path).get("size", _size(self.path)) == _size(
            self.path
        )

    def size(self) -> int:
        """Bytes on the disk; 0 if it is not there."""
        return _size(self.path)

    def lacking(self) -> list[tuple[str, int]]:
        """Addresses that are still to be fetched, and bytes, about."""
        if self.present():
            return []
        absent = [path for path in self.parts() if not File(path).present()]
        return [(RELEASED[path.name].address, RELEASED[path.name].size) for path in absent]

    def licences(self) -> list[str]:
        """The terms to be shown before it is fetched."""
        return [LICENCE] if self.known() else []

    def verified(self) -> bool:
        """Whether it was checked when it was fetched, and has kept its size since."""
        return self.present() and bool(_recorded(self.path))

    def unchecked(self) -> bool:
        """Whether it is a released file that somebody put there, of which nothing is known."""
        return self.path.name in RELEASED and self.path.is_file() and not self.verified()

    def fetch(self) -> None:
        """Download the file, or what it is made of, check that, and make it.

        Raises
        ------
        DownloadError
            If it is not known, cannot be fetched, or has another md5 than is known.
        FormatError
            If a downloaded file does not hold what it must.
        """
        if not self.known():
            raise DownloadError(
                f"{self.path}: no such file, and no address of it is known; docs/paper.md says "
                "where the files of the paper come from"
            )
        folder = self.path.parent
        with locked(folder / f"{RECORDS}.lock", f"rankings into {folder}"):
            for path in self.parts():
                _fetch(path)
            if self.path not in self.parts() and not self.verified():
                self._make()

    def _make(self) -> None:
        if self.path.suffix == ".teacher":
            [teacher] = self.parts()
            _replace(self.path, lambda place: os.symlink(teacher.name, place))
        else:
            first, teacher = self.parts()
            _replace(self.path, lambda place: cut_out(first, teacher, place))
        _record(self.path)

    def verify(self) -> list[str]:
        """What is wrong with it: sums, number and lengths of lists, and changes since."""
        if not self.path.is_file():
            return [f"{self.path}: no such file"]
        problems = []
        known = _recorded(self.path)
        try:
            found = _facts(self.path)
            if self.path.name in RELEASED:
                _check(self.path, found)
        except (rankings.FormatError, DownloadError) as error:
            return [str(error)]
        for key, value in found.items():
            if known and known.get(key) != value:
                problems.append(f"{self.path}: {key} {value}, when fetched {known.get(key)}")
        return problems


def cut_out(first_stage: Path, teacher: Path, out: Path) -> int:
    """Write the candidates that a teacher ranked, in the first stage's order, as a TREC run.

    Parameters
    ----------
    first_stage
        Run with the lists of these queries and others; read in blocks.
    teacher
        Run of the teacher.
    out
        Where to write: rows of the first stage whose (query, passage) pair the teacher ranked,
        with its ranks and scores.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    FormatError
        If the first stage lacks a pair.
    """
    wanted: dict[str, set[str]] = {}
    for block in _blocks(teacher):
        for query_id, docs in block.groupby("query_id", sort=False).doc_id:
            wanted[str(query_id)] = set(docs)
    rows = 0
    with out.open("w") as file:
        for block in _blocks(first_stage):
            block = block[block.query_id.isin(wanted.keys())]
            pairs = zip(block.query_id, block.doc_id, block["rank"], block.score, strict=True)
            for query_id, doc_id, rank, score in pairs:
                if doc_id in wanted[query_id]:
                    file.write(f"{query_id} Q0 {doc_id} {rank} {score} rdx\n")
                    wanted[query_id].remove(doc_id)
                    rows += 1
    lacking = [(query_id, docs) for query_id, docs in wanted.items() if docs]
    if lacking:
        query_id, docs = lacking[0]
        raise rankings.FormatError(
            f"{first_stage}: lacks passage {min(docs)!r} of query {query_id!r}, which {teacher} "
            f"ranks (and {sum(len(d) for _, d in lacking) - 1:,} other pairs)"
        )
    return rows


def _fetch(path: Path) -> None:
    known = RELEASED[path.name]
    if File(path).verified():
        return
    if not path.is_file():
        download(known.address, path, known.md5)
    found = _facts(path)
    _check(path, found)
    _record(path, found)


def _check(path: Path, found: dict[str, Any]) -> None:
    """Compare a file with what is known of the released one."""
    known = RELEASED[path.name]
    if found["md5"] not in known.md5:
        raise DownloadError(
            f"{path}: md5 {found['md5']}, expected {' or '.join(known.md5)}; remove the file and "
            "fetch it again"
        )
    fewest, most = known.queries
    held = found["content"]
    if not fewest <= held["queries"] <= most or held["longest"] != known.longest:
        wanted = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        raise rankings.FormatError(
            f"{path}: {held['queries']:,} lists, the longest of {held['longest']} passages; "
            f"expected {wanted} lists, the longest of {known.longest}"
        )


def _facts(path: Path) -> dict[str, Any]:
    """Size, md5 and content, read in blocks."""
    return {
        "size": _size(path),
        "md5": md5_of(path),
        "content": rankings.content(_blocks(path)),
    }


def _blocks(path: Path) -> Iterator[pd.DataFrame]:
    if path.suffix == ".parquet":
        yield from rankings.StoredRanking(path).blocks()
    else:
        yield from rankings.stream_trec(path, order="rank")


def _record(path: Path, found: dict[str, Any] | None = None) -> None:
    place = path.parent / RECORDS / f"{path.name}.json"
    place.parent.mkdir(exist_ok=True)
    text = json.dumps(found or _facts(path), indent=1) + "\n"
    _replace(place, lambda temporary: temporary.write_text(text))


def _recorded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path.parent / RECORDS / f"{path.name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: Path, write: Any) -> None:
    """Let `write` fill a temporary path, and rename it."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
