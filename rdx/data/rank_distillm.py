"""Fetch and check the released rankings of Rank-DistiLLM, and cut training sets out of them.

Schlatt et al. (2025), doi 10.5281/zenodo.15131907. One of them has had
two md5s without a change of name, so what a file holds is checked as well: its number of queries,
the lengths of its lists, and a hash of all its lists (`rdx.rankings.content`), which agrees between
two files of one ranking however they were written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from rdx import rankings
from rdx.data.download import DownloadError, download, locked, md5_of
from rdx.data.records import read_record, replace, write_record
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


@dataclass(frozen=True)
class FileFacts:
    """What a file was when it was checked: bytes, sum, and the lists that it holds."""

    size: int
    md5: str
    content: rankings.Content


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
        known = _recorded(self.path)
        return self.path.is_file() and (known is None or known.size == _size(self.path))

    def size(self) -> int:
        """Bytes on the disk; 0 if it is not there."""
        return _size(self.path)

    def lacking(self) -> list[tuple[str, int]]:
        """List what is still to be downloaded: address, and bytes, about."""
        if self.present():
            return []
        absent = [path for path in self.parts() if not File(path).present()]
        return [(RELEASED[path.name].address, RELEASED[path.name].size) for path in absent]

    def licences(self) -> list[str]:
        """The terms to be shown before it is fetched."""
        return [LICENCE] if self.known() else []

    def verified(self) -> bool:
        """Whether it was checked when it was fetched, and has kept its size since."""
        return self.present() and _recorded(self.path) is not None

    def unchecked(self) -> bool:
        """Whether it is a released file that somebody put there, of which nothing is known."""
        return self.path.name in RELEASED and self.path.is_file() and not self.verified()

    def fetch(self) -> None:
        """Download and check the file, or those that it is cut out of, and cut it out.

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
            replace(self.path, lambda place: place.symlink_to(teacher.name))
        else:
            first, teacher = self.parts()
            replace(self.path, lambda place: cut_out(first, teacher, place))
        _record(self.path, _facts(self.path))

    def verify(self) -> list[str]:
        """List what is wrong with it: sums, number and lengths of lists, and changes since."""
        if not self.path.is_file():
            return [f"{self.path}: no such file"]
        try:
            now = _facts(self.path)
            if self.path.name in RELEASED:
                _check(self.path, now)
        except (rankings.FormatError, DownloadError) as error:
            return [str(error)]
        before = asdict(_recorded(self.path) or now)
        return [
            f"{self.path}: {key} {value}, when fetched {before[key]}"
            for key, value in asdict(now).items()
            if value != before[key]
        ]


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
    missing = [(query_id, docs) for query_id, docs in wanted.items() if docs]
    if missing:
        query_id, docs = missing[0]
        raise rankings.FormatError(
            f"{first_stage}: lacks passage {min(docs)!r} of query {query_id!r}, which {teacher} "
            f"ranks (and {sum(len(d) for _, d in missing) - 1:,} other pairs)"
        )
    return rows


def _fetch(path: Path) -> None:
    released = RELEASED[path.name]
    if File(path).verified():
        return
    if not path.is_file():
        download(released.address, path, released.md5)
    facts = _facts(path)
    _check(path, facts)
    _record(path, facts)


def _check(path: Path, facts: FileFacts) -> None:
    """Compare a file with what is known of the released one."""
    released = RELEASED[path.name]
    if facts.md5 not in released.md5:
        raise DownloadError(
            f"{path}: md5 {facts.md5}, expected {' or '.join(released.md5)}; remove the file and "
            "fetch it again"
        )
    fewest, most = released.queries
    content = facts.content
    if not fewest <= content.queries <= most or content.longest != released.longest:
        wanted = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        raise rankings.FormatError(
            f"{path}: {content.queries:,} lists, the longest of {content.longest} passages; "
            f"expected {wanted} lists, the longest of {released.longest}"
        )


def _facts(path: Path) -> FileFacts:
    """Size, md5 and content, read in blocks."""
    return FileFacts(_size(path), md5_of(path), rankings.content(_blocks(path)))


def _blocks(path: Path) -> Iterator[pd.DataFrame]:
    if path.suffix == ".parquet":
        yield from rankings.StoredRanking(path).blocks()
    else:
        yield from rankings.stream_trec(path, order="rank")


def _record(path: Path, facts: FileFacts) -> None:
    write_record(path.parent / RECORDS / f"{path.name}.json", facts)


def _recorded(path: Path) -> FileFacts | None:
    return read_record(FileFacts, path.parent / RECORDS / f"{path.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
