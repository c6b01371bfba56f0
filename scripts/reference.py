"""Write docs/reference.md, the pages of docs/reference/ and the tables of docs/spec.md.

    python scripts/reference.py

What a key means stands once, in the docstring of the class that takes it; options and their values
are those of conf/. Nothing is composed, built or run. Needs docstring_parser (extra test).
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import marks
from docstrings import NOTHING, Undocumented, arguments, checked, documented, summary, valid
from options import (
    LAUNCHER,
    TOPS,
    Choice,
    Node,
    base,
    class_named,
    described,
    first,
    groups,
    home,
    keys_of,
    nodes,
    options,
    place_of,
    told_in,
)

from analysis.rows import ByNode, RowNode
from analysis.spec import Expected, Mean, SpecNode
from rdx.accounting import Limits
from rdx.config import GROUPS
from rdx.config.schema import Root
from rdx.declared import types_of
from rdx.grids import SubGridNode, text

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = "<!-- written by scripts/reference.py from docstrings and conf/: edit those -->"
# The pages that tell more of a group.
MORE = {
    "data": ("data", "own_data"),
    "sampler": ("training_lists", "rounds"),
    "depth": ("training_lists",),
    "teacher": ("teachers",),
    "prefinetune": ("recipe",),
    "loss": ("losses",),
    "student": ("models",),
    "budget": ("training_lists",),
    "trainer": ("several_gpus",),
    "evaluation": ("evaluation",),
    "tracking": ("tracking",),
    LAUNCHER: ("grids",),
}
OTHER = {"recipe": "recipes.md", "experiments": "spec.md"}  # groups of whole configurations
# What the tables between marks show: of docs/reference.md, and of docs/spec.md.
ROOT_TABLES = {"top-level keys": Root, "limits": Limits}
SPEC_TABLES = {
    "spec": SpecNode,
    "row": RowNode,
    "rows by factors": ByNode,
    "sub-grid": SubGridNode,
    "expected": Expected,
    "mean": Mean,
}


# --- tables ---


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table of Markdown."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def class_table(node: Node) -> list[str]:
    """The keys of a class: default, valid values, meaning; keys that are told together in a row."""
    told, rows = documented(node.cls), []
    given = sorted(node.keys, key=lambda key: isinstance(node.keys[key], Choice))
    for entry in dict.fromkeys(told[key] for key in checked(node.cls, given)):
        names = [f"`{key}`" for key in entry.keys]
        defaults = [_default_of(node, key) for key in entry.keys]
        values = dict.fromkeys(_values_of(node, key) for key in entry.keys)
        shown = ", ".join(filter(None, defaults)), "; ".join(filter(None, values))
        rows.append([", ".join(names), *shown, entry.meaning])
    return table(["key", "default", "values", "meaning"], rows) if rows else []


def _default_of(node: Node, key: str) -> str:
    """The value of a key in a node, else in its class; "" of one that the class passes on."""
    if key in node.keys:
        return default(node.keys[key])
    taken = arguments(node.cls)
    return default(taken[key]) if key in taken else ""


def _values_of(node: Node, key: str) -> str:
    types = types_of(node.cls)
    words = valid(types[key], linked) if key in types else ""
    value = node.keys.get(key)
    return words or (f"an option of `{value.group}`" if isinstance(value, Choice) else "")


def linked(cls: type) -> str:
    """The name of a class of rdx, with a link to its keys, if it has some here."""
    known = any(node.cls is cls for node in nodes())
    return f"[`{cls.__name__}`]({page(home(cls).group)}#{cls.__name__.lower()})" if known else ""


def page(group: str) -> str:
    """The file of a group, in docs/reference/."""
    return f"{'launcher' if group == LAUNCHER else group.split('/')[0]}.md"


def default(value: Any) -> str:
    """A default as it is shown."""
    if value is NOTHING or value == "???":
        return "must be given"
    if isinstance(value, Choice):
        return f"`{value.group}={value.option}`"
    if isinstance(value, dict) and "_target_" in value:
        return linked(class_named(value["_target_"]))
    if dataclasses.is_dataclass(value):
        return linked(type(value))
    if isinstance(value, dict):
        return f"`{value}`" if not value else ", ".join(f"`{key}`" for key in value)
    shown = text(value).replace("\n", r"\n").replace("|", r"\|")
    return f"`{shown}`" if shown else '`""`'


def differences(keys: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """What an option sets otherwise than another of the same class."""
    shown = []
    for key, value in keys.items():
        if key == "_target_" or value == others.get(key) or (not value and key not in others):
            continue
        if isinstance(value, dict) and "_target_" not in value:
            shown.append(f"`{key}`: {len(value)}")
        elif value == "???":
            shown.append(f"`{key}` must be given")
        elif isinstance(value, dict | Choice):
            shown.append(f"`{key}`: {default(value)}")
        else:
            shown.append(f"`{key}={default(value)[1:-1]}`")
    return ", ".join(shown)


def option_table(group: str) -> list[str]:
    """The options of a group: what each is, its class, and in what it differs from the first."""
    default_name, rows = first(group), []
    files = sorted(options(group).items(), key=lambda item: item[0] != default_name)
    classes = {name: keys_of(file).get("_target_") for name, file in files}
    for name, file in files:
        keys = keys_of(file)
        cls = class_named(classes[name]) if classes[name] else None
        sets = ""
        if other := base(file):
            sets = f"as `{other}`, {differences(keys, keys_of(options(group)[other]))}"
        elif cls and home(cls).group == group:
            sets = differences(keys, home(cls).keys)
        mark = " (default)" if name == default_name else ""
        rows.append([f"`{name}`{mark}", described(file), linked(cls) if cls else "", sets])
    heads = ["option", "what it is", "class", "sets"]
    several = len(set(classes.values())) > 1
    shown = [i for i in range(4) if (i != 2 or several) and (i != 3 or any(r[3] for r in rows))]
    return table([heads[i] for i in shown], [[row[i] for i in shown] for row in rows])


# --- pages ---


def group_page(top: str) -> str:
    """The page of a config group, with the groups below it."""
    is_launcher = top == LAUNCHER
    meaning = summary_of_launchers() if is_launcher else documented(Root)[top].meaning
    key = "hydra.launcher" if is_launcher else top
    more = ", ".join(f"[{name}](../{name}.md)" for name in MORE[top])
    lines = [HEAD, "", f"# Group `{top}`", "", meaning, ""]
    lines += [f"`{top}=OPTION` chooses, `{key}.KEY=VALUE` changes. More: {more}.", ""]
    for group in groups(top):
        if group != top:
            place = group.replace("/", ".")
            lines += [f"## `{group}`", "", f"`{group}=OPTION`, `{place}.KEY=VALUE`.", ""]
        lines += [*option_table(group), ""]
        for node in told_in(group):
            place = place_of(node.cls)
            where = f" Its keys: `{key}.{place}.KEY`." if place else ""
            lines += [f"### {node.cls.__name__}", "", f"{summary(node.cls)}{where}", ""]
            lines += [*class_table(node), ""] if checked(node.cls, node.keys) else []
    return "\n".join(with_links(lines, "../")).rstrip() + "\n"


def with_links(lines: Iterable[str], up: str) -> list[str]:
    """Lines in which the pages that docstrings name, as docs/NAME.md, are links."""
    return [re.sub(r"docs/(\w+)\.md", rf"[\1]({up}\1.md)", line) for line in lines]


def summary_of_launchers() -> str:
    """What the group of the launchers is; it is Hydra's own."""
    return "What runs the cells of a grid. `basic`, Hydra's own, runs one after the other, here."


