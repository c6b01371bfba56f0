"""Links, words and options of the pages: what is linked exists, what exists is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.M | re.S)
LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
GLOSSARY = ROOT / "docs" / "glossary.md"


def prose(page):
    """The text of a page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def slug(heading):
    """The anchor that GitHub gives a heading; it goes on with -1, -2 where headings repeat."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip().rstrip("#").strip())
    return re.sub(r"[^\w\- ]", "", text.replace("`", "").lower()).replace(" ", "-")


def anchors(page):
    """What a link to a page may name after the #."""
    text = prose(page)
    named = set(ANCHOR.findall(text))
    for heading in re.findall(r"^#{1,6} +(.+)$", text, re.M):
        base, n = slug(heading), 0
        while (base if not n else f"{base}-{n}") in named:
            n += 1
        named.add(base if not n else f"{base}-{n}")
    return named


def broken(page):
    """The links of a page to files or anchors of this project that are not there."""
    wrong = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `Title`, here\n## Same\n## Same\n[a](#a-title-here) [b](#same-1) [c](other.md)\n"
        "[d](#none) [e](page.md#same) `[f](g.md)` [h](https://example.org)\n"
        "```\n# no heading\n[i](j.md)\n```\n[k](#no-heading)\n"
    )
    assert broken(page) == ["other.md", "#none", "#no-heading"]


def test_the_index_names_every_page():
    named = {link.partition("#")[0] for link in LINK.findall(prose(ROOT / "docs" / "README.md"))}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - named == set()


def test_words_of_the_glossary_have_anchors_each_once_and_in_order():
    ids = []
    for section in prose(GLOSSARY).split("\n## ")[1:]:
        entries = re.findall(r"^- (.*)$", section, re.M)
        words = [re.match(r'<a id="([^"]+)"></a>\*\*[^*]+\*\*', entry) for entry in entries]
        assert None not in words
        assert [word[1] for word in words] == sorted(word[1] for word in words)
        ids += [word[1] for word in words]
    assert len(ids) == len(set(ids))


GROUPS = sorted(
    folder
    for folder in (ROOT / "conf").rglob("*")
    if folder.is_dir() and any(folder.glob("*.yaml"))
)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: str(group.relative_to(ROOT / "conf")))
def test_the_table_of_the_readme_names_every_option(group):
    name = group.relative_to(ROOT / "conf").as_posix()
    rows = re.findall(rf"^\| `{name}` \|(.*?)\|", prose(ROOT / "README.md"), re.M)
    assert len(rows) == 1
    options = {path.stem for path in group.glob("*.yaml") if not path.name.startswith("_")}
    assert set(re.findall(r"`([\w-]+)`", rows[0])) == options
