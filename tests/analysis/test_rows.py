"""Rows by factors: counted by hand, on grids that are declared once."""

import pytest

from analysis.assumed import assumed
from analysis.check import against
from analysis.nodes import SpecError
from analysis.spec import parse
from rdx import stages
from rdx.config import ROOT, cells, single
from tests.analysis.facts import cell

# 3 x 2 x 2 settings, one of which is left out, and 2 seeds
GRID = {
    "sampler": ["random", "bm25", "colbert"],
    "depth.k": [10, 100],
    "loss": ["ranknet", "none"],
    "seed": [1, 2],
}
LEFT_OUT = ("random", "100", "none")
BY = ["sampler", "depth.k", "loss"]


def grid():
    return [
        cell((f"sampler={s}", f"depth.k={k}", f"loss={loss}", f"seed={seed}"))
        for s in GRID["sampler"]
        for k in GRID["depth.k"]
        for loss in GRID["loss"]
        for seed in GRID["seed"]
        if (s, str(k), loss) != LEFT_OUT
    ]


def node(**changes):
    base = {"name": "x", "grid": GRID, "measures": ["nDCG@10"], "rows": {"by": BY}}
    return {**base, **changes}


def spec(**changes):
    return parse(node(**changes), grid())


def test_a_row_for_every_combination_that_a_cell_has():
    rows = spec().rows
    assert [row.name for row in rows] == [
        "random, depth.k=10, ranknet",
        "random, depth.k=10, loss=none",
        "random, depth.k=100, ranknet",
        "bm25, depth.k=10, ranknet",
        "bm25, depth.k=10, loss=none",
        "bm25, depth.k=100, ranknet",
        "bm25, depth.k=100, loss=none",
        "colbert, depth.k=10, ranknet",
        "colbert, depth.k=10, loss=none",
        "colbert, depth.k=100, ranknet",
        "colbert, depth.k=100, loss=none",
    ]
    # every cell is in one row, with the other seed of its setting
    assert [[row.holds(c) for row in rows].count(True) for c in grid()] == [1] * 22
    assert [[row.holds(c) for c in grid()].count(True) for row in rows] == [2] * 11
    assert all(row.competes and row.test and row.system == "student" for row in rows)


def test_only_levels_that_tell_rows_apart_are_told():
    [a, b] = spec(rows={"by": BY, "levels": {"sampler": "bm25", "loss": "ranknet"}}).rows
    assert (a.name, b.name) == ("depth.k=10", "depth.k=100")
    assert a.levels == {"sampler": ("bm25",), "loss": ("ranknet",), "depth.k": ("10",)}
    named = {"by": BY, "levels": {"loss": "none"}, "names": {"bm25": "BM25", "depth.k=10": "10"}}
    assert spec(rows=named).rows[1].name == "BM25, 10"
    blocks = [cell(("loss=ranknet",), teacher="oracle"), cell(("loss=ranknet", "teacher=oracle"))]
    blocks[0].levels["teacher"] = "labels"
    rows = parse(node(rows={"by": ["loss", "teacher"]}), [blocks[0], blocks[1]]).rows
    # loss has one level; the first command line does not say its teacher: both are told
    assert [row.name for row in rows] == ["labels", "oracle"]


def test_what_a_command_line_leaves_at_its_default_is_not_told():
    block = [cell((f"loss={loss}",), levels={"teacher": "labels"}) for loss in ("lce", "ranknet")]
    block.append(cell(("loss=lce", "teacher=oracle")))
    rows = parse(node(rows={"by": ["loss", "teacher"]}), block).rows
    assert [row.name for row in rows] == ["lce", "ranknet", "lce, oracle"]


def test_rows_by_hand_stand_beside_rows_by_factors():
    rows = spec(
        rows=[
            {"name": "First", "system": "first_stage"},
            {"name": "Untrained", "levels": {"loss": "none", "sampler": "bm25", "depth.k": 10}},
            {"by": ["sampler"], "levels": {"loss": "ranknet", "depth.k": 10}},
            {
                "by": ["sampler"],
                "levels": {"loss": "ranknet", "depth.k": 10},
                "system": "student+first_stage",
            },
        ]
    ).rows
    assert [row.name for row in rows] == [
        *("First", "Untrained", "random", "bm25", "colbert"),
        *("random + first stage", "bm25 + first stage", "colbert + first stage"),
    ]


