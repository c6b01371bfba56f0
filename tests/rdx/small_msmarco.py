"""MS MARCO in small, in the very files and with the very code of ir_datasets; no network.

    python small_msmarco.py FOLDER [--url ADDRESS] ARGUMENT...

writes the archives into FOLDER (if they are not there), tells ir_datasets' own description of
`msmarco-passage` their sums, sizes and numbers of records, and to find them at ADDRESS/NAME, and
then runs `python -m rdx ARGUMENT...`. IR_DATASETS_HOME must be set.
"""

import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

WORDS = "amber basil cedar delta ember fjord grove heron inlet jetty kelp lotus maple".split()
PASSAGES, QUERIES = 60, 30
ID = "msmarco-passage/train/judged"


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


def tell(folder: Path, address: str, passages: int = PASSAGES, queries: int = QUERIES) -> None:
    """Give ir_datasets the facts of the small files instead of those of the real ones."""
    from rdx.data import catalogue, sources  # before ir_datasets, as rdx does it
    from ir_datasets.util import metadata  # isort: skip

    dataset = catalogue.load(ID)
    known = metadata.default_metadata_provider.get_metadata
    counts = {"docs": passages, "queries": queries, "qrels": queries}
    counts["docs"] += int(os.environ.get("TOO_MANY", "0"))
    metadata.default_metadata_provider.get_metadata = lambda one, part: (
        {"count": counts.get(getattr(part, "value", part))} if one == ID else known(one, part)
    )
    for part in sources.PARTS:
        for thing in sources.components(dataset, part):
            if type(thing).__name__ == "Download":
                name = next(m.url for m in thing.mirrors if hasattr(m, "url")).rpartition("/")[2]
                data = (folder / name).read_bytes()
                thing.expected_md5 = hashlib.md5(data).hexdigest()
                thing._size_hint = len(data)
                for mirror in thing.mirrors:
                    if hasattr(mirror, "url"):
                        mirror.url = f"{address}/{name}"


def main() -> None:
    """Write the files, tell ir_datasets, run rdx."""
    folder = Path(sys.argv[1])
    address = sys.argv[3]
    if not folder.exists():
        folder.mkdir()
        for name, data in files().items():
            (folder / name).write_bytes(data)
    tell(folder, address)
    sys.argv[1:] = sys.argv[4:]
    from rdx.__main__ import program

    program()


if __name__ == "__main__":
    main()
