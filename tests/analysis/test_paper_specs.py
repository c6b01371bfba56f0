"""The specs of the paper: their cells, rows, published numbers, and where each field comes from."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from analysis.spec import parse
from rdx import commands, config, samplers, stages, teachers
from rdx.batches import Schedule
from rdx.collection import Collection
from rdx.config import ROOT, ConfigError, expand, load_spec
from rdx.data import rank_distillm
from rdx.lists import Depth, TrainingList
from rdx.trainer import Epochs, Pairs
from tests.analysis import tagged

MAIN, LOSSES, DEPTH, TIREX = "paper_main", "paper_losses", "paper_depth", "paper_tirex"
EFFICIENCY, GRID, CONTROLS = "paper_efficiency", "grid_sampler_depth_loss", "controls"
PAPER = (MAIN, TIREX, LOSSES, DEPTH, EFFICIENCY)
OURS = (GRID, CONTROLS)
EVERY = (*PAPER, *OURS)
DL = ("dl19_bm25", "dl20_bm25", "dl19_colbert", "dl20_colbert")
CORPORA = (
    *("antique", "argsme", "clueweb09", "clueweb12", "cord19", "cranfield", "disks45"),
    *("gov", "gov2", "medline", "nfcorpus", "vaswani", "wapo"),
)
MEANS = ("arithmetic mean", "geometric mean")
OTHERS = {"rankgpt_data": 100_000, "twolar_data": 20_000}  # queries of the data set
MISSING = r"data/rank-distillm/\S+\.run: no such file( \(docs/paper\.md.*\))?$"


@pytest.fixture(autouse=True, scope="module")
def _empty_folder(tmp_path_factory):
    """The files of the paper are looked for where there are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RDX_PAPER_FILES", raising=False)
        patch.chdir(tmp_path_factory.mktemp("paper"))
        yield


@cache
def spec(name):
    return parse(load_spec(name), cells(name))


@cache
def cells(name):
    """The cells of a spec; of those with several seeds, the cells of the first."""
    return stages.cells([f"+experiments={name}", *(["seed=1"] if name in OURS else [])])


def published(name):
    """(row, collection, measure) -> value, of the notebook."""
    found = [one for one in spec(name).expected if one.source == "notebook"]
    return {(one.row, one.collection, one.measure): one.value for one in found}


def runs(node):
    """The files that a configuration names."""
    for key, one in node.items():
        if isinstance(one, dict):
            yield from runs(one)
        elif key == "run":
            yield one


def schedule(queries, depth, batch=32):
    lists = [TrainingList("q", ("d",) * depth, (1,) * depth)] * queries
    return Schedule(lambda epoch: lists, batch, 1)


# --- cells ---


@pytest.mark.parametrize(
    ("name", "count"),
    [(MAIN, 10), (TIREX, 4), (LOSSES, 2), (DEPTH, 7), (EFFICIENCY, 2), (GRID, 54), (CONTROLS, 13)],
)
def test_each_spec_has_the_cells_of_its_table(name, count):
    jobs = expand([f"+experiments={name}"])
    assert len(jobs) == count
    assert len({tuple(overrides) for _, overrides in jobs}) == count
    found = cells(name)
    assert len({cell.signature for cell in found}) == len(found)
    assert {grid for grid, _ in jobs} == {cell.grid for cell in found}
    seeds = {o for _, overrides in jobs for o in overrides if o.startswith("seed=")}
    assert seeds == ({"seed=1", "seed=2", "seed=3"} if name in OURS else set())
    assert {cell.cfg["seed"] for cell in found} == {1 if name in OURS else 42}


def test_the_papers_tables_rest_on_18_fine_tunings():
    """4 single, 4 dual, stage 1, large (two stages), ADR-MSE and 6 subsamples."""
    trained = set()
    students = set()
    for name in PAPER:
        for cell in cells(name):
            keys = cell.keys
            students.add(keys.get("distill", keys["prefinetune"]))
            trained |= {keys["prefinetune"]} if cell.cfg["prefinetune"] else set()
            trained |= {keys["distill"]} if cell.cfg["loss"] else set()
    assert len(trained) == 18
    assert len(students) == 17  # ELECTRA large after stage 1 stands in no table
    every = {cell.signature for name in PAPER for cell in cells(name)}
    # Of main's, one is RankNet's and one the whole data's; the others are evaluated on their own.
    assert len(every) == 10 + 4 + (2 - 1) + (7 - 1) + 2


