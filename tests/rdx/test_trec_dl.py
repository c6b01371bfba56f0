"""Options and experiments on TREC Deep Learning, whose folder a variable names."""

from pathlib import Path

import pytest

from analysis.check import against, outline
from analysis.spec import parse
from rdx import rankings, stages
from rdx.config import ConfigError, check, expand, load_spec

YEARS = ("trec-dl-2019", "trec-dl-2020")
FIRST = ("bm25-pyserini", "tas-b", "splade++")
LLMS = {"dl_rankvicuna": "rankvicuna-7b", "dl_gpt35": "gpt-3.5-turbo"}
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of both years, as good as empty: what composes and signs cells reads no more."""
    folder = tmp_path_factory.mktemp("trec-dl")
    for year in YEARS:
        (folder / year / "runs").mkdir(parents=True)
        (folder / year / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n')
        (folder / year / "queries.tsv").write_text(f"{year}\tb\n")
        (folder / year / "qrels.txt").write_text(f"{year} 0 d1 1\n")
        names = [*FIRST, "teacher-vicuna-13b-failing.bm25-pyserini"]
        names += [f"teacher-{llm}.{first}" for llm in LLMS.values() for first in FIRST]
        for name in names:
            (folder / year / "runs" / f"{name}.run").write_text(f"{year} Q0 d1 1 1.0 {name}\n")
    return folder


@pytest.fixture(autouse=True)
def named(folder, monkeypatch):
    monkeypatch.setenv("RDX_TREC_DL", str(folder))


def one(*overrides):
    [cell] = stages.cells(["+recipe=_trec_dl", *overrides])
    return cell


@pytest.mark.parametrize(
    "sampler, first",
    [("dl_bm25", "bm25-pyserini"), ("dl_tas_b", "tas-b"), ("dl_splade", "splade++")],
)
def test_an_llm_ranked_what_the_sampler_gave_in_the_year_that_is_trained_on(folder, sampler, first):
    cell = one("data=dl20", f"sampler={sampler}", "evaluation=dl19")
    check(cell)
    runs = folder / "trec-dl-2020" / "runs"
    assert cell.cfg["sampler"]["run"] == str(runs / f"{first}.run")
    assert cell.cfg["teacher"]["run"] == str(runs / f"teacher-rankvicuna-7b.{first}.run")
    tests = cell.cfg["evaluation"]["collections"]
    assert list(tests) == ["dl19_bm25", "dl19_splade"]
    for name, run in zip(tests, ("bm25-pyserini", "splade++"), strict=True):
        assert tests[name]["data"]["corpus"] == str(folder / "trec-dl-2019" / "corpus.jsonl")
        assert Path(tests[name]["first_stage"]["run"]).name == f"{run}.run"
        assert Path(tests[name]["first_stage"]["run"]).parts[-3] == "trec-dl-2019"


def test_a_step_has_as_many_pairs_at_every_depth():
    for k in (10, 20, 50):
        assert one(f"depth.k={k}").cfg["trainer"]["batch"] * k == 100
    with pytest.raises(ConfigError, match="30"):
        one("depth.k=30")


def test_a_recipe_is_chosen_by_topics_that_are_held_back():
    cell = one("data=dl19_dev", "evaluation=dl19_dev")
    tests = cell.cfg["evaluation"]["collections"]
    for name, test in tests.items():
        assert (name[:4], test["split"]) == ("dl19", "dev")
        assert test["data"] == cell.cfg["data"]  # of one year, held back alike
    assert cell.cfg["data"]["dev"] == 0.25


def test_all_four_test_sets_at_once():
    assert list(one("evaluation=dl").cfg["evaluation"]["collections"]) == [
        *("dl19_bm25", "dl19_splade", "dl20_bm25", "dl20_splade")
    ]


# Command lines; cells of one seed; trained rows; tests of the family, counted by hand:
# 17 rows and 5 comparisons, on two pools
# 12 and 11 rows with both years on two pools, 2 of one year on two parts against 2 baselines;
# 4 pairs at two losses on two pools, 1 at two losses on two parts
# 24 and 23 rows and 2 comparisons
PLANNED = {
    "llm_labels": (108, 36, 18, 44),
    "llm_teachers": (86, 28, 15, 46 + 8 + 16 + 4),
    "offline_grid": (73, 25, 25, 49),
    "llm_recipe": (58, 30, 15, 0),
}


@pytest.mark.parametrize("name", PLANNED)
def test_the_grids_are_what_they_say(name):
    cells, left_out = stages.split([f"+experiments={name}", "seed=1"])
    spec = parse(load_spec(name), cells)
    against(spec, cells)
    check(cells[0])
    told = outline(spec, cells)
    tests = max(told.tests.values(), default=0)
    lines = len(expand([f"+experiments={name}"]))
    assert (lines, len(cells), told.systems, tests) == PLANNED[name]
    trained = [cell for cell in cells if cell.levels["loss"] != "none"]
    pairs = {(cell.levels["data"], cell.value("budget.pairs")) for cell in trained}
    steps = {cell.value("trainer.batch") * cell.value("depth.k") for cell in trained}
    if name != "llm_recipe":
        assert len(pairs) == len({data for data, _ in pairs})  # equal pairs in a fold
        assert len(steps) == 1  # and as many a step
    if name in ("llm_labels", "llm_teachers"):  # no year is tested on that is trained on
        folds = {(cell.levels["data"], cell.levels["evaluation"]) for cell in cells}
        assert folds == {("dl19", "dl20"), ("dl20", "dl19")}
    if name == "llm_teachers":
        assert {why for _, why in left_out} == {"excluded by teacher=dl_vicuna_failing, data=dl20"}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the files of TREC Deep Learning")
@pytest.mark.parametrize("year, fold", [("19", 43), ("20", 54)])
def test_the_files_are_those_that_the_options_read(year, fold, monkeypatch):
    monkeypatch.setenv("RDX_TREC_DL", str(DATA))
    cell = one(f"data=dl{year}", "sampler=dl_splade", f"evaluation=dl{year}")
    check(cell)
    candidates = rankings.read_trec(cell.cfg["sampler"]["run"])
    teacher = rankings.read_trec(cell.cfg["teacher"]["run"], order="rank")
    pairs = [{*zip(r.query_id, r.doc_id, strict=True)} for r in (candidates, teacher)]
    assert pairs[0] <= pairs[1]
    for test in cell.cfg["evaluation"]["collections"].values():
        assert test["queries"] == fold == candidates.query_id.nunique()
