"""The offline collection, read from a library that is written for it."""

import sys
import textwrap

import pandas as pd
import pytest

from rdx.data import pydocs
from rdx.data.pydocs import SPLITS, PyDocs


def body(topic: str, words: int = 20) -> str:
    return " ".join([topic] * words)


MODULE = f'''
import package_that_is_nowhere
raise SystemExit("this module must not run")


def smooth(x):
    """Smooth a signal with a moving window.

    {body("smoothing")}

    Parameters
    ----------
    x : array
        Signal of :class:`~fakelib.Signal` type.

    See Also
    --------
    sharpen : The opposite.
    core.Filter.apply, nowhere
    helper

    Examples
    --------
    >>> smooth(1)
    2
    """


def sharpen(x):
    """
    Sharpen a signal by its second derivative.

    {body("sharpening")}

    >>> sharpen(3)
    doctestoutput

    Text after the ``doctest`` with *stars* and :func:`~fakelib.core.smooth`.
    """


def helper():
    """Help."""


def _hidden():
    """Hide a signal from all the others.

    {body("hiding")}
    """


class Filter:
    """Keep a set of weights for filtering.

    {body("weights")}
    """

    def apply(self):
        """Apply the filter to a signal.

        {body("applying")}
        """

    def _private(self):
        """Keep the filter from being applied.

        {body("private")}
        """


async def later(x):
    """later(x, *, out=None) -> Signal

    Wait for a signal that comes.

    {body("waiting")}
    """
'''

OTHER = f'''
def sharpen(x):
    """Sharpen an image by its second derivative.

    {body("image")}

    See Also
    --------
    sharper
    """


def sharper(x):
    """Sharpen an image by its second derivative.

    {body("sharper")}
    """


def copied(x):
    """Copy the body of another function.

    {body("sharper")}
    """


def listed():
    """Pick one of the following:

    {body("listing")}
    """


def short():
    """Say too little about the body.

    {body("short", 14)}
    """


add_newdoc("fakelib.core", "compiled", """
    Compile a signal to machine code.

    {body("compiling")}

    See Also
    --------
    sharpen
    """)
lib.add_docstr(lib.linked, r"""
linked(x) -> Signal

Link two signals to each other.

{body("linking", 90)}
""")
print("this module must not run")
'''


@pytest.fixture
def fakelib(tmp_path, monkeypatch):
    pydocs._build.cache_clear()
    root = tmp_path / "site" / "fakelib"
    (root / "tests").mkdir(parents=True)
    files = {
        "__init__.py": '"""A library."""\nraise SystemExit',
        "core.py": textwrap.dedent(MODULE),
        "other.py": OTHER,
        "broken.py": "def broken(:\n",
        "latin.py": b"# \xe9t\xe9\ndef f(): pass\n",
        "null.py": b"x = 1\0\n",
        "tests/test_core.py": MODULE.replace("smooth", "tested"),
    }
    for name, text in files.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "site" / "fakefile.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield root
    pydocs._build.cache_clear()


@pytest.fixture
def whole(fakelib):
    return PyDocs(("fakelib",)).load("all")


def grades(collection) -> dict[str, dict[str, int]]:
    """Grades by query text."""
    qrels = collection.qrels
    return {
        collection.queries[q]: dict(zip(rows.doc_id, rows.relevance, strict=True))
        for q, rows in qrels.groupby("query_id")
    }


def test_passages_are_bodies(whole):
    assert whole.passages == {
        "fakelib.core.smooth": f"{body('smoothing')} x : array Signal of fakelib.Signal type.",
        "fakelib.core.sharpen": f"{body('sharpening')} Text after the doctest with stars and "
        "fakelib.core.smooth.",
        "fakelib.core.Filter": body("weights"),
        "fakelib.core.Filter.apply": body("applying"),
        "fakelib.core.later": body("waiting"),
        "fakelib.other.sharpen": body("image"),
        "fakelib.other.sharper": body("sharper"),
        "fakelib.other.compiled": body("compiling"),
        "fakelib.other.linked": body("linking", 60),
    }


def test_queries_are_summaries_and_grades_follow_the_docstrings(whole):
    assert grades(whole) == {
        "Smooth a signal with a moving window.": {
            "fakelib.core.smooth": 2,
            # of two objects called sharpen, the one of the same module
            "fakelib.core.sharpen": 1,
            "fakelib.core.Filter.apply": 1,
        },
        "Sharpen a signal by its second derivative.": {"fakelib.core.sharpen": 2},
        "Keep a set of weights for filtering.": {"fakelib.core.Filter": 2},
        "Apply the filter to a signal.": {"fakelib.core.Filter.apply": 2},
        "Wait for a signal that comes.": {"fakelib.core.later": 2},
        # shared by two objects, one of which names the other: both are summarised
        "Sharpen an image by its second derivative.": {
            "fakelib.other.sharpen": 2,
            "fakelib.other.sharper": 2,
        },
        # its body is that of another object, whose passage stands for both
        "Copy the body of another function.": {"fakelib.other.sharper": 2},
        "Compile a signal to machine code.": {
            "fakelib.other.compiled": 2,
            "fakelib.other.sharpen": 1,
        },
        "Link two signals to each other.": {"fakelib.other.linked": 2},
    }
    assert set(whole.queries) == set(whole.qrels.query_id)
    assert whole.qrels.relevance.dtype == "int32"
    assert whole.qrels[whole.qrels.duplicated(["query_id", "doc_id"])].empty
    assert whole.counts == {"too_short": 2}  # helper and short


