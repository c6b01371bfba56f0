"""Build the offline collection: known-item search over the docs of installed Python libraries.

Sources are read with `ast` from the installed files; nothing of the libraries is imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import metadata
from os.path import commonprefix
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import MinLen
from pydantic import JsonValue

from rdx import facts
from rdx.bars import bar
from rdx.collection import Collection
from rdx.declared import DecidedBy, Positive, Texts, settings, version

LIBRARIES = ("numpy", "scipy", "pandas", "torch", "statsmodels", "matplotlib", "sklearn")
_TEXTS, _QRELS = "texts.json", "qrels.parquet"
SPLITS = {"train": range(0, 6), "dev": range(6, 7), "test": range(7, 10), "all": range(0, 10)}


def _package(name: str) -> str:
    """The package of an import name; one has another."""
    return "scikit-learn" if name == "sklearn" else name


def _versions(libraries: tuple[str, ...]) -> JsonValue:
    """The installed versions."""
    return {name: version(_package(name)) for name in libraries}


def _licence(name: str) -> str:
    """What a package says of its licence: an expression, else its classifiers."""
    known = metadata(_package(name))
    expressions = known.get_all("License-Expression") or []
    classifiers = [text for text in known.get_all("Classifier") or [] if text.startswith("License")]
    return ", ".join(expressions or classifiers) or "see the package"


@settings(frozen=True)
class PyDocs:
    """Summary lines as queries, the bodies of the same docstrings as passages.

    Relevance: 2 = a passage that the query summarises (every one of them when several objects
    share the summary), 1 = the passages of the objects that their "See Also" sections name. Queries
    are split into train, dev and test (60/10/30 %) by the sha256 of their id; only queries with at
    least one passage of grade 1 are dev or test queries.

    Parameters
    ----------
    libraries
        Import names of installed packages to read. Their versions are part of the identity.
    max_words
        A passage keeps this many words of the body (60 words is an MS MARCO passage).
    min_words
        Shorter bodies are left out.
    """

    libraries: Annotated[Texts, MinLen(1), DecidedBy(_versions)] = LIBRARIES
    max_words: Positive = 60
    min_words: Positive = 15

    name = "pydocs"

    def __post_init__(self) -> None:
        """Check values together."""
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words={self.min_words}: must be between 1 and data.max_words={self.max_words}"
            )

    def check(self) -> None:
        """Raise ValueError naming the libraries that are not installed."""
        absent = [name for name in self.libraries if not _folders(name)]
        if absent:
            raise ValueError(
                f"libraries: not installed packages: {absent}; known to work: {list(LIBRARIES)}"
            )

    def licences(self) -> list[str]:
        """Whose texts these are, and under which terms, as the packages say."""
        return [f"docstrings of {name}: {_licence(name)}" for name in self.libraries]

    def prepare(self, folder: Path) -> None:
        """Read the libraries' sources (some 20 s) and write the collection into a folder."""
        texts, qrels = _build(self.libraries, self.max_words, self.min_words)
        (folder / _TEXTS).write_text(facts.dump(texts), encoding="utf-8")
        qrels.to_parquet(folder / _QRELS, index=False)

    def load(self, split: str = "all", folder: Path | None = None) -> Collection:
        """Load the collection with the queries of a split: "train", "dev", "test" or "all".

        With `folder`, what `prepare` wrote there is used.
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: must be one of {list(SPLITS)}")
        if folder is None:
            texts, qrels = _build(self.libraries, self.max_words, self.min_words)
        else:
            texts, qrels = _prepared(folder)
        graded = set(qrels.loc[qrels.relevance == 1, "query_id"])
        queries = {
            query_id: text
            for query_id, text in texts.queries.items()
            if int(hashlib.sha256(query_id.encode()).hexdigest(), 16) % 10 in SPLITS[split]
            and (query_id in graded or split not in ("dev", "test"))
        }
        qrels = qrels[qrels.query_id.isin(queries.keys())].reset_index(drop=True)
        return Collection(self.name, queries, texts.passages, qrels, texts.counts)


@dataclass(frozen=True)
class _Item:
    """One documented object: where it is, its summary line, its body, what it points to."""

    library: str
    id: str
    summary: str
    body: str
    see_also: tuple[str, ...]


@dataclass(frozen=True)
class _Texts:
    """Queries and passages by id; oddities by name."""

    queries: dict[str, str]
    passages: dict[str, str]
    counts: dict[str, int]


@lru_cache(maxsize=4)
def _prepared(folder: Path) -> tuple[_Texts, pd.DataFrame]:
    """Texts and qrels as `PyDocs.prepare` wrote them."""
    texts = facts.parse(_Texts, (folder / _TEXTS).read_bytes())
    return texts, pd.read_parquet(folder / _QRELS).astype({"relevance": "int32"})


@lru_cache(maxsize=2)
def _build(
    libraries: tuple[str, ...], max_words: int, min_words: int
) -> tuple[_Texts, pd.DataFrame]:
    """Read the libraries: equal bodies are one passage, equal summaries one query."""
    items = [item for library in libraries for item in _items(library)]
    passages: dict[str, str] = {}
    passage_of: dict[str, str] = {}  # object -> passage (equal bodies are one passage)
    first_with: dict[str, str] = {}
    short = 0
    for item in items:
        words = item.body.split()
        if len(words) < min_words:
            short += 1
            continue
        text = " ".join(words[:max_words])
        passage_of[item.id] = first_with.setdefault(text, item.id)
        passages.setdefault(passage_of[item.id], text)

    groups: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        if item.id in passage_of and _is_query(item.summary):
            groups[item.summary].append(item)

    by_tail = _tails(items)
    queries: dict[str, str] = {}
    rows = []
    for summary, members in groups.items():
        query_id = hashlib.sha256(summary.encode()).hexdigest()[:12]
        queries[query_id] = summary
        grades: dict[str, int] = {}
        for member in members:
            for name in member.see_also:
                target = _resolve(name, member, by_tail)
                if target in passage_of:
                    grades[passage_of[target]] = 1
        grades.update({passage_of[member.id]: 2 for member in members})
        rows += [(query_id, doc_id, grade) for doc_id, grade in grades.items()]
    qrels = pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])
    return _Texts(queries, passages, {"too_short": short}), qrels.astype({"relevance": "int32"})


def _is_query(summary: str) -> bool:
    return 4 <= len(summary.split()) <= 30


def _tails(items: list[_Item]) -> dict[tuple[str, str], list[str]]:
    """(library, last name) -> ids of the objects so called."""
    tails: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in items:
        tails[item.library, item.id.rsplit(".", 1)[-1]].append(item.id)
    return tails


def _resolve(name: str, source: _Item, tails: dict[tuple[str, str], list[str]]) -> str:
    """The object that a See-Also entry means: same last names, longest path shared with source."""
    parts = name.lstrip("~.").split(".")

    def closeness(candidate: str) -> tuple[int, int, str]:
        path = candidate.split(".")
        suffix = commonprefix([path[::-1], parts[::-1]])
        return len(suffix), len(commonprefix([path, source.id.split(".")])), candidate

    namesakes = [c for c in tails.get((source.library, parts[-1]), []) if c != source.id]
    return max(namesakes, key=closeness, default="")


def _folders(library: str) -> list[str]:
    """Where a package lies; empty if it is not installed or a single file."""
    spec = importlib.util.find_spec(library)
    return list((spec and spec.submodule_search_locations) or ())


def _items(library: str) -> Iterator[_Item]:
    """Yield the documented objects of a library, file by file."""
    root = Path(_folders(library)[0])
    files = sorted(root.rglob("*.py"))
    for path in bar(files, desc=f"reading {library}", unit="file", leave=False):
        inner = path.relative_to(root).with_suffix("").parts
        if any(part in ("tests", "test", "testing", "_vendor", "conftest") for part in inner):
            continue
        module = ".".join((library, *(part for part in inner if part != "__init__")))
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # ValueError: not UTF-8, or null bytes
            continue  # templates and deliberately broken files that some packages ship
        seen: set[str] = set()
        for name, docstring in _docstrings(tree):
            if name not in seen:
                seen.add(name)
                item = _parse(library, f"{module}.{name}", docstring)
                if item is not None:
                    yield item


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and docstrings of public functions, classes, methods and `add_newdoc` calls."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if node.name.startswith("_"):
                    continue
                docstring = ast.get_docstring(node)
                if docstring:
                    yield prefix + node.name, docstring
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                yield from _added(node.value)

    yield from walk(tree.body, "")


def _added(call: ast.Call) -> Iterator[tuple[str, str]]:
    """Docstrings of C functions: `add_newdoc(module, name, doc)`, `add_docstr(f, doc)`."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    function = call.func.id if isinstance(call.func, ast.Name) else function
    constants = [a.value for a in call.args if isinstance(a, ast.Constant)]
    strings = [value for value in constants if isinstance(value, str)]
    if function == "add_newdoc" and len(call.args) == 3 and len(strings) == 3:
        yield strings[1], inspect.cleandoc(strings[2])
    elif function == "add_docstr" and len(call.args) == 2 and strings:
        yield ast.unparse(call.args[0]).split(".", 1)[-1], inspect.cleandoc(strings[-1])


SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n[-=~]{3,}\s*$", re.MULTILINE)
DROPPED = ("See Also", "References", "Examples", "Methods", "Attributes")


def _parse(library: str, id: str, docstring: str) -> _Item | None:
    """Split a docstring into summary, body without See Also, and the See-Also names."""
    docstring = docstring.strip()
    # A first line such as "abs(input, *, out=None) -> Tensor" is a signature, not a summary.
    first, _, rest = docstring.partition("\n")
    if re.match(r"^[\w.]+\(.*", first) and (first.rstrip().endswith(")") or "->" in first):
        docstring = rest.strip()
    summary, _, body = docstring.partition("\n\n")
    summary = _plain(summary)
    sections = _sections(body)
    text = " ".join(content for title, content in sections if title not in DROPPED)
    names = [n for title, content in sections if title == "See Also" for n in _names(content)]
    if not summary or summary.endswith(":"):
        return None
    return _Item(library, id, summary, _plain(_prose(text)), tuple(dict.fromkeys(names)))


def _sections(body: str) -> list[tuple[str, str]]:
    heads = list(SECTION.finditer(body))
    starts = [head.start() for head in heads] + [len(body)]
    return [("", body[: starts[0]])] + [
        (head["title"].strip().title(), body[head.end() : end])
        for head, end in zip(heads, starts[1:], strict=True)
    ]


def _names(section: str) -> list[str]:
    """Names in a numpydoc See-Also section: the part before the colon of unindented lines."""
    names = []
    for line in section.splitlines():
        if line and not line[0].isspace():
            head = re.sub(r":\w+:`~?([^`]+)`", r"\1", line)
            head = re.split(r"\s*:(?:\s|$)", head)[0]
            names += [n for n in re.split(r"[,\s]+", head) if re.fullmatch(r"[\w.~]+", n)]
    return names


def _prose(text: str) -> str:
    """Drop doctest lines and their output up to the next blank line, directives, and see-alsos."""
    text = re.sub(r"^\s*>>>.*?(?:\n\s*\n|\Z)", "\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\s*\.\. seealso::.*?(?:\n\s*\n|\Z)", "\n", text, flags=re.M | re.S | re.I)
    return re.sub(r"^\s*\.\. [\w-]+::.*$", " ", text, flags=re.MULTILINE)


def _plain(text: str) -> str:
    """Markup to words: roles and backticks removed, white space collapsed."""
    text = re.sub(r":[\w:]+:`~?([^`<]+?)(?:\s*<[^>]*>)?`", r"\1", text)
    return " ".join(text.replace("`", "").replace("*", "").split())
