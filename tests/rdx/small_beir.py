"""SciFact of BEIR and of NanoBEIR in small, in the very files and with the code of ir_datasets.

    python small_beir.py FOLDER --url ADDRESS ARGUMENT...

writes the downloads into FOLDER, tells ir_datasets' own descriptions of them their sums, sizes and
numbers of records, and to find them at ADDRESS/NAME, and then runs `python -m rdx ARGUMENT...`.
IR_DATASETS_HOME must be set.
"""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "amber basil cedar delta ember fjord grove heron inlet jetty kelp lotus".split()
BEIR, NANO = "beir/scifact/test", "nano-beir/scifact"
COUNTS = {
    BEIR: {"docs": 24, "queries": 8, "qrels": 8},
    NANO: {"docs": 12, "queries": 6, "qrels": 6},
}


def records(size: int) -> list[dict[str, str]]:
    """Passages; those of the queries are these without a title."""
    rows = [(f"{WORDS[i % 12]} {WORDS[(i * 5 + i // 12) % 12]}", i) for i in range(size)]
    return [{"_id": str(i), "title": f"No {i}", "text": text} for text, i in rows]


def write(folder: Path) -> None:
    """The downloads: an archive of BEIR, and three tables of NanoBEIR."""
    folder.mkdir()
    passages = records(24)
    with zipfile.ZipFile(folder / "beir.zip", "w") as archive:
        # the training queries are in the file of queries, too
        for name, rows in (("corpus", passages), ("queries", passages[:12])):
            archive.writestr(f"scifact/{name}.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
        for split, numbers in (("test", range(8)), ("train", range(8, 12))):
            table = "".join(f"{i}\t{i}\t1\n" for i in numbers)
            archive.writestr(f"scifact/qrels/{split}.tsv", f"query-id\tcorpus-id\tscore\n{table}")
    nano = [{"_id": one["_id"], "text": one["text"]} for one in passages[:12]]
    judged = [{"query-id": one["_id"], "corpus-id": one["_id"]} for one in nano[:6]]
    for part, rows in (("docs", nano), ("queries", nano[:6]), ("qrels", judged)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"nano.{part}.parquet")


def tell(folder: Path, address: str) -> None:
    """Give ir_datasets the facts of the small files instead of those of the real ones."""
    from rdx.data import catalogue, sources  # before ir_datasets, as rdx does it
    from ir_datasets.util import metadata  # isort: skip

    known = metadata.default_metadata_provider.get_metadata
    metadata.default_metadata_provider.get_metadata = lambda one, part: (
        {"count": COUNTS[one].get(getattr(part, "value", part))}
        if one in COUNTS
        else known(one, part)
    )
    for dataset_id in COUNTS:
        dataset = catalogue.load(dataset_id)
        for part in sources.PARTS:
            name = "beir.zip" if dataset_id == BEIR else f"nano.{part}.parquet"
            for thing in sources.components(dataset, part):
                if type(thing).__name__ == "Download":
                    data = (folder / name).read_bytes()
                    thing.expected_md5 = hashlib.md5(data).hexdigest()
                    thing._size_hint = len(data)
                    for mirror in thing.mirrors:
                        if hasattr(mirror, "url"):
                            mirror.url = f"{address}/{name}"


def main() -> None:
    """Write the files, tell ir_datasets, run rdx."""
    folder = Path(sys.argv[1])
    if not folder.exists():
        write(folder)
    tell(folder, sys.argv[3])
    sys.argv[1:] = sys.argv[4:]
    from rdx.__main__ import program

    program()


if __name__ == "__main__":
    main()
