"""Grids beyond the Cartesian product: what moves together and what is left out, cell by cell."""

import pytest
from hydra import compose
from omegaconf import OmegaConf

from rdx import config, grids, stages
from rdx.config import ConfigError, expand, split
from rdx.config.composing import cell_of, composing
from rdx.plan.plans import plan

# the others have the same forms of grid, and take long
SPECS = ("paper_depth", "demo")


@pytest.fixture
def spec(monkeypatch):
    """Pretend that experiments/demo.yaml has another grid."""

    def pretend(*blocks, **sub_grids):
        grid = list(blocks) or sub_grids
        monkeypatch.setattr(config.grid, "load_spec", lambda name: {"name": name, "grid": grid})

    return pretend


def jobs(overrides):
    return [job for _, job in expand(overrides)]


def levels(cells):
    return [(c.levels["loss"], c.cfg["depth"]["k"], c.cfg["seed"]) for c in cells]


# --- moving together ---


def test_zipped_keys_move_together_and_are_multiplied_with_sweeps():
    assert jobs(["seed=1,2", "+zip=[{sampler: [bm25, random], depth.k: [10, 50]}]"]) == [
        ["seed=1", "sampler=bm25", "depth.k=10"],
        ["seed=1", "sampler=random", "depth.k=50"],
        ["seed=2", "sampler=bm25", "depth.k=10"],
        ["seed=2", "sampler=random", "depth.k=50"],
    ]


def test_two_zips_are_multiplied():
    assert jobs(["+zip=[{seed: [1, 2]}, {loss: [lce, ranknet], depth.k: [5, 6]}]"]) == [
        ["seed=1", "loss=lce", "depth.k=5"],
        ["seed=1", "loss=ranknet", "depth.k=6"],
        ["seed=2", "loss=lce", "depth.k=5"],
        ["seed=2", "loss=ranknet", "depth.k=6"],
    ]


def test_a_sub_grid_may_be_a_mapping(spec):
    spec(
        pairs={"sweep": ["seed=1,2"], "zip": [{"loss": ["lce", "ranknet"], "depth.k": [5, 6]}]},
        plain=["loss=ranknet"],
    )
    assert expand(["+experiments=demo"]) == [
        ("pairs", ["seed=1", "+experiments=demo", "loss=lce", "depth.k=5"]),
        ("pairs", ["seed=1", "+experiments=demo", "loss=ranknet", "depth.k=6"]),
        ("pairs", ["seed=2", "+experiments=demo", "loss=lce", "depth.k=5"]),
        ("pairs", ["seed=2", "+experiments=demo", "loss=ranknet", "depth.k=6"]),
        ("plain", ["loss=ranknet", "+experiments=demo"]),
    ]


def test_the_command_line_replaces_a_key_that_moves(spec):
    spec(pairs={"sweep": ["seed=1,2"], "zip": [{"loss": ["lce", "ranknet"], "depth.k": [5, 6]}]})
    assert expand(["+experiments=demo", "depth.k=7", "seed=3"]) == [
        ("pairs", ["+experiments=demo", "depth.k=7", "seed=3", "loss=lce"]),
        ("pairs", ["+experiments=demo", "depth.k=7", "seed=3", "loss=ranknet"]),
    ]
    moved = expand(["+experiments=demo", "+zip=[{seed: [8, 9], depth.k: [3, 4]}]"])
    assert [job[1:] for _, job in moved] == [
        ["loss=lce", "seed=8", "depth.k=3"],
        ["loss=lce", "seed=9", "depth.k=4"],
        ["loss=ranknet", "seed=8", "depth.k=3"],
        ["loss=ranknet", "seed=9", "depth.k=4"],
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "null"), (True, "true"), (3, "3"), (1e-5, "1e-05"), ([1, "a"], "[1,a]"), ("x", "x")],
)
def test_values_of_a_zip_as_hydra_writes_them(value, written):
    assert grids.text(value) == written


# --- left out ---


def test_excluded_combinations_are_left_out_with_the_reason():
    overrides = ["loss=ranknet,lce", "depth.k=5,6", "seed=1"]
    kept, left_out = split([*overrides, "+exclude=[{loss: lce, depth.k: 6}]"])
    assert levels(kept) == [("ranknet", 5, 1), ("ranknet", 6, 1), ("lce", 5, 1)]
    assert [(cell.overrides, why) for cell, why in left_out] == [
        (("loss=lce", "depth.k=6", "seed=1"), "excluded by loss=lce, depth.k=6")
    ]


def test_a_list_excludes_each_and_several_exclusions_add_up():
    overrides = ["loss=ranknet,lce", "depth.k=5,6,7"]
    kept, _ = split([*overrides, "+exclude=[{loss: lce, depth.k: [5, 7]}, {depth.k: 6}]"])
    assert levels(kept) == [("ranknet", 5, 1), ("ranknet", 7, 1)]


def test_defaults_that_the_command_line_does_not_name_are_matched_too():
    kept, left_out = split(["loss=ranknet,lce", "+exclude=[{loss: lce, depth: shallow, seed: 1}]"])
    assert levels(kept) == [("ranknet", 10, 1)] and len(left_out) == 1


