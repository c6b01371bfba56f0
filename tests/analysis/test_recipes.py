"""Published recipes, and the experiments on what they dispute: they are what they say."""

from dataclasses import replace
from functools import cache

import pytest

from analysis.check import against
from analysis.spec import parse
from rdx import stages
from rdx.config import ROOT, MissingFile, check, composed, expand, impossible, load_spec
from rdx.config import cells as config_cells
from rdx.folders import options
from rdx.plan import plan
from tests.analysis import tagged
from tests.scripts import script

RECIPES = list(options("recipe"))
EXPERIMENTS = {  # the cells of one seed
    "labels_or_pairs": 10,
    "kd_vs_cl": 6,
    "candidates_k": 4,
    "teacher_size": 5,
    "lists": 5,
    "rounds": 5,
}


@pytest.fixture(autouse=True, scope="module")
def _empty_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RDX_PAPER_FILES", raising=False)
        patch.chdir(tmp_path_factory.mktemp("recipes"))
        yield


@cache
def cell(name):
    [found] = stages.cells([f"+recipe={name}"])
    return found


@cache
def cells(name):
    """The cells of an experiment with its first seed, by the names of their rows."""
    found, left_out = stages.split([f"+experiments={name}", "seed=1"])
    assert not left_out
    rows = [row for row in parse(load_spec(name), found).rows if row.trained]
    by_name = {row.name: one for one in found for row in rows if row.holds(one)}
    assert len(by_name) == len(found) == len(rows)
    return by_name


# --- recipes ---


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_recipe_is_tagged_and_true(name):
    told = cell(name).cfg["spec"]
    assert told["source"] and all(told["deviations"])
    assert not tagged.untagged(cell(name), told["fields"])
    assert not tagged.wrong(cell(name), told["fields"])
    assert not impossible(cell(name).cfg)
    with pytest.raises(MissingFile):  # and nothing else is wrong with it
        check(cell(name))
    # what a recipe must say, whatever its class has as default
    keys = {"data.id", "sampler", "teacher", "loss", "student.model", "trainer.learning_rate"}
    assert keys | {"depth.k", "trainer.batch", "evaluation.k", "seed"} <= told["fields"].keys()
    assert any(key.startswith("budget.") for key in told["fields"])


def test_a_wrong_or_a_missing_tag_is_found():
    tags = cell("rankgpt").cfg["spec"]["fields"]
    assert tagged.wrong(cell("rankgpt"), tags | {"seed": [1, "paper"]}) == {"seed": (1, 42)}
    assert tagged.untagged(cell("rankgpt"), tags | {"trainer.clip": None}) == ["trainer.clip"]


def test_a_recipe_is_no_part_of_the_identity_and_an_experiment_inherits_what_it_says():
    tags = load_spec("controls")["fields"]
    assert tags["trainer.batch"] == [32, "repository"] and tags["seed"] is None
    assert load_spec("demo").get("fields") is None
    of_spec = parse(load_spec("paper_main"), config_cells("paper_main"))
    assert of_spec.source == cell("paper_v4").cfg["spec"]["source"]
    assert "seed" in {field.key for field in of_spec.fields}
    assert "sampler" not in {field.key for field in of_spec.fields}  # four of them


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recipes", *EXPERIMENTS])
def test_a_plan_is_made_of_all_recipes_and_of_each_experiment(name):
    found = plan([f"+experiments={name}", *(["seed=1"] if name in EXPERIMENTS else [])])
    every = cells(name).values() if name in EXPERIMENTS else map(cell, RECIPES)
    signatures = {one.signature for one in every}
    assert {one.cell.signature for one in found.cells} == signatures
    assert not found.left_out and len(found.cells) == len(signatures)


def test_every_file_that_a_recipe_reads_is_documented():
    by_hand = (ROOT / "docs" / "recipes.md").read_text() + (ROOT / "docs" / "paper.md").read_text()
    for name in RECIPES:
        for group in ("sampler", "teacher"):
            run = cell(name).cfg[group].get("run")
            assert run is None or run.rpartition("/")[2] in by_hand, run


def test_every_published_number_is_one_of_a_recipe():
    spec = parse(load_spec("recipes"), [replace(cell(name), grid=name) for name in RECIPES])
    assert [row.name for row in spec.rows[1:]] == RECIPES
    assert load_spec("recipes")["grid"] == {name: [f"+recipe={name}"] for name in RECIPES}
    assert {one.row for one in spec.expected} <= set(RECIPES)
    assert all(0 < one.value < 1 and one.measure == "nDCG@10" for one in spec.expected)


@pytest.mark.parametrize(
    ("name", "steps", "pairs"),
    [
        ("lightning_ir", 50_000, 25_600_000),
        ("morand_ranknet", 200_000, 10_000_000),
        ("morand_infonce", 200_000, 6_400_000),
        ("morand_margin_mse", 200_000, 12_800_000),
    ],
)
def test_recipes_train_as_long_as_was_published(name, steps, pairs):
    budget, batch = cell(name).cfg["budget"]["steps"], cell(name).cfg["trainer"]["batch"]
    assert (budget, budget * batch * cell(name).cfg["depth"]["k"]) == (steps, pairs)


def test_two_stages_begin_from_the_student_of_the_first():
    assert cell("pezzuti_cl_kd").cfg["start"] == ["+recipe=pezzuti_cl"]
    assert cell("pezzuti_cl").keys["distill"] in str(cell("pezzuti_cl_kd").cfg["origins"])


