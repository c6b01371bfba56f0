import pytest

from analysis.check import against
from analysis.nodes import SpecError
from analysis.spec import Expected, Provenance, parse
from rdx import config
from rdx.config import ROOT, load_spec
from rdx.stages import split


def node(**changes):
    base = {
        "name": "x",
        "claim": "one\n  sentence",
        "grid": {"a": ["loss=ranknet"], "b": ["loss=adr_mse"]},
        "measures": ["nDCG@10", "RR@10"],
        "baseline": "First",
        "rows": [
            {"name": "First", "system": "first_stage"},
            {"name": "Teacher", "system": "teacher", "grid": ["a", "b"]},
            {"name": "Oracle", "system": "oracle"},
            {"name": "A", "grid": "a"},
        ],
    }
    return {**base, **changes}


def test_defaults():
    spec = parse(node())
    assert spec.claim == "one sentence"
    assert (spec.alpha, spec.family, spec.figure) == (0.05, "collection", "nDCG@10")
    first, teacher, oracle, student = spec.rows
    assert (student.system, student.levels) == ("student", {"grid": ("a",)})
    assert teacher.levels == {"grid": ("a", "b")}
    assert [row.competes for row in spec.rows] == [False, False, False, True]
    assert [row.test for row in spec.rows] == [True, True, False, True]
    assert (spec.test, spec.interval, spec.correction) == ("t", "t", "holm")
    assert (spec.baselines, spec.baseline) == (("First",), "First")
    assert (spec.all_pairs, spec.margin, spec.x) == (False, None, None)
    assert spec.factors == spec.expected == spec.fields == ()
    assert parse(node(baseline=None)).baselines == ()
    assert parse(node(baseline=None)).baseline is None


def published(**changes):
    base = {"row": "A", "collection": "dl19", "measure": "RR@10", "value": 0.7, "source": "paper"}
    return {**base, **changes}


def test_everything_that_a_spec_can_say():
    spec = parse(
        node(
            baseline=["A", "First"],
            test="randomisation",
            interval="bca",
            correction="bh",
            family="grid",
            all_pairs=True,
            margin=0.01,
            factors=["loss", "depth.k"],
            x="depth.k",
            expected=[published(tolerance=0.005), published(source="readme")],
            fields={
                "trainer.epochs": [3, "assumed"],
                "student.lora": [None, "paper"],
                "seed": None,
            },
            rows=[*node()["rows"], {"name": "Theirs", "system": "run:rank/zephyr"}],
        )
    )
    assert (spec.baselines, spec.baseline) == (("A", "First"), "A")
    assert (spec.test, spec.interval, spec.correction) == ("randomisation", "bca", "bh")
    assert (spec.family, spec.all_pairs, spec.margin) == ("grid", True, 0.01)
    assert (spec.factors, spec.x) == (("loss", "depth.k"), "depth.k")
    assert spec.expected == (
        Expected("A", "dl19", "RR@10", 0.7, "paper", 0.005),
        Expected("A", "dl19", "RR@10", 0.7, "readme", None),
    )
    assert spec.fields == (
        Provenance("trainer.epochs", "3", "assumed"),
        Provenance("student.lora", "null", "paper"),
    )
    theirs = spec.rows[-1]
    assert (theirs.imported, theirs.levels, theirs.competes) == ("rank/zephyr", {}, True)
    assert spec.rows[0].imported == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "grids"}, "'grids' is not one of: collection, all, grid"),
        ({"test": "z"}, "test 'z' is not one of: t, wilcoxon, randomisation"),
        ({"interval": "z"}, "interval 'z' is not one of: t, bca"),
        ({"correction": "z"}, "correction 'z' is not one of: holm, hochberg, bh"),
        ({"baseline": ["A", "A"]}, "baseline names a row twice"),
        ({"all_pairs": "yes"}, "all_pairs must be true or false"),
        ({"margin": 0}, "margin must be above 0"),
        ({"margin": "1 %"}, "margin must be a number, not '1 %'"),
        ({"margin": 0.1, "baseline": None}, "margin needs `baseline`"),
        ({"expected": [{"row": "A"}]}, "lacks collection, measure, value, source"),
        ({"expected": [published(row="B")]}, "row 'B' is not one of"),
        ({"expected": [published(measure="AP")]}, "measure 'AP' is not one of"),
        ({"expected": [published(source="blog")]}, "'blog' is not one of: notebook, readme"),
        ({"expected": [published(value="high")]}, "value must be a number"),
        ({"expected": [published(tolerance=-1)]}, "none below 0 as tolerance"),
        ({"expected": [published()] * 2}, "is given twice for paper"),
        ({"expected": [published(rwo=1)]}, "unknown key 'rwo'"),
        ({"expected": [published()], "collections": ["dl20"]}, "'dl19' is not one of: dl20"),
        ({"fields": [{"key": "a", "value": 1}]}, "fields: must be KEY: [VALUE, SOURCE]"),
        ({"fields": {"seed": 1}}, "fields: seed: must be [VALUE, SOURCE], or null, not 1"),
        ({"fields": {"seed": [1, "x"]}}, "seed: source 'x' is not one of: paper, repository"),
        ({"rows": [{"name": "A", "system": "run:"}]}, "system 'run:' is not one of"),
        ({"rows": [{"name": "A", "system": "run:a", "grid": "a"}]}, "belongs to no sub-grid"),
        ({"baseline": "B"}, "row 'B' is not one of: First, Teacher, Oracle, A"),
        ({"comparisons": [["A", "B"]]}, "row 'B' is not one of"),
        ({"comparisons": [["A", "A"]]}, "'A' with itself"),
        ({"rows": [{"name": "A", "grid": "c"}]}, "grid 'c' is not one of: a, b"),
        ({"rows": [{"name": "A"}]}, "row 'A': needs `grid`"),
        ({"rows": [{"name": "A", "grid": "a", "sytem": "x"}]}, "unknown key 'sytem'; valid: name"),
        ({"rows": [{"name": "A", "grid": "a", "system": "x"}]}, "system 'x' is not one of"),
        ({"rows": [{"name": "A", "grid": "a"}] * 2}, "two rows are called 'A'"),
        ({"rows": []}, "needs `rows` and `measures`"),
        ({"alpah": 0.1}, "unknown key 'alpah'; valid: name, claim"),
        ({"alpha": 5}, "alpha must lie between 0 and 1"),
        ({"figure": "AP"}, "figure 'AP' is not one of: nDCG@10, RR@10"),
    ],
)
def test_errors_name_what_is_wrong_and_what_is_valid(changes, message):
    with pytest.raises(SpecError, match=message.replace("[", r"\[")):
        parse(node(**changes))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_spec_of_the_project_is_valid(path):
    members = config.cells(path.stem)
    spec = parse(load_spec(path.stem), members)
    against(spec, members)
    assert spec.name == path.stem
    # no cell is without a row
    trained = [row for row in spec.rows if row.trained]
    assert [cell for cell in members if not any(row.holds(cell) for row in trained)] == []