def test_the_tables_share_what_is_one_system():
    def student(name, row):
        [cell] = [cell for cell in cells(name) if spec(name).row(row).holds(cell)]
        return cell.keys

    base = student(MAIN, "Dual, RD-ColBERT")
    assert base == student(LOSSES, "RankNet") == student(DEPTH, "10k x 100")
    for name, row in ((TIREX, "Dual, RD-ColBERT"), (EFFICIENCY, "Base")):
        other = student(name, row)
        shared = base.keys() & other.keys()
        assert {k for k in shared if other[k] != base[k]} == {"evaluate"}
    assert "distill" not in student(MAIN, "Stage 1 only")
    assert student(MAIN, "Stage 1 only")["prefinetune"] == base["prefinetune"]
    # one teacher ranking for all depths, as depth 10 is cut out of 100
    teachers = {c.keys["teach"] for c in cells(DEPTH) if c.cfg["depth"]["k"] != 100}
    assert teachers == {base["teach"]}


def test_grids_move_what_they_say():
    got = [(c.levels["sampler"], c.cfg["depth"]["k"], c.levels["loss"]) for c in cells(GRID)]
    assert sorted(got) == sorted(
        (sampler, k, loss)
        for sampler in ("rd_bm25", "rd_colbert")
        for k in (10, 50, 100)
        for loss in ("ranknet", "adr_mse", "lce")
    )
    # the analysis leaves cells out that differ in an override which is no factor
    keys = {o.split("=")[0] for c in cells(GRID) for o in c.overrides} - {"seed", "+experiments"}
    assert keys == set(spec(GRID).factors)
    assert [(c.levels["teacher"], c.levels["loss"]) for c in cells(CONTROLS)] == [
        ("paper", "none"),
        ("paper", "ranknet"),
        ("shuffled", "ranknet"),
        ("identity", "ranknet"),
        ("oracle", "ranknet"),
    ]
    shared = {cell.keys["candidates"] for cell in cells(CONTROLS) if cell.cfg["loss"]}
    assert len(shared) == 1
    panels = {(c.cfg["depth"]["k"], c.cfg["depth"]["queries"]) for c in cells(DEPTH)}
    assert panels == {(k, 10000) for k in (10, 20, 50, 100)} | {
        (100, n) for n in (1000, 2000, 5000)
    }


# --- what else an axis moves ---


def test_epochs_move_steps_and_pairs_and_the_claims_say_so():
    length = {}
    for name in (MAIN, DEPTH):
        for cell in cells(name):
            if cell.cfg["loss"]:
                depth, epochs = cell.cfg["depth"], cell.cfg["budget"]["epochs"]
                queries = depth["queries"] or OTHERS[cell.levels["sampler"]]
                one = schedule(queries, 1)
                steps = Epochs(epochs).count(one)
                [row] = [row.name for row in spec(name).rows if row.trained and row.holds(cell)]
                length[name, row] = (steps, epochs * queries * depth["k"])
    assert length[MAIN, "Dual, RD-ColBERT"] == (939, 3_000_000)
    assert length[MAIN, "Dual, RankGPT data"] == (9375, 6_000_000)
    assert length[MAIN, "Single, TWOLAR data"] == (625, 600_000)
    assert "625 to 9,375 steps" in spec(MAIN).claim
    assert length[DEPTH, "10k x 10"] == (939, 300_000)
    assert length[DEPTH, "1k x 100"] == (96, 300_000)
    for said in ("300,000 to 3,000,000, always in 939", "300,000 pairs in 96 steps"):
        assert said in spec(DEPTH).claim


def test_the_grid_holds_pairs_and_says_what_that_does_to_steps():
    assert {tuple(cell.cfg["budget"].values()) for cell in cells(GRID)} == {
        ("rdx.trainer.Pairs", 3_000_000)
    }
    steps = {k: Pairs(3_000_000).count(schedule(10_000, k)) for k in (10, 50, 100)}
    assert steps == {10: 9390, 50: 1878, 100: 939}
    assert "939 at depth 100, some 1,880 at depth 50 and some 9,390 at depth 10" in spec(GRID).claim