def test_a_name_of_rows_by_factors_may_be_put_together():
    named = {
        "by": BY,
        "levels": {"loss": "ranknet", "sampler": ["bm25", "random"]},
        "name": "{sampler} x {depth.k} ({loss})",
        "names": {"bm25": "BM25", "depth.k=100": "a hundred"},
    }
    assert [row.name for row in spec(rows=named).rows] == [
        *("random x 10 (ranknet)", "random x a hundred (ranknet)"),
        *("BM25 x 10 (ranknet)", "BM25 x a hundred (ranknet)"),
    ]
    taught = {"by": ["sampler"], "levels": {"depth.k": 10}, "system": "teacher", "name": "LLM, {}"}
    assert [row.name for row in spec(rows=taught).rows] == [
        *("LLM, random", "LLM, bm25", "LLM, colbert")
    ]


def test_a_sub_grid_is_a_level_like_others():
    members = [cell(("loss=lce",), "a"), cell(("loss=ranknet",), "b")]
    found = parse(node(grid={"a": ["loss=lce"], "b": []}, rows={"by": "grid"}), members)
    assert [(row.name, row.levels) for row in found.rows] == [
        ("a", {"grid": ("a",)}), ("b", {"grid": ("b",)})
    ]  # fmt: skip


def test_a_baseline_is_levels():
    assert spec(baseline={"sampler": "bm25", "depth.k": 10, "loss": "none"}).baselines == (
        "bm25, depth.k=10, loss=none",
    )
    # every row that has them
    assert spec(baseline={"sampler": "random", "loss": "ranknet"}).baselines == (
        "random, depth.k=10, ranknet",
        "random, depth.k=100, ranknet",
    )
    with pytest.raises(SpecError, match="at most 5"):
        spec(baseline={"loss": "ranknet"})


def test_comparisons_are_levels_moved():
    # of the three rows with random, one has no partner: its cell is left out
    moved = [[{"sampler": "bm25", "loss": "none"}, {"sampler": "random"}]]
    assert spec(comparisons=moved).comparisons == (
        ("bm25, depth.k=10, loss=none", "random, depth.k=10, loss=none"),
    )
    several = [[{"sampler": ["bm25", "colbert"], "loss": "ranknet"}, {"depth.k": 10}]]
    assert spec(comparisons=several).comparisons == (
        ("bm25, depth.k=100, ranknet", "bm25, depth.k=10, ranknet"),
        ("colbert, depth.k=100, ranknet", "colbert, depth.k=10, ranknet"),
    )


def test_simple_effects_are_one_word():
    found = spec(comparisons=["sampler"]).comparisons
    # three pairs of samplers at each of 3 settings that all have, and one where two have it
    assert len(found) == len(set(found)) == 3 * 3 + 1
    assert found[0] == ("bm25, depth.k=10, ranknet", "random, depth.k=10, ranknet")
    assert ("colbert, depth.k=100, loss=none", "bm25, depth.k=100, loss=none") in found
    assert len(spec(comparisons=["loss"]).comparisons) == 5
    assert len(spec(comparisons=["depth.k", "loss"]).comparisons) == 5 + 5