def test_a_sub_grid_excludes_of_itself_only(spec):
    both = ["loss=ranknet,lce"]
    spec(one={"sweep": both, "exclude": [{"loss": "lce"}]}, other=both)
    kept, left_out = split(["+experiments=demo"])
    assert [(cell.grid, cell.levels["loss"]) for cell in kept] == [
        ("one", "ranknet"), ("other", "ranknet"), ("other", "lce")
    ]  # fmt: skip
    assert [(cell.grid, cell.levels["loss"]) for cell, _ in left_out] == [("one", "lce")]
    kept, _ = split(["+experiments=demo", "+exclude=[{loss: ranknet}]"])
    assert [(cell.grid, cell.levels["loss"]) for cell in kept] == [("other", "lce")]


def test_a_key_that_only_some_cells_have_excludes_these():
    kept, _ = split(["loss=none,ranknet", "+exclude=[{loss.temperature: 1.0}]"])
    assert [cell.levels["loss"] for cell in kept] == ["none"]


# --- factors ---


def test_factors_are_multiplied_out(spec):
    spec(**{"loss": ["lce", "ranknet"], "depth.k": [5], "seed": [1, 2]})
    assert expand(["+experiments=demo"]) == [
        ("", ["+experiments=demo", f"loss={loss}", "depth.k=5", f"seed={seed}"])
        for loss in ("lce", "ranknet")
        for seed in (1, 2)
    ]
    # the command line narrows, as it does sub-grids
    assert jobs(["+experiments=demo", "seed=3", "loss=lce"]) == [
        ["+experiments=demo", "seed=3", "loss=lce", "depth.k=5"]
    ]


def test_factors_zip_and_exclude(spec):
    spec(
        loss=["lce", "ranknet"],
        zip=[{"sampler": ["bm25", "random"], "depth.k": [5, 6]}],
        exclude=[{"loss": "lce", "sampler": "random"}],
    )
    kept, left_out = split(["+experiments=demo"])
    assert levels(kept) == [("lce", 5, 1), ("ranknet", 5, 1), ("ranknet", 6, 1)]
    assert [(c.levels["sampler"], why) for c, why in left_out] == [
        ("random", "excluded by loss=lce, sampler=random")
    ]


def test_a_list_of_factor_grids_has_the_cells_of_all(spec):
    spec({"loss": ["none"]}, {"loss": ["ranknet"], "depth.k": [5, 6]})
    assert levels(split(["+experiments=demo"])[0]) == [
        ("none", 10, 1), ("ranknet", 5, 1), ("ranknet", 6, 1)
    ]  # fmt: skip


def test_a_level_may_be_a_list_or_null(spec):
    spec(**{"start": [None, ["loss=lce"]], "depth.queries": [None, 8]})
    assert [job[1:] for job in jobs(["+experiments=demo"])] == [
        ["start=null", "depth.queries=null"],
        ["start=null", "depth.queries=8"],
        ["start=['loss=lce']", "depth.queries=null"],
        ["start=['loss=lce']", "depth.queries=8"],
    ]


NO_FACTORS = [
    ({"loss": ["lce"], "ranknet": ["loss=ranknet"]}, ["spec.grid.ranknet", "do not mix"]),
    ({"loss": ["lce"], "seed": 1}, ["spec.grid.seed=1"]),
    ({"loss": ["lce"], "zip": [{"loss": ["kl"]}]}, ["spec.grid: loss is given twice"]),
    ({"los": ["lce"]}, ["los", "'loss'"]),
    ({"loss": ["lcee"]}, ["lcee"]),
]


@pytest.mark.parametrize(("node", "named"), NO_FACTORS)
def test_what_is_no_grid_of_factors_is_refused_by_name(spec, node, named):
    spec(**node)
    check_refused(["+experiments=demo"], named)


def test_a_grid_without_a_cell_is_of_imported_runs(spec):
    spec()
    assert split(["+experiments=demo"]) == ([], [])
    with pytest.raises(ConfigError, match="spec.grid"):
        plan(["+experiments=demo"])


# --- what is refused ---

