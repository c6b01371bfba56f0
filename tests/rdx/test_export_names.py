"""What a card says of files and models: never a folder of the machine that it was made on."""

import pytest

from rdx.public import public

FILES, STUDENT = "rdx.data.Files", "rdx.students.Student"


@pytest.mark.parametrize(
    ("target", "key", "value", "shown"),
    [
        (FILES, "corpus", "people/me/corpus.jsonl", "corpus.jsonl"),
        (FILES, "corpus", "/home/me/corpus.jsonl", "corpus.jsonl"),
        (FILES, "qrels", "../qrels.txt", "qrels.txt"),
        (FILES, "name", "msmarco-passage/train", "msmarco-passage/train"),
        ("rdx.data.IrDatasets", "id", "msmarco-passage/train", "msmarco-passage/train"),
        ("rdx.teachers.Recorded", "run", "data/secret/x.run", "x.run"),
        (STUDENT, "model", "../bert", "bert"),
        (STUDENT, "model", "people/me/work/bert", "bert"),
        (STUDENT, "model", "google/electra-base", "google/electra-base"),
        (STUDENT, "model", "asset:all-MiniLM-L6-v2", "asset:all-MiniLM-L6-v2"),
        ("mine.Own", "place", "~/secret/x", "x"),
        ("mine.Own", "place", "file:///home/me/x", "x"),
        ("mine.Own", "place", ["./a/b", "a/b", 1], ["b", "a/b", 1]),
    ],
)
def test_a_path_is_its_name(target, key, value, shown):
    assert public({"_target_": target, key: value}) == {"_target_": target, key: shown}