def test_nothing_is_imported(whole):
    assert not [name for name in sys.modules if name.split(".")[0] == "fakelib"]


def test_word_limits(fakelib):
    short = PyDocs(("fakelib",), max_words=5, min_words=5).load("all")
    assert short.passages["fakelib.core.Filter"] == body("weights", 5)
    assert "fakelib.other.short" in short.passages
    long = PyDocs(("fakelib",), max_words=200, min_words=21).load("all")
    assert long.passages["fakelib.other.linked"] == body("linking", 90)
    assert set(long.passages) == {f"fakelib.{d}" for d in (
        "core.smooth", "core.sharpen", "other.linked",
    )}  # fmt: skip


def test_preparing_changes_nothing(fakelib, tmp_path):
    data, folder = PyDocs(("fakelib",)), tmp_path / "prepared"
    folder.mkdir()
    data.prepare(folder)
    (fakelib / "core.py").unlink()
    for split in SPLITS:
        one, other = data.load(split), data.load(split, folder)
        assert (one.queries, one.passages, one.counts) == (
            other.queries, other.passages, other.counts,
        )  # fmt: skip
        assert list(one.queries) == list(other.queries)
        pd.testing.assert_frame_equal(one.qrels, other.qrels)
    assert "fakelib.core.smooth" in data.load("all", folder).passages


@pytest.fixture
def large(tmp_path, monkeypatch):
    """300 objects, of which every second names the next one."""
    pydocs._build.cache_clear()
    root = tmp_path / "site" / "largelib"
    root.mkdir(parents=True)
    parts = []
    for i in range(300):
        also = f"\n\n    See Also\n    --------\n    f{(i + 1) % 300}\n" if i % 2 else ""
        docstring = f"Compute the quantity of number {i}.\n\n    {body(f'word{i}')}{also}"
        parts.append(f'def f{i}():\n    """{docstring}"""\n')
    (root / "__init__.py").write_text("\n".join(parts))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield PyDocs(("largelib",))
    pydocs._build.cache_clear()


def test_splits_are_disjoint_and_held_out_queries_graded(large):
    loaded = {split: large.load(split) for split in SPLITS}
    assert len(loaded["all"].queries) == 300 == len(loaded["all"].passages)
    train, dev, test = (set(loaded[split].queries) for split in ("train", "dev", "test"))
    assert not (train & dev or train & test or dev & test)
    assert train | dev | test <= set(loaded["all"].queries)
    assert len(train) == pytest.approx(180, abs=30)
    assert len(dev) == pytest.approx(15, abs=10)
    assert len(test) == pytest.approx(45, abs=18)
    for split in ("dev", "test"):
        one = loaded[split]
        assert set(one.qrels.query_id) == set(one.queries)
        assert one.qrels.groupby("query_id").relevance.agg(set).eq({1, 2}).all()
    assert loaded["train"].qrels.groupby("query_id").relevance.min().value_counts().min() > 50
    for one in loaded.values():
        assert one.passages == loaded["all"].passages


def test_splits_are_fixed(large):
    # sha256 of the summary, its first 12 digits; sha256 of those as a number, modulo 10
    dev = large.load("dev").queries
    assert all(pydocs.hashlib.sha256(t.encode()).hexdigest()[:12] == q for q, t in dev.items())
    first = {s: min(large.load(s).queries.values()) for s in ("train", "dev", "test")}
    assert {split: text.split()[-1] for split, text in first.items()} == {
        "train": "1.", "dev": "151.", "test": "105.",
    }  # fmt: skip
    shares = {"train": range(6), "dev": [6], "test": [7, 8, 9]}
    for split, digits in shares.items():
        hashes = [pydocs.hashlib.sha256(q.encode()).hexdigest() for q in large.load(split).queries]
        assert {int(one, 16) % 10 for one in hashes} == set(digits)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"libraries": ("fakelib", "no_such")}, r"libraries: .*\['no_such'\]"),
        ({"libraries": ("fakefile",)}, r"libraries: .*\['fakefile'\]"),
        ({"libraries": ()}, "libraries"),
        ({"min_words": 0}, "min_words"),
        ({"min_words": 70}, r"min_words=70.*max_words=60"),
    ],
)
def test_bad_values_name_their_key(fakelib, settings, named):
    with pytest.raises(ValueError, match=named):
        PyDocs(**({"libraries": ("fakelib",)} | settings)).check()


def test_an_unknown_split_is_refused(fakelib):
    with pytest.raises(ValueError, match="'valid'"):
        PyDocs(("fakelib",)).load("valid")