def group_table() -> list[str]:
    """All groups, with their options."""
    rows = []
    for top in TOPS:
        meaning = summary_of_launchers() if top == LAUNCHER else documented(Root)[top].meaning
        for group in groups(top):
            chosen = first(group)
            names = sorted(options(group), key=lambda name: name != chosen)
            link = f"[`{group}`](reference/{page(group)})"
            told = meaning if group == top else f"part of `{top}`"
            rows.append([link, told, ", ".join(f"`{name}`" for name in names)])
    for group, target in OTHER.items():
        meaning = "a whole configuration: `+recipe=NAME`" if group == "recipe" else (
            "a grid and its table: `+experiments=NAME`"
        )  # fmt: skip
        names = ", ".join(f"`{name}`" for name in options(group))
        rows.append([f"[`{group}`]({target})", meaning, names])
    return table(["group", "what it is", "options; the first is the default"], rows)


def plain_table(cls: type) -> list[str]:
    """The keys of a mapping, or of the root: what is given, and what it means."""
    told = documented(cls)
    keys = [key for key in checked(cls) if cls is not Root or key not in GROUPS]
    rows = [[f"`{key}`", told[key].values, told[key].meaning] for key in keys]
    return with_links(table(["key", "value", "meaning"], rows), "")


def filled(page: str, tables: Mapping[str, list[str]]) -> str:
    """A page with the tables between its marks written anew."""
    return marks.filled(page, "reference", {k: "\n".join(lines) for k, lines in tables.items()})


def pages() -> dict[Path, str]:
    """Every page, as it should be; the hand-written parts are those that it has."""
    index, spec = DOCS / "reference.md", DOCS / "spec.md"
    root = {name: plain_table(cls) for name, cls in ROOT_TABLES.items()}
    return {
        index: filled(index.read_text(encoding="utf-8"), {"groups": group_table(), **root}),
        spec: filled(
            spec.read_text(encoding="utf-8"),
            {name: plain_table(cls) for name, cls in SPEC_TABLES.items()},
        ),
        **{DOCS / "reference" / page(top): group_page(top) for top in TOPS},
    }


if __name__ == "__main__":
    try:
        written = pages()
    except Undocumented as error:
        sys.exit(f"reference: {error}; say it in the docstring")
    for path, content in written.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    print(f"{len(written)} pages")