WRONG = [
    ({"rows": {"by": ["samplr"]}}, ["samplr", "'sampler'"]),
    ({"rows": {"by": ["sampler", "seed"]}}, ["seed"]),
    ({"rows": {"by": BY, "levels": {"sampler": "bm26"}}}, ["sampler=bm26", "'bm25'"]),
    ({"rows": {"by": BY, "names": {"bm26": "BM25"}}}, ["'bm26'", "'bm25'"]),
    ({"rows": {"by": BY, "names": ["BM25"]}}, ["names"]),
    ({"rows": {"by": BY, "name": "{sampler}, {dept.k}"}}, ["'dept.k'", "'depth.k'"]),
    ({"rows": {"by": BY, "name": "{sampler}"}}, ["two rows", "'random'"]),
    ({"rows": [{"name": "A", "levels": {"sampler": "random", "loss": "none", "depth.k": 100}}]},
     ["row 'A'"]),
    ({"baseline": {"sampler": "bm26"}}, ["baseline", "sampler=bm26", "'bm25'"]),
    ({"baseline": {"samplr": "bm25"}}, ["baseline", "samplr", "'sampler'"]),
    ({"baseline": {"sampler": "random", "loss": "none", "depth.k": 100}}, ["depth.k=100"]),
    ({"comparisons": ["sampl"]}, ["'sampl'", "'sampler'"]),
    ({"comparisons": [[{"loss": "ranknet"}, {"loss": "ranknet"}]]}, ["ranknet"]),
    ({"comparisons": [[{"loss": "ranknet"}, "a"]]}, ["comparisons"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), WRONG)
def test_what_no_cell_has_is_named_with_what_is_near(changes, named):
    with pytest.raises(SpecError) as error:
        spec(**changes)
    assert [part for part in named if part not in str(error.value)] == []


def test_rows_that_mix_settings_are_refused_before_anything_runs():
    members = cells(["loss=ranknet,lce", "depth.k=5,10", "seed=1,2"])
    whole = {"name": "x", "measures": ["nDCG@10"], "rows": {"by": ["loss", "depth.k"]}}
    against(parse(whole, members), members)
    mixed = parse({**whole, "rows": {"by": ["loss"]}}, members)
    with pytest.raises(SpecError, match=r"depth\.k"):
        against(mixed, members)


def test_the_spec_that_is_assumed():
    members = cells([
        "loss=ranknet,none", "seed=1,2", "+zip=[{sampler: [bm25, random], depth.k: [5, 10]}]"
    ])  # fmt: skip
    found = assumed("grid-1", members)
    assert [row.name for row in found.rows] == [
        *("ranknet, bm25, depth.k=5", "ranknet, random, depth.k=10"),
        *("loss=none, bm25, depth.k=5", "loss=none, random, depth.k=10"),
    ]
    assert (found.baseline, found.measures) == ("ranknet, bm25, depth.k=5", ("nDCG@10",))
    assert found.factors == ("loss", "sampler")  # depth.k moves with the sampler
    assert all(word in found.claim for word in ("loss, sampler, depth.k", "nDCG@10", "Holm"))
    against(found, members)
    [row] = assumed("grid-2", cells(["seed=1,2"])).rows
    assert row.levels == {} and assumed("grid-2", cells(["seed=1,2"])).baseline is None


# --- specs that were written as sub-grids ---

LOSSES = [
    *("ranknet", "lambda_rank", "lambda_loss", "listnet", "list_mle", "p_list_mle", "adr_mse"),
    *("approx_ndcg", "approx_mrr", "lce", "margin_mse", "mse", "hinge", "kl", "sum", "none"),
]
BEFORE = {
    "grid_sampler_depth_loss": [
        [f"sampler={sampler}", f"depth.k={k}", f"loss={loss}", f"seed={seed}"]
        for sampler in ("rd_bm25", "rd_colbert")
        for k in (10, 50, 100)
        for loss in ("ranknet", "adr_mse", "lce")
        for seed in (1, 2, 3)
    ],
    "controls": [
        ["loss=none"],
        *(
            [f"teacher={teacher}", f"seed={seed}"]
            for teacher in ("paper", "shuffled", "identity", "oracle")
            for seed in (1, 2, 3)
        ),
    ],
    "losses": [
        *([f"loss={loss}"] for loss in LOSSES),
        ["loss=ranknet", "teacher=shuffled"],
        ["loss=bce", "teacher=labels"],
        ["loss=ranknet", "teacher=labels"],
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BEFORE)
def test_a_grid_of_factors_has_the_cells_of_its_sub_grids(name, tmp_path, monkeypatch):
    monkeypatch.delenv("RDX_PAPER_FILES", raising=False)
    monkeypatch.chdir(ROOT)
    bases = {}
    before = [
        stages.signed(single([f"+experiments={name}", *overrides], None, bases), None, bases)
        for overrides in BEFORE[name]
    ]
    after = stages.cells(name)
    assert {c.signature for c in after} == {c.signature for c in before}
    assert len(after) == len(before)
    assert {frozenset(c.overrides) for c in after} == {frozenset(c.overrides) for c in before}