def test_the_grid_over_losses_has_every_loss_on_one_teacher_ranking():
    found, left_out = split("losses")
    assert not left_out
    assert {cell.levels["loss"] for cell in found} == {
        path.stem for path in (ROOT / "conf" / "loss").glob("*.yaml")
    }
    spec = parse(load_spec("losses"), found)
    shared = [cell for cell in found if cell.levels["teacher"] == "query_likelihood"]
    others = {(c.levels["loss"], c.levels["teacher"]) for c in found if c not in shared}
    assert others == {("ranknet", "shuffled"), ("bce", "labels"), ("ranknet", "labels")}
    keys = [cell.keys for cell in shared]
    for stage in ("candidates", "teach", "prefinetune"):
        assert len({key[stage] for key in keys if stage in key}) == 1, stage
    assert len({key["evaluate"] for key in keys}) == len(shared)
    # each loss has a row, and is compared with RankNet
    students = [row for row in spec.rows if row.system == "student"]
    assert [[row.holds(cell) for row in students].count(True) for cell in found] == [1] * len(found)
    compared = {pair[0] for pair in spec.comparisons if pair[1] == "RankNet"}
    losses = {row.name for row in students for c in shared if c.cfg["loss"] and row.holds(c)}
    assert compared == losses - {"RankNet"}
    [teacher] = [row for row in spec.rows if row.system == "teacher"]
    assert [cell for cell in found if teacher.holds(cell)] == shared


def test_a_reference_may_come_from_imports():
    rows = node()["rows"]
    rows[0] = {**rows[0], "imports": ["bm25", "colbertv2"]}
    assert parse(node(rows=rows)).rows[0].imports == ("bm25", "colbertv2")
    for wrong in (
        {**rows[1], "imports": ["x"]},
        {**rows[0], "grid": "a"},
        {**rows[3], "imports": "x"},
    ):
        with pytest.raises(SpecError, match="`imports` is for first_stage and oracle"):
            parse(node(rows=[*rows[:3], rows[3], {**wrong, "name": "wrong"}]))


def test_costs_are_published_like_measures():
    [one] = parse(node(expected=[published(measure="seconds per query")])).expected
    assert one.measure == "seconds per query"
    with pytest.raises(SpecError, match="measure"):
        parse(node(expected=[published(measure="seconds")]))