def test_stage_1_has_the_papers_steps():
    [stage] = {str(c.cfg["prefinetune"]) for c in cells(DEPTH)}
    stage = cells(DEPTH)[0].cfg["prefinetune"]
    one = schedule(stage["queries"], 1, stage["batch"])
    assert Epochs(stage["epochs"]).count(one) == 20_000
    assert stage["batch"] * (1 + stage["negatives"]) == 256


# --- rows and tests ---


@pytest.mark.parametrize("name", EVERY)
def test_every_row_is_reachable_and_every_grid_has_a_row(name):
    found = spec(name)
    for row in found.rows:
        # one cell but for the seed, or a run that somebody imports, or what every trial holds
        own = [cell for cell in cells(name) if row.holds(cell)]
        assert len(own) == 1 or row.imported or row.system in ("first_stage", "oracle")
    trained = [row for row in found.rows if row.trained]
    assert all(any(row.holds(cell) for row in trained) for cell in cells(name))
    known = set(cells(name)[0].cfg["evaluation"]["collections"])
    pooled = {
        f"{one['corpus']}.pooled"
        for one in cells(name)[0].cfg["evaluation"]["collections"].values()
        if one["corpus"]
    }
    assert set(found.collections) <= known | pooled
    for mean in found.means:
        assert set(mean.of) <= known | pooled


def test_the_tests_are_the_papers():
    for name in PAPER:
        found = spec(name)
        assert (found.test, found.correction, found.family) == ("t", "holm", "collection")
        assert found.alpha == 0.05
    assert spec(MAIN).baseline == spec(TIREX).baseline == "Dual, RD-ColBERT"
    assert (len(spec(MAIN).rows), spec(MAIN).collections) == (15, DL)
    assert len([row for row in spec(MAIN).rows if row.test]) - 1 == 14  # the family of a column
    assert len([row for row in spec(TIREX).rows if row.test]) - 1 == 7
    assert spec(TIREX).collections == tuple(f"{c}.pooled" for c in CORPORA)
    assert tuple(mean.name for mean in spec(TIREX).means) == MEANS
    assert all(mean.of == spec(TIREX).collections for mean in spec(TIREX).means)
    assert all(c.cfg["evaluation"]["paper_compat"] for c in cells(TIREX))
    assert len(cells(TIREX)[0].cfg["evaluation"]["collections"]) == 31
    assert {row.imported for row in spec(MAIN).rows} == {
        *("", "rankgpt-4", "rankzephyr", "monot5-3b", "rankt5-3b")
    }
    assert {row.imported for row in spec(TIREX).rows} == {
        *("", "rankzephyr-tirex", "monot5-3b-tirex", "rankt5-3b-tirex")
    }
    for name in OURS:
        assert spec(name).factors or len(spec(name).baselines) == 2
    assert all(spec(name).margin == 0.02 for name in EVERY if name != DEPTH)


# --- published numbers ---


def test_every_cell_of_the_published_tables_has_its_number():
    for name in (MAIN, LOSSES):
        rows = [row.name for row in spec(name).rows]
        assert published(name).keys() == {(r, c, "nDCG@10") for r in rows for c in DL}
    rows = [row.name for row in spec(TIREX).rows]
    columns = (*spec(TIREX).collections, *MEANS)
    assert published(TIREX).keys() == {(r, c, "nDCG@10") for r in rows for c in columns}
    assert len(published(TIREX)) == 8 * 15
    rows = [row.name for row in spec(DEPTH).rows]
    both = ("dl19_bm25+dl20_bm25", "dl19_colbert+dl20_colbert")
    assert published(DEPTH).keys() == {(r, c, "nDCG@10") for r in rows for c in both}
    assert published(EFFICIENCY).keys() == {
        (r, "dl19_colbert", m)
        for r in ("Base", "Large")
        for m in ("seconds per query", "bytes at peak")
    }
    for name in OURS:
        assert not spec(name).expected