def test_the_tables_of_the_documentation_are_those_of_the_recipes():
    recipes = script("recipes")
    text = recipes.PAGE.read_text(encoding="utf-8")
    assert recipes.page(text, {name: cell(name) for name in RECIPES}) == text
    assert set(recipes.DISPUTED) == set(EXPERIMENTS)
    [table, disputed] = [part.split("<!-- end -->")[0] for part in text.split("-->\n")[1::2]]
    for name in RECIPES:
        assert f"| `{name}` |" in table and f"**`+recipe={name}`**" in table
    assert "| 5e-05" not in disputed and "learning rate 5e-05ᵖ" in table


# --- experiments ---


SLOW = ("labels_or_pairs", "rounds")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in EXPERIMENTS]
)
def test_an_experiment_has_its_cells_and_its_tables(name):
    found = cells(name)
    spec = parse(load_spec(name), list(found.values()))
    against(spec, list(found.values()))
    assert len(found) == EXPERIMENTS[name]
    assert len({one.signature for one in found.values()}) == len(found)
    assert spec.claim and spec.baseline and spec.margin
    trained = sum(one.cfg["loss"] is not None for one in found.values())
    # three seeds of what is trained
    assert len(expand([f"+experiments={name}"])) == 3 * trained + len(found) - trained


@pytest.mark.slow
def test_labels_or_pairs_moves_one_thing_in_each_comparison():
    found = cells("labels_or_pairs")
    spec = parse(load_spec("labels_or_pairs"), list(found.values()))
    keys = ("teacher", "loss", "depth.k", "sampler", "depth.queries", "trainer.batch")
    moved = [
        [key for key in keys if found[a].value(key) != found[b].value(key)]
        for a, b in spec.comparisons
    ]
    one = [["teacher"]] * 4 + [["loss"]] * 2 + [["depth.k"]] * 2
    assert moved[:8] == one and moved[9] == ["trainer.batch"]
    assert moved[8] == ["sampler", "depth.queries"]  # whose top 100 are the same passages
    for other in found.values():
        assert other.cfg["budget"]["pairs"] == 6_400_000 and other.cfg["depth"]["pool"] == 100
    same = [one for grid, one in found.items() if not grid.endswith("all queries")]
    assert len({one.keys["candidates"] for one in same}) == 1
    factors = {tuple(found[g].value(k) for k in spec.factors) for g in found}
    assert len(factors) == 8


def test_kd_vs_cl_spends_equal_pairs_on_one_stage_and_on_two():
    spent = {}
    for grid, one in cells("kd_vs_cl").items():
        first = (one.cfg["origins"] or {}).get("start")
        before = first["cell"] if first else None
        spent[grid] = one.cfg["budget"]["pairs"] + (before["budget"]["pairs"] if before else 0)
        if before:
            taught = {before["teacher"]["_target_"], one.cfg["teacher"]["_target_"]}
            assert taught == {"rdx.teachers.Labels", "rdx.teachers.QueryLikelihood"}
            assert before["depth"] == one.cfg["depth"]
    assert set(spent.values()) == {2048}


def test_candidates_k_re_ranks_to_each_depth_with_one_student_a_row():
    found = cells("candidates_k")
    tests = found["Depth 5"].cfg["evaluation"]["collections"]
    assert [test["k"] for test in tests.values()] == [10, 30, 100, 300, 1000]
    assert len({test["queries"] for test in tests.values()}) == 1
    assert {one.cfg["depth"]["k"] for one in found.values() if one.cfg["loss"]} == {5, 10, 50}
    assert len({one.keys["teach"] for one in found.values() if one.cfg["loss"]}) == 1
    assert [found["Depth 5"].keys[f"retrieve test {name}"] for name in tests] == list(
        dict.fromkeys(found["Depth 5"].keys[f"retrieve test {name}"] for name in tests)
    )


def test_lists_are_picked_from_one_ranking():
    found = cells("lists")
    assert len({one.keys["teach"] for one in found.values() if one.cfg["loss"]}) == 1
    picked = {one.levels["depth/lists"] for one in found.values() if one.cfg["loss"]}
    assert picked == {"top", "random_depth", "score_quantiles", "head_and_band"}


@pytest.mark.slow
def test_rounds_have_controls_of_equal_pairs():
    for one in cells("rounds").values():
        rounds, cfg = 1, one.cfg
        while cfg["origins"] and cfg["origins"].get("start"):
            rounds, cfg = rounds + 1, cfg["origins"]["start"]["cell"]
            assert cfg["budget"]["pairs"] == one.cfg["budget"]["pairs"]
        assert str(rounds) == one.grid[-1] and cfg["prefinetune"] is not None


def test_what_a_spec_says_is_composed_over_what_its_recipe_says(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "defaults:\n  - /recipe: rankgpt\n"
        "spec:\n  name: own\n  grid: {a: [seed=1]}\n  fields: {seed: [1, assumed], teacher: null}\n"
    )
    fields = load_spec(str(own))["fields"]
    assert fields["seed"] == [1, "assumed"] and fields["teacher"] is None
    assert fields["trainer.learning_rate"] == [5e-5, "paper"]
    assert composed([f"+experiments={own}"]).trainer.learning_rate == 5e-5