REFUSED = {
    "+exclude=[{los: lce}]": ["exclude: los: ", "'loss'"],
    "+exclude=[{loss: lcee}]": ["exclude: loss=lcee: ", "'lce'"],
    "+exclude=[{loss: ranknet}]": ["loss=ranknet"],
    "+exclude={loss: lce}": ["+exclude="],
    "+exclude=[lce]": ["+exclude="],
    "+zip=[{loss: [lce, ranknet], seed: [1]}]": ["+zip[0]", "loss has 2, seed has 1"],
    "+zip=[{loss: lce}]": ["+zip[0].loss='lce'"],
    "+zip=[{loss: []}]": ["+zip[0].loss=[]"],
    "seed=1,2 +zip=[{seed: [1, 2]}]": ["seed is given twice"],
    "+zip=[{seed: [1, 2]}, {seed: [3]}]": ["seed is given twice"],
    "+zip=[{seed: [1]}] +zip=[{loss: [lce]}]": ["+zip is given 2 times"],
    "+exclude=[{loss: lce": ["+exclude=[{loss: lce: "],
}
# The node of a sub-grid in an experiment, likewise.
NO_SUB_GRIDS = [
    ({"swep": []}, ["spec.grid.pairs.swep: ", "'sweep', 'zip', 'exclude'"]),
    ("loss=lce", ["spec.grid.pairs: "]),
    ({"sweep": "loss=lce"}, ["spec.grid.pairs.sweep='loss=lce'"]),
    ({"zip": [{"loss": ["lce"], "seed": [1, 2]}]}, ["spec.grid.pairs.zip[0]", "seed has 2"]),
    ({"sweep": ["seed=1"], "zip": [{"seed": [1]}]}, ["grid.pairs: seed is given twice"]),
    ({"exclude": ["lce"]}, ["spec.grid.pairs.exclude=['lce']"]),
]


def check_refused(overrides, named):
    with pytest.raises(ConfigError) as error:
        split(overrides)
    assert [part for part in named if part not in str(error.value)] == []


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_no_constraint_is_refused_by_name(command):
    check_refused(command.replace(" +", "\n+").split("\n"), REFUSED[command])


@pytest.mark.parametrize(("node", "named"), NO_SUB_GRIDS)
def test_what_is_no_sub_grid_is_refused_by_name(spec, node, named):
    spec(pairs=node)
    check_refused(["+experiments=demo"], named)


# --- cells are composed as Hydra composes them ---


NESTED = ("depth/lists", "student/lora")
LEVELS = (*(group for group in config.GROUPS if group != "tracking"), *NESTED)


def by_hydra(overrides):
    """The configuration of a command line, composed in full, and the options chosen."""
    with composing():
        cfg = compose("config", list(overrides), return_hydra_config=True)
    levels = {g: str(cfg.hydra.runtime.choices[g]) for g in LEVELS}
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    plain = config.resolved(cfg)
    config.settle(plain)
    return plain, levels


@pytest.mark.parametrize("name", SPECS)
def test_every_cell_of_a_spec_is_what_hydra_composes(name):
    kept, left_out = stages.split(name)
    assert all(cell.signature == cell.keys["evaluate"] for cell in kept)
    for cell in [*kept, *(cell for cell, _ in left_out)]:
        cfg, levels = by_hydra(cell.overrides)
        assert cell.cfg == cfg and cell.levels == levels


@pytest.mark.parametrize(
    "overrides",
    [
        ["student/lora=adapters", "seed=3"],
        ["sampler@evaluation.collections.pydocs.first_stage=random", "depth.k=7"],
        ["+recipe=paper_v4", "budget=pairs", "budget.pairs=500", "depth.k=20", "store=elsewhere"],
        ["loss=sum", "trainer.learning_rate=1e-4", "evaluation.measures=[nDCG@5]"],
        ["~prefinetune.warmup", "seed=2"],
        ["depth.pool=30", "depth=deep", "depth.k=4"],
        [
            "++depth.k=4",
            "+teacher.published={a: 0.5}",
            "teacher=rankgpt",
            "teacher.backend.model=m",
        ],
    ],
)
def test_other_command_lines_are_what_hydra_composes(overrides):
    cfg, levels = by_hydra(overrides)
    # the second cell of the same options is made from the same base
    bases = {}
    with composing():
        for _ in range(2):
            cell = cell_of("", overrides, bases)
            assert (cell.cfg, cell.levels) == (cfg, levels)


def test_cells_of_one_base_do_not_change_each_other():
    cells = config.cells(["depth.k=5,6", "trainer.batch=2,4", "evaluation.measures=[nDCG@5]"])
    assert [(c.cfg["depth"]["k"], c.cfg["depth"]["pool"], c.cfg["trainer"]["batch"]) for c in cells
            ] == [(5, 5, 2), (5, 5, 4), (6, 6, 2), (6, 6, 4)]  # fmt: skip
    cells[0].cfg["evaluation"]["measures"].append("changed")
    assert cells[1].cfg["evaluation"]["measures"] == ["nDCG@5"]


def test_the_grid_of_the_docs(spec):
    """docs/planning.md: four cells, and three of six."""
    spec(
        plain=["loss=ranknet,adr_mse", "seed=1,2"],
        chosen={
            "sweep": ["loss=ranknet,adr_mse,lce"],
            "zip": [{"sampler": ["bm25", "random"], "depth.k": [10, 50]}],
            "exclude": [
                {"loss": "lce", "depth.k": 50},
                {"loss": ["ranknet", "adr_mse"], "sampler": "random"},
            ],
        },
    )
    kept, left_out = split(["+experiments=demo"])
    assert [(c.levels["loss"], c.levels["sampler"], c.cfg["depth"]["k"]) for c in kept[4:]] == [
        ("ranknet", "bm25", 10), ("adr_mse", "bm25", 10), ("lce", "bm25", 10)
    ]  # fmt: skip
    assert (len(kept), len(left_out)) == (7, 3)
