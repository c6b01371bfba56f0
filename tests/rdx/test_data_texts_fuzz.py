"""Corpora and queries are read as by loops, or refused with the file and a line."""

import json
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rdx.data.files import Files
from rdx.data.texts import read_texts, unique
from rdx.rankings import FormatError

IDS = st.sampled_from(["1", "d2", "Ã©", "007", "q-9", "0x1f"])
ODD_IDS = st.sampled_from(["", "a b", " a", "\xa0", "\t", "a\0b"])
TEXTS = st.sampled_from(["one", "two  words ", "Ã¼ber", '"quoted"', "\\n", "\u2028x", "a\x0bb"])
ODD_TEXTS = st.sampled_from(["", " ", "\x0c", "\u200b", "\u00ad \ufeff"])
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"])
START = st.sampled_from([b"", b"\xef\xbb\xbf"])
RECORDS = st.fixed_dictionaries({"_id": IDS, "text": TEXTS}, optional={"title": TEXTS, "url": IDS})
ODD_RECORDS = st.dictionaries(
    st.sampled_from(["_id", "text", "title"]),
    ODD_IDS | ODD_TEXTS | st.none() | st.integers(0, 9) | st.lists(IDS, max_size=1),
)


@st.composite
def corpora(draw, odd: bool):
    """Bytes of a .jsonl file."""
    records = st.one_of(RECORDS, ODD_RECORDS) if odd else RECORDS
    lines = [
        json.dumps(r, ensure_ascii=draw(st.booleans())) for r in draw(st.lists(records, max_size=5))
    ]
    if odd:
        lines += draw(st.lists(st.sampled_from(["{", "[]", "3", '{"_id": "d"}']), max_size=1))
    end = draw(ENDS)
    return draw(START) + "".join(line + end for line in lines).encode()


@st.composite
def queries(draw, odd: bool):
    """Bytes of a .tsv file."""
    ids, texts = (IDS | ODD_IDS, TEXTS | ODD_TEXTS) if odd else (IDS, TEXTS)
    fields = draw(st.lists(st.tuples(ids, texts), max_size=5))
    end = draw(ENDS)
    data = draw(START) + "".join(f"{key}\t{text}{end}" for key, text in fields).encode()
    return data + (draw(st.sampled_from([b"", b"q\n", b"q\ta\tb\n", b"q\t\xff\n"])) if odd else b"")


def lines_of(data: bytes) -> list[str]:
    """Lines that are not blank."""
    lines = [line.decode() for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return [line.rstrip("\r") for line in lines if line.encode().strip()]


def naive_json(data: bytes) -> list[tuple[str, str]]:
    """(id, text) of each line; ValueError where it breaks the format."""
    found = []
    for record in map(json.loads, lines_of(data)):
        if not isinstance(record, dict) or "_id" not in record or "text" not in record:
            raise ValueError
        title, text = ("" if record.get(f) is None else record[f] for f in ("title", "text"))
        if not isinstance(title, str) or not isinstance(text, str):
            raise ValueError
        key = record["_id"]
        if not isinstance(key, str | int):
            raise ValueError
        found.append((str(key), f"{title} {text}".strip() if title.strip() else text))
    return checked(found)


def naive_tsv(data: bytes) -> list[tuple[str, str]]:
    """The same of columns; one that is not two raises ValueError."""
    found = []
    for line in lines_of(data):
        key, text = line.split("\t")
        found.append((key, text))
    return checked(found)


def checked(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if any(key.split() != [key] or "\0" in key for key, _ in found):
        raise ValueError
    return found


def nothing(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def compare(path: Path, data: bytes, naive) -> None:
    """Both readers beside the naive one; a refusal names a line that is in the file."""
    path.write_bytes(data)
    try:
        expected = naive(data)
    except ValueError:
        expected = None
    pairs = attempt(lambda: [(key, text) for _, key, text in read_texts(str(path))], path, data)
    assert pairs == expected
    repeated = expected is not None and len(dict(expected)) < len(expected)
    whole = dict(expected) if expected and not repeated else None
    read = attempt(lambda: unique(str(path)), path, data)
    assert (read and read[0]) == whole
    if read is not None:
        assert list(read[1].blank) == [key for key, text in read[0].items() if nothing(text)]


def attempt(read, path: Path, data: bytes):
    try:
        return read()
    except FormatError as error:
        named = re.match(re.escape(str(path)) + r":([0-9]+): ", str(error))
        if named is None:
            assert str(error) == f"{path}: the file is empty"
            assert not data.removeprefix(b"\xef\xbb\xbf").strip()
        else:
            assert 1 <= int(named[1]) <= data.count(b"\n") + 1
        return None


@settings(max_examples=120, deadline=None)
@given(corpora(odd=False) | corpora(odd=True))
def test_a_corpus_is_read_as_by_loops_or_refused_with_a_line(tmp_path_factory, data):
    compare(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", data, naive_json)


@settings(max_examples=120, deadline=None)
@given(queries(odd=False) | queries(odd=True))
def test_queries_are_read_as_by_loops_or_refused_with_a_line(tmp_path_factory, data):
    compare(tmp_path_factory.mktemp("queries") / "queries.tsv", data, naive_tsv)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["a.jsonl", "a.tsv"]))
def test_any_bytes_are_refused_with_a_line(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    attempt(lambda: list(read_texts(str(path))), path, data)


@settings(max_examples=15, deadline=None)
@given(corpora(odd=False), queries(odd=False))
def test_a_collection_holds_what_loops_read(tmp_path_factory, corpus, asked):
    folder = tmp_path_factory.mktemp("files")
    (folder / "c.jsonl").write_bytes(corpus)
    (folder / "q.tsv").write_bytes(asked)
    texts, wanted = naive_json(corpus), naive_tsv(asked)
    good = all(0 < len(x) == len(dict(x)) for x in (texts, wanted))
    try:
        loaded = Files(str(folder / "c.jsonl"), str(folder / "q.tsv")).load()
    except FormatError:
        assert not good
        return
    assert good
    assert (dict(loaded.passages.items()), loaded.queries) == (dict(texts), dict(wanted))
