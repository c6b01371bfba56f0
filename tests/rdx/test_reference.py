"""The reference is what docstrings, types and conf/ say, and lacks nothing of them."""

import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

import pytest
import yaml
from annotated_types import Ge, Le

from rdx.declared import MODEL, READ, Above0, Group, Seed, Share, one_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = DOCS / "reference.md"
ROW = re.compile(r"^\| (`[^|]*?`) \|", re.M)  # the first column of a row that begins with code
CODE = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Let the scripts be imported."""
    sys.path.insert(0, str(ROOT / "scripts"))
    yield
    sys.path.remove(str(ROOT / "scripts"))


def keys_of(text):
    """The keys that the tables of a text have, in the first column."""
    return {key for cell in ROW.findall(text) for key in CODE.findall(cell)}


def sections():
    """Name of a class -> the parts of pages that are about one of that name."""
    text = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    parts = re.split(r"^### (\w+)$", text, flags=re.M)[1:]
    told = defaultdict(list)
    for name, part in zip(parts[::2], parts[1::2], strict=True):
        told[name].append(re.split(r"^##? ", part, flags=re.M)[0])
    return told


def nodes(tree):
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield tree
        for child in tree.values():
            yield from nodes(child)


def test_the_pages_are_current():
    import reference

    pages = reference.pages()
    stale = [path.name for path, text in pages.items() if path.read_text() != text]
    assert not stale, "run: python scripts/reference.py"
    assert {*(DOCS / "reference").iterdir()} == {p for p in pages if p.parent.name == "reference"}


def test_every_key_of_conf_is_on_a_page():
    told = sections()
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        if file.parent.name in ("prompts", "recipe") or file.name == "config.yaml":
            continue
        for node in nodes(yaml.safe_load(file.read_text())):
            name = node["_target_"].rpartition(".")[2]
            keys = node.keys() - {"_target_", "defaults"}
            assert any(keys <= keys_of(part) for part in told[name]), f"{file}: {name}"


def test_every_option_is_on_its_page():
    for file in sorted((ROOT / "conf").rglob("[!_]*.yaml")):
        group = file.parent.relative_to(ROOT / "conf").as_posix()
        if group in (".", "teacher/prompts"):
            continue
        assert f"`{file.stem}`" in INDEX.read_text(), file
        if group != "recipe":
            page = "launcher" if group == "hydra/launcher" else group.split("/")[0]
            assert f"| `{file.stem}`" in (DOCS / "reference" / f"{page}.md").read_text(), file


def test_every_key_of_the_root_is_on_the_index():
    root = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    hydra, told = root.pop("hydra"), keys_of(INDEX.read_text())
    groups = {next(iter(entry)) for entry in root.pop("defaults") if isinstance(entry, dict)}
    hydra.pop("help")
    leaves = {f"hydra.{k}.{name}" for k, node in hydra.items() for name in node if k != "sweeper"}
    assert told >= {*root, *root["limits"], *leaves, "hydra.sweeper"}
    assert all(f"| [`{group}`](reference/{group}.md) |" in INDEX.read_text() for group in groups)


def test_every_environment_variable_is_on_the_index():
    files = [file for folder in ("rdx", "analysis", "hydra_plugins", "conf")
             for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".yaml")]  # fmt: skip
    read = {name for file in files for name in re.findall(r"RDX_[A-Z_]*[A-Z]", file.read_text())}
    assert {key for key in keys_of(INDEX.read_text()) if key.startswith("RDX_")} == read


def slug(heading):
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_links_lead_somewhere():
    for page in (INDEX, DOCS / "spec.md", DOCS / "python.md", *(DOCS / "reference").glob("*.md")):
        for place, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            target = page.parent / place if place else page
            assert target.exists(), f"{page.name}: {place}"
            heads = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert not anchor or anchor in map(slug, heads), f"{page.name}: {place}#{anchor}"


# --- what the generator refuses, and how it words things ---


@dataclass
class Silent:
    """Of two keys, one is told.

    Parameters
    ----------
    told
        It is.
    """

    told: int = 1
    hidden: int = 2


class Talkative(TypedDict):
    """Tells of a key that there is not.

    Attributes
    ----------
    told : number
        It is.
    gone : number
        It is not.
    """

    told: int


@pytest.mark.parametrize(("cls", "key"), [(Silent, "hidden"), (Talkative, "gone")])
def test_a_key_without_a_meaning_and_a_meaning_without_a_key_are_refused(cls, key):
    from docstrings import Undocumented, checked

    with pytest.raises(Undocumented, match=key):
        checked(cls)


@pytest.mark.parametrize(
    ("prose", "line"),
    [
        ('"cls": its own; None = all', "`cls`: its own; `null` = all"),
        ("``a * b`` of `top`, k >= 1", "`a * b` of `top`, k ≥ 1"),
        ("as in ``{seed: null}``", "as in `{seed: null}`"),
        ("log p(query | passage)\n    of it", r"log p(query \| passage) of it"),
        ('such as "vllm 0.11"', 'such as "vllm 0.11"'),
    ],
)
def test_prose_of_a_docstring_in_the_words_of_a_configuration(prose, line):
    from docstrings import markdown

    assert markdown(prose) == line


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (bool, "`true`, `false`"),
        (Above0, "number > 0"),
        (Seed, "whole number ≥ 0"),
        (Share | None, "number ≥ 0, ≤ 1 or `null`"),
        (Annotated[str, one_of("a", "b")] | None, "`a`, `b` or `null`"),
        (Annotated[int | None, Ge(2), Le(5)], "whole number ≥ 2, ≤ 5 or `null`"),
        (Annotated[object, Group("loss")], "an option of `loss`"),
        (Annotated[tuple[object, ...], Group("loss")], "list of options of `loss`"),
        (dict[str, float], "NAME: number"),
        (tuple[str, ...], "list"),
        (Annotated[str, MODEL], "model"),
        (Annotated[str, READ], "file or folder"),
        (Silent, "its keys"),
        (object, ""),
    ],
)
def test_what_a_type_takes_in_words(kind, words):
    from docstrings import valid

    assert valid(kind, lambda cls: "its keys" if cls is Silent else "") == words
