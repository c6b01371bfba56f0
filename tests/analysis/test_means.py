"""Means over collections: by hand, what is left out, and what a table says of them."""

import numpy as np
import pytest

from analysis.means import declared, over_collections
from analysis.nodes import SpecError
from analysis.report import main_table
from analysis.rows import Row
from analysis.scores import Scores
from analysis.spec import Mean, parse
from analysis.summary import Summary, summarise
from rdx.facts import Means, OverCollections
from tests import records
from tests.analysis.conftest import trials_of
from tests.analysis.facts import collection

ROWS = [Row("A", "student", {"grid": ("g",)}, True, True), Row("B", "first_stage", {}, False, True)]


def scores(*seeds, queries=4):
    """Scores whose mean over queries is that of each seed."""
    values = np.array(seeds)[None] + np.linspace(-0.1, 0.1, queries)[:, None]
    return Scores(tuple(f"q{i}" for i in range(queries)), values, tuple(range(len(seeds))))


FOUND = {
    ("A", "x", "P"): scores(0.2, 0.4),
    ("A", "y", "P"): scores(0.8, 0.2, queries=9),
    ("B", "x", "P"): Scores(("q0",), np.array([[0.5]]), ()),
    ("B", "y", "P"): Scores(("q0",), np.array([[0.0]]), ()),
}


def means(*wanted, facts=None, found=FOUND, collections=("x", "y")):
    return over_collections(wanted, ROWS, ["P"], collections, facts or {}, found)


def test_every_collection_weighs_the_same_and_seeds_come_last():
    both = means(Mean("mean", (), "arithmetic"), Mean("geo", (), "geometric"))
    assert both["A", "mean", "P"].values == pytest.approx(np.array([[0.5, 0.3]]))
    assert both["A", "mean", "P"].mean == pytest.approx(0.4)
    assert both["A", "mean", "P"].seeds == (0, 1)
    assert both["A", "geo", "P"].seed_means == pytest.approx([0.16**0.5, 0.08**0.5])
    assert both["B", "mean", "P"].mean == 0.25 and both["B", "mean", "P"].seeds == ()
    assert both["B", "geo", "P"].mean == 0  # as one of them is


def test_means_that_trials_declare_are_columns():
    """Where the spec declares none; of its own test sets only, and of one meaning."""

    def trial(**named):
        nothing = {"left_out": {}, "arithmetic": {}, "geometric": {}}
        over = {name: Means(corpora=of, **nothing) for name, of in named.items()}
        return records.trial(
            "s", over_collections=OverCollections(collections=records.NO_MEANS, named=over)
        )

    both = trial(both=("x", "y"), deep=("x", "z"))
    assert declared([both, both, trial()], ["x", "y"]) == (Mean("both", ("x", "y"), "arithmetic"),)
    assert [mean.name for mean in declared([both], ["x", "y", "z"])] == ["both", "deep"]
    assert declared([both, trial(both=("y", "z"))], ["x", "y", "z"]) == declared(
        [trial(deep=("x", "z"))], ["x", "z"]
    )
    column = means(*declared([both], ["x", "y"]))
    assert column["A", "both", "P"].values == pytest.approx(np.array([[0.5, 0.3]]))


def test_a_row_that_lacks_a_collection_has_no_mean():
    some = {key: value for key, value in FOUND.items() if key[:2] != ("B", "y")}
    assert set(means(Mean("mean", (), "arithmetic"), found=some)) == {("A", "mean", "P")}
    assert means(Mean("mean", ("x", "z"), "arithmetic")) == {}


@pytest.mark.parametrize("facts", [{"reason": "ceiling"}, {"in_mean": False}])
def test_what_does_not_count_is_left_out_unless_it_is_named(facts):
    found = means(
        Mean("all", (), "arithmetic"),
        Mean("both", ("x", "y"), "arithmetic"),
        facts={"y": collection(**facts)},
    )
    assert found["A", "all", "P"].mean == pytest.approx(0.3)
    assert found["A", "both", "P"].mean == pytest.approx(0.4)


def table_of(**spec) -> Summary:
    node = {
        "name": "s",
        "measures": ["nDCG@10"],
        "grid": {"g": []},
        "rows": [{"name": "First stage", "system": "first_stage"}, {"name": "A", "grid": "g"}],
        "baseline": "First stage",
        **spec,
    }
    grid = {"g": [("loss=a", "seed=1"), ("loss=a", "seed=2")]}
    collections = {"c1": (8, "bm25"), "c2": (5, "bm25")}
    return summarise(parse(node), trials_of(grid, collections, lambda overrides: 0.1))


def test_a_mean_is_a_column_without_tests_and_can_be_expected():
    expected = {"row": "A", "collection": "both", "measure": "nDCG@10", "value": 0.5}
    found = table_of(means=[{"name": "both"}], expected=[{**expected, "source": "paper"}])
    one = found.lookup("A", "both", "nDCG@10")
    parts = [found.scores["A", c, "nDCG@10"].mean for c in ("c1", "c2")]
    assert one.mean == pytest.approx(sum(parts) / 2)
    table = main_table(found)
    assert [column.group for column in table.columns[1:4]] == ["c1", "c2", "both"]
    assert table.rows[1][3].value == one.mean and "significant" not in table.rows[1][3].flags
    assert "both: arithmetic mean over c1, c2, each weighing the same; not tested." in table.notes
    assert {c.collection for c in found.against} == {"c1", "c2"}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"of": ["c1"]}, "lacks name"),
        ({"name": "m", "kind": "harmonic"}, "'harmonic' is not one of: arithmetic, geometric"),
        ({"name": "m", "of": ["c9"]}, "m: collection 'c9' is not one of: c1, c2"),
        ({"name": "c1"}, "two columns of the same name"),
        ({"name": "m", "weights": 1}, "unknown key 'weights'; valid: name, of, kind"),
    ],
)
def test_bad_means(node, message):
    with pytest.raises(SpecError, match=message):
        table_of(collections=["c1", "c2"], means=[node])