@pytest.mark.parametrize(
    ("name", "row", "values"),
    [
        (MAIN, "First stage", [0.480, 0.494, 0.732, 0.724]),
        (MAIN, "RankGPT-4", [0.713, 0.713, 0.766, 0.793]),
        (MAIN, "Stage 1 only", [0.687, 0.698, 0.739, 0.760]),
        (MAIN, "Dual, RankGPT data", [0.664, 0.634, 0.477, 0.472]),
        (MAIN, "Single, RD-BM25", [0.644, 0.622, 0.674, 0.654]),
        (MAIN, "Large, dual, RD-ColBERT", [0.733, 0.727, 0.765, 0.799]),
        (LOSSES, "ADR-MSE", [0.716, 0.709, 0.770, 0.765]),
    ],
)
def test_numbers_of_trec_dl(name, row, values):
    assert [published(name)[row, c, "nDCG@10"] for c in DL] == values


def test_numbers_of_the_other_tables():
    depth, tirex = published(DEPTH), published(TIREX)
    assert [depth[f"{n} x 100", "dl19_bm25+dl20_bm25", "nDCG@10"] for n in ("1k", "10k")] == [
        0.606080, 0.715229
    ]  # fmt: skip
    assert [depth[f"10k x {k}", "dl19_colbert+dl20_colbert", "nDCG@10"] for k in (10, 50)] == [
        0.733180, 0.772307
    ]  # fmt: skip
    row = [
        tirex["Large, dual, RD-ColBERT", c, "nDCG@10"] for c in (*spec(TIREX).collections, *MEANS)
    ]
    assert row == [
        *(0.575, 0.369, 0.221, 0.313, 0.716, 0.008, 0.546, 0.344, 0.572, 0.419, 0.316),
        *(0.526, 0.504, 0.418, 0.318),
    ]
    assert tirex["RankZephyr", "cord19.pooled", "nDCG@10"] == 0.767
    assert tirex["First stage", "clueweb12.pooled", "nDCG@10"] == 0.364
    times = published(EFFICIENCY)
    assert times["Base", "dl19_colbert", "seconds per query"] == 0.1386
    assert times["Large", "dl19_colbert", "bytes at peak"] == 4_903_235_072


def test_published_numbers_agree_with_each_other():
    """Rows that stand in two tables, means of columns, and the ends of the figure's panels."""
    main, losses, depth, tirex = (published(name) for name in (MAIN, LOSSES, DEPTH, TIREX))
    for c in DL:
        assert main["Dual, RD-ColBERT", c, "nDCG@10"] == losses["RankNet", c, "nDCG@10"]
    for stage in ("bm25", "colbert"):
        pair = [main["Dual, RD-ColBERT", f"{year}_{stage}", "nDCG@10"] for year in ("dl19", "dl20")]
        whole = depth["10k x 100", f"dl19_{stage}+dl20_{stage}", "nDCG@10"]
        assert whole == pytest.approx(sum(pair) / 2, abs=0.0006)
    for row in spec(TIREX).rows:
        values = [tirex[row.name, f"{c}.pooled", "nDCG@10"] for c in CORPORA]
        arithmetic = tirex[row.name, "arithmetic mean", "nDCG@10"]
        assert arithmetic == pytest.approx(sum(values) / 13, abs=0.001)
        geometric = 1.0
        for one in values:
            geometric *= one ** (1 / 13)
        # Cranfield is printed with one digit that counts
        assert tirex[row.name, "geometric mean", "nDCG@10"] == pytest.approx(geometric, abs=0.002)


def test_the_authors_own_drift_is_the_tolerance():
    notebook, found = published(MAIN), spec(MAIN).expected
    readme = {(e.row, e.collection): e.value for e in found if e.source == "readme"}
    assert readme["Large, dual, RD-ColBERT", "dl20_colbert"] == 0.796
    assert len(readme) == 8
    drift = max(abs(v - notebook[*key, "nDCG@10"]) for key, v in readme.items())
    assert drift == pytest.approx(0.003)
    for name in PAPER:
        trained = {row.name for row in spec(name).rows if row.system == "student"}
        for one in spec(name).expected:
            timed = one.measure != "nDCG@10"
            assert one.tolerance == (0.003 if one.row in trained and not timed else None)


# --- where the recipe comes from ---


@pytest.mark.parametrize("name", EVERY)
def test_every_field_of_the_recipe_is_tagged_and_true(name):
    tags = load_spec(name)["fields"]
    for cell in cells(name):
        assert not tagged.untagged(cell, tags)
        assert not tagged.wrong(cell, tags)
    assert {one.source for one in spec(name).fields} == {"paper", "repository", "assumed"}


