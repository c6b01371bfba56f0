"""docs/spec.md: every key that a spec may have is told there, and its examples are right."""

import re
from pathlib import Path

import pytest
import yaml

from analysis import nodes, rows, spec
from analysis.check import against
from rdx import grids
from rdx.config import cells, load_spec

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
EXAMPLES = {
    yaml.safe_load(text)["spec"]["name"]: text
    for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
}
CELLS = {"depth_and_loss": 12, "lists_and_losses": 7, "published_runs": 0}


class Read(dict):
    """A node that remembers which keys were asked for."""

    def __init__(self, keys, asked):
        super().__init__(keys)
        self.asked = asked

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)


def test_what_is_told_is_what_the_parser_reads():
    asked = {name: set() for name in ("spec", "row", "expected", "mean", "sub-grid")}
    row = Read({"name": "A", "grid": "a"}, asked["row"])
    number = {"row": "A", "collection": "c", "measure": "P@1", "value": 0.5, "source": "paper"}
    spec.parse(
        Read(
            {
                "grid": {"a": Read({"sweep": ["seed=1"]}, asked["sub-grid"])},
                "measures": ["P@1"],
                "rows": [row],
                "means": [Read({"name": "m"}, asked["mean"])],
                "expected": [Read(number, asked["expected"])],
            },
            asked["spec"],
        )
    )
    told = {
        "spec": nodes.SpecNode,
        "row": nodes.RowNode,
        "expected": spec.Expected,
        "mean": spec.Mean,
        "sub-grid": grids.SubGridNode,
    }
    assert asked.pop("row") - {"by"} == set(told.pop("row").__annotations__)
    assert asked == {name: set(node.__annotations__) for name, node in told.items()}


def test_what_is_told_of_rows_by_factors_is_what_the_parser_reads(tmp_path):
    asked = set()
    node = Read({"by": ["seed_of_lists"], "grid": "a"}, asked)
    with pytest.raises(nodes.SpecError):
        rows.rows_of(node, ["a"], [], "spec x")
    [cell] = cells(["loss=none"])
    rows.rows_of(Read({"by": ["depth.k"], "grid": ""}, asked), [], [cell], "spec x")
    assert asked == set(nodes.ByNode.__annotations__)


@pytest.mark.parametrize("key", ["FAMILIES", "TESTS", "INTERVALS", "CORRECTIONS", "KINDS",
                                 "PUBLISHED", "PROVENANCE"])  # fmt: skip
def test_every_word_that_is_valid_is_on_the_page(key):
    lines = [line for line in PAGE.splitlines() if line.startswith(f"| `{WORDS[key]}` |")]
    assert any(all(word in line for word in getattr(spec, key)) for line in lines)


WORDS = {
    "FAMILIES": "family",
    "TESTS": "test",
    "INTERVALS": "interval",
    "CORRECTIONS": "correction",
    "KINDS": "kind",
    "PUBLISHED": "source",
    "PROVENANCE": "fields",
}


def test_every_system_is_on_the_page():
    told = re.findall(r"^\| `([^`]+)` \| ", PAGE, re.M)
    assert {*rows.SYSTEMS, f"{rows.IMPORTED}NAME"} <= set(told)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_have_their_cells_and_their_tables(name, tmp_path):
    file = tmp_path / f"{name}.yaml"
    file.write_text(EXAMPLES[name])
    members = cells(str(file))
    parsed = spec.parse(load_spec(str(file)), members)
    against(parsed, members)
    assert len(members) == CELLS[name]
