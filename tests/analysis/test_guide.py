"""The spec of docs/from_question_to_table.md is one: its cells, rows and tests, counted by hand."""

import re

import pytest
import yaml

from analysis.check import against, check
from analysis.nodes import SpecError
from analysis.spec import parse
from rdx import stages
from rdx.config import ROOT, ConfigError, load_spec
from rdx.plan import cautions
from rdx.plan.plans import plan

PAGE = (ROOT / "docs" / "from_question_to_table.md").read_text(encoding="utf-8")
SPEC, CONTROL = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
NAME = "loss_by_depth"


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide")
    (folder / "experiments").mkdir()
    whole = yaml.safe_load(SPEC)
    (folder / "experiments" / f"{NAME}.yaml").write_text(SPEC)
    whole["spec"] |= yaml.safe_load(CONTROL)
    (folder / "experiments" / "control.yaml").write_text(yaml.safe_dump(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def planned():
    return plan([f"+experiments={NAME}"])


def test_the_spec_of_the_guide(planned):
    members = [planned_cell.cell for planned_cell in planned.cells]
    spec = parse(load_spec(NAME), members)
    against(spec, members)
    assert len(members) == 3 * 2 * 2 * 2
    assert [sum(map(row.holds, members)) for row in spec.rows] == [24, *[2] * 12]
    assert spec.baselines == ("ranknet, bm25, deep",)
    # three pairs of losses at each sampler and depth; two depths at each loss and sampler
    assert len(spec.comparisons) == 3 * 4 + 6
    shared = {stage.stage: stage.distinct for stage in planned.stages}
    assert (shared["teach"], shared["select"], shared["distill"]) == (2, 4, 24)
    [line] = cautions.cautions(members)  # printed on the page
    assert line.startswith("depth.k (5, 20)") and line in PAGE


def test_a_control_beside_the_grid():
    members = stages.cells("control")
    spec = parse(load_spec("control"), members)
    against(spec, members)
    assert len(members) == 24 + 1 and len(spec.rows) == 1 + 12 + 1
    assert spec.baselines == ("ranknet, bm25, deep",) and len(spec.comparisons) == 18


MISTAKES = [
    ("- override /budget: pairs", "- override budget: pairs", ["defaults", "/GROUP: OPTION"]),
    ("- override /budget: pairs", "- /budget: pairs", ["defaults: budget", "override /GROUP"]),
    ("- override /budget: pairs", "- override /budgets: pairs", ["budgets", "'budget'"]),
    ("student: {layers: 1}", "students: {layers: 1}", ["students", "'student'"]),
    ("depth.k: [5, 20]", "depth: {k: [5, 20]}", ["spec.grid.depth", "depth.k"]),
]


@pytest.mark.parametrize(("right", "wrong", "named"), MISTAKES)
def test_a_mistake_in_the_file_names_file_key_and_cure(right, wrong, named, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(SPEC.replace(right, wrong))
    with pytest.raises(ConfigError) as error:
        check(str(file))
    assert [part for part in ["wrong.yaml", *named] if part not in str(error.value)] == []


SLIPS = [
    ({"factors": ["loss", "sampler", "depth"]}, ["factors: depth", "'depth.k'"]),
    ({"factors": "loss, sampler"}, ["factors", "[loss, sampler]"]),
    ({"measures": "nDCG@10, RR@10"}, ["measures", "[nDCG@10, RR@10]"]),
    ({"comparisons": "lose"}, ["'lose'", "'loss'"]),
    ({"alpha": "5%"}, ["alpha"]),
]


@pytest.mark.parametrize(("changes", "named"), SLIPS)
def test_a_slip_in_the_table_half_names_key_and_cure(changes, named, planned):
    members = [planned_cell.cell for planned_cell in planned.cells]
    with pytest.raises(SpecError) as error:
        against(parse(load_spec(NAME) | changes, members), members)
    assert [part for part in named if part not in str(error.value)] == []


def test_one_name_is_a_list_of_one(planned):
    members = [planned_cell.cell for planned_cell in planned.cells]
    spec = parse(load_spec(NAME) | {"measures": "nDCG@10", "comparisons": "depth.k"}, members)
    assert spec.measures == ("nDCG@10",) and len(spec.comparisons) == 6