def test_students_on_others_data_are_trained_as_the_authors_of_the_data_do():
    for name, recipe in (("rankgpt", "rankgpt"), ("twolar", "twolar")):
        [theirs] = stages.cells([f"+recipe={recipe}"])
        for cell in cells(MAIN):
            if cell.grid.endswith(name):
                for key in ("trainer.learning_rate", "trainer.batch", "budget.epochs", "depth.k"):
                    assert cell.value(key) == theirs.value(key), (cell.grid, key)


# --- the recipes, and what they need ---


def test_the_recipes_are_the_papers_versions(monkeypatch):
    [v4], [v1] = stages.cells(["+recipe=paper_v4"]), stages.cells(["+recipe=paper_v1"])
    [main] = [cell for cell in cells(MAIN) if cell.grid == "dual_colbert"]
    [single] = [cell for cell in cells(MAIN) if cell.grid == "single_colbert"]
    assert (v4.signature, v1.signature) == (main.signature, single.signature)
    monkeypatch.setenv("RDX_PAPER_FILES", "/elsewhere")
    [moved] = config.cells(["+recipe=paper_v4", "sampler=rd_bm25"])
    assert {str(Path(path).parent) for path in runs(moved.cfg)} == {"/elsewhere", "/elsewhere/runs"}


@pytest.mark.parametrize("name", EVERY)
def test_without_the_files_nothing_starts(name):
    for cell in cells(name):
        with pytest.raises(ConfigError, match=MISSING):
            config.check(cell)


def test_the_documentation_names_every_file_and_with_them_cells_are_accepted():
    page = (ROOT / "docs" / "paper.md").read_text()
    for name in EVERY:
        assert f"+experiments={name}\n" in page
    found = [cell for name in (MAIN, GRID, CONTROLS) for cell in cells(name)]
    for path in {path for cell in found for path in runs(cell.cfg)}:
        assert Path(path).name in page, path
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("1 Q0 2 1 1 x\n")
    for cell in found:
        config.check(cell)


def test_the_files_that_are_fetched_give_the_lists_of_the_paper(tmp_path):
    """Candidates are those that the teacher ranked, in the first stage's order."""
    lines = [f"{q} Q0 d{i} {i} {9 - i} x\n" for q in (1, 2, 3) for i in (1, 2, 3, 4)]
    (tmp_path / "first.run").write_text("".join(lines))
    taught = [f"{q}\tQ0\td{d}\t{i}\t{9 - i}\tz\n" for q in (3, 1) for i, d in ((1, 3), (2, 1))]
    teacher = tmp_path / "rd-colbert.run.teacher"
    teacher.write_text("".join(taught))
    run = tmp_path / "rd-colbert.run"
    rank_distillm.cut_out(tmp_path / "first.run", teacher, run)  # what `data fetch` does
    passages = {f"d{i}": "text" for i in range(1, 5)}
    collection = Collection("x", dict.fromkeys("123", "q"), passages, pd.DataFrame())
    found = samplers.Recorded(str(run), "rank").candidates(collection, 100)
    ranked = teachers.Recorded(str(teacher)).rank(found, collection, tmp_path)
    lists = Depth(2, pool=100).select(found, ranked)
    rows = lists[["query_id", "doc_id", "rank", "teacher_rank"]].values.tolist()
    assert rows == [[q, d, r, t] for q in "13" for d, r, t in (("d1", 1, 2), ("d3", 2, 1))]


def test_the_documented_commands_find_the_released_files(capsys):
    page = (ROOT / "docs" / "paper.md").read_text()
    [block] = [text for text in page.split("```")[1::2] if "data fetch" in text]
    status, fetch = (line.split()[4:] for line in block.strip().splitlines())
    assert status == ["status", "+recipe=paper_v4"] and fetch == ["fetch", *status[1:]]
    commands.data(status)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in ("rd-colbert.run", "rd-colbert.run.teacher"):
        assert "by hand" not in rows[f"data/rank-distillm/{name}"]
    assert "by hand" not in rows["ir_datasets:msmarco-passage/train/judged"]
