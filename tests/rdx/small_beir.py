"""SciFact of BEIR and of NanoBEIR in small, in the very files and with the code of ir_datasets."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from small_downloads import main

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


def name_of(dataset_id: str, part: str, url: str) -> str:
    """The small file of a part."""
    return "beir.zip" if dataset_id == BEIR else f"nano.{part}.parquet"


if __name__ == "__main__":
    main(write, COUNTS, name_of)
