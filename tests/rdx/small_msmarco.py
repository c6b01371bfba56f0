"""MS MARCO in small, in the very files and with the very code of ir_datasets; no network."""

import io
import os
import tarfile
from pathlib import Path

from small_downloads import main

WORDS = "amber basil cedar delta ember fjord grove heron inlet jetty kelp lotus maple".split()
PASSAGES, QUERIES = 60, 30
ID = "msmarco-passage/train/judged"
TOO_MANY = int(os.environ.get("TOO_MANY", "0"))  # passages that are told, and are not there
COUNTS = {"docs": PASSAGES + TOO_MANY, "queries": QUERIES, "qrels": QUERIES}


def files() -> dict[str, bytes]:
    """The three downloads of the training queries, by name."""
    passages = "".join(
        f"{i}\t{WORDS[i % 13]} {WORDS[(i // 13) % 13]} passage {i} caf\u00c3\u00a9\n"
        for i in range(PASSAGES)
    )
    queries = "".join(f"{i}\t{WORDS[i % 13]} {WORDS[(i // 13) % 13]}\n" for i in range(QUERIES + 5))
    qrels = "".join(f"{i}\t0\t{i}\t1\n" for i in range(QUERIES))  # 5 queries have none
    few = "0\tdev query\n"
    return {
        "collectionandqueries.tar.gz": _tar(
            {"collection.tsv": passages, "queries.dev.small.tsv": few}
        ),
        "queries.tar.gz": _tar({"queries.train.tsv": queries, "queries.dev.tsv": few}),
        "qrels.train.tsv": qrels.encode(),
    }


def _tar(members: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as out:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            out.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def write(folder: Path) -> None:
    """The downloads."""
    for name, data in files().items():
        (folder / name).write_bytes(data)


def name_of(dataset_id: str, part: str, url: str) -> str:
    """The small file has the name of the real one."""
    return url.rpartition("/")[2]


if __name__ == "__main__":
    main(write, {ID: COUNTS}, name_of)
