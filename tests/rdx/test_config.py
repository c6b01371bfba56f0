"""The configuration: what composes, what is refused and how, and what decides a signature."""

import importlib
import inspect
import shutil
from functools import cache

import pandas as pd
import pytest
from omegaconf import OmegaConf

from rdx import config, stages
from rdx.collection import Collection
from rdx.config import (
    CONF,
    GROUPS,
    Cell,
    ConfigError,
    check,
    composing,
    expand,
    load_spec,
)
from rdx.grids import sub_grids
from tests.rdx.configured import edited

# What reads the files of the paper is tested in tests/analysis/test_paper_specs.py, what reads
# those of TREC Deep Learning in test_trec_dl.py.
ELSEWHERE = ("docs/paper.md", "RDX_TREC_DL")
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/[!_]*.yaml")
    if path.parent.name not in ("hydra", "recipe", "experiments")  # experiments are tested below
    and not any(folder in path.read_text() for folder in ELSEWHERE)
)
EXPERIMENTS = sorted(
    path.stem
    for path in (config.ROOT / "experiments").glob("*.yaml")
    if not any(folder in path.read_text() for folder in ELSEWHERE)
)
STAGES = tuple(stages.STAGES)
# What an option needs that has its parts by name, beside values: the parts.
PARTS = {
    "data=mixture": ["+data@data.parts.one.data=pydocs", "+data.parts.one.share=1"],
    "sampler=by_part": ["+sampler@sampler.samplers.one=bm25"],
}
# Values of the keys that an option leaves open (???); FILE is any file that is there.
OPEN = {
    "data=beir": ["data.folder=BEIR"],
    "data=files": ["data.corpus=FILE.tsv", "data.queries=FILE.tsv"],
    "data=ir_datasets": ["data.id=vaswani"],
    "evaluation=files": [
        "evaluation.collections.files.data.corpus=FILE.tsv",
        "evaluation.collections.files.data.queries=FILE.tsv",
        "evaluation.collections.files.first_stage.run=FILE.tsv",
    ],
    "evaluation=ir_datasets": ["evaluation.collections.ir_datasets.data.id=vaswani"],
    "sampler=recorded": ["sampler.run=FILE.tsv"],
    "teacher=cross_encoder": ["teacher.model=cross-encoder/ms-marco-MiniLM-L6-v2"],
    "teacher=fused": [
        "+teacher@teacher.teachers.a=labels",
        "+teacher@teacher.teachers.b=query_likelihood",
    ],
    "teacher=rankgpt": ["teacher.backend.model=some-model"],
    "teacher=recorded": ["teacher.run=FILE.tsv"],
    "student=decoder": ["student.model=asset:SmolLM2-135M-Instruct"],
    "student=hf": ["student.model=google/electra-base-discriminator"],
}


def cells(what):
    """The cells of an experiment or of a command line; composing takes a while, so just once."""
    return _cells(what if isinstance(what, str) else tuple(what))


_cells = cache(stages.cells)


def one(*overrides):
    """The only cell of a command line."""
    [cell] = cells(overrides)
    return cell


@cache
def composed(*overrides):
    """The configuration as Hydra composes it, ??? included."""
    return config.composed(overrides)


def targets(node, where=""):
    """Every node that has a `_target_`, with its place."""
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield where, node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node[key], f"{where}.{key}")


# --- every YAML file ---


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_builds(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")  # of mlflow_server
    group = option.partition("=")[0]
    missing = OmegaConf.missing_keys(composed(option))
    values = OPEN.get(option, [])
    assert missing == {value.split("=")[0] for value in values if not value.startswith("+")}
    if missing:
        with pytest.raises(ConfigError) as error:
            cells([option])
        assert all(key in str(error.value) for key in missing)
    (tmp_path / "any.tsv").write_text("a\tb\n")
    (tmp_path / "vllm.py").touch()  # no extra that tests need
    monkeypatch.syspath_prepend(tmp_path)
    values = [value.replace("FILE.tsv", f"{tmp_path}/any.tsv") for value in values]
    if option == "data=beir":
        values = [f"data.folder={tmp_path / 'beir'}"]
        (tmp_path / "beir" / "qrels").mkdir(parents=True)
        for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
            (tmp_path / "beir" / name).touch()
    if option == "evaluation=beir_folders":
        values = [f"evaluation.folder={tmp_path / 'beir'}"]
        for name in composed(option).evaluation.collections:
            (tmp_path / "beir" / name / "qrels").mkdir(parents=True)
            for file in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
                (tmp_path / "beir" / name / file).touch()
    if parts := PARTS.get(option):
        with pytest.raises(ConfigError, match=f"^{group}\\."):
            check(Cell((option,), "", config.resolved(composed(option))))
        values += parts
    # by themselves they hold out no dev queries
    if option in ("data=beir", "data=files", "data=ir_datasets"):
        values.append("evaluation.interpolate=false")
    cfg = composed(option, *values)
    for _, node in targets(cfg[group]):
        if str(node.get("run", "")).startswith("runs/"):  # of trec_dl and tirex
            (tmp_path / "runs").mkdir(exist_ok=True)
            (tmp_path / node.run).write_text("")
    check(Cell((option,), "", config.resolved(cfg)))
    assert (cfg[group] is None) == (option in ("loss=none", "prefinetune=none"))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_lists_the_arguments_of_its_class(option):
    group = option.partition("=")[0]
    nodes = list(targets(composed(option)[group], group))
    assert nodes or option in ("loss=none", "prefinetune=none")
    for where, node in nodes:
        module, _, name = node["_target_"].rpartition(".")
        arguments = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        assert sorted(arguments) == sorted(set(node) - {"_target_"}), where


def test_every_group_has_options_and_every_folder_is_a_group():
    assert {option.partition("=")[0] for option in OPTIONS} == set(GROUPS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds(name):
    grids = [grid.name for grid in sub_grids(load_spec(name)["grid"], "grid")]
    found = cells(name)
    assert list(dict.fromkeys(cell.grid for cell in found)) == list(dict.fromkeys(grids))
    for cell in found:
        check(cell)


def test_a_file_that_was_edited_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option = tmp_path / "conf" / "loss" / "mine.yaml"
    option.parent.mkdir(parents=True)
    for margin in (1.0, 2.0):
        option.write_text(f"_target_: rdx.losses.Hinge\nmargin: {margin}\n")
        cfg = config.composed(["loss=mine"])
        assert cfg.loss.margin == margin
        cfg.loss.margin = 9.0  # of this configuration alone
        assert config.composed(["loss=mine"]).loss.margin == margin


# --- what is refused ---

# What cannot be run -> what the message names: the key, and what is valid or meant.
REFUSED = {
    "seeed=3": ["seeed", "'seed'", "'trainer'"],
    "los=ranknet": ["los", "'loss'", "'sampler'"],
    "+extra=1": ["extra", "'seed'"],
    "loss=rankent": ["loss=rankent", "adr_mse", "ranknet"],
    "loss=ranknet,rankent": ["loss=rankent", "adr_mse", "cell loss=rankent"],
    "loss=null": ["loss", "adr_mse"],
    "depth.kk=3": ["depth.kk", "'k'", "'pool'"],
    "+depth.kk=3": ["depth.kk", "'k'", "'pool'"],
    "trainer.lerning_rate=1": ["lerning_rate", "'learning_rate'"],
    "prefinetune.loss.temprature=2": ["prefinetune.loss.temprature", "'temperature'"],
    "evaluation.collections.pydocs.first_stage.k2=1": ["pydocs.first_stage.k2", "'k1'", "'b'"],
    "teacher=shuffled teacher.sead=1": ["teacher.sead", "['seed']"],
    "teacher=shuffled teacher.scale=minmax": ["teacher.scale=minmax", "no scores"],
    "teacher=oracle teacher.scale=minmax": ["teacher.scale=minmax", "no scores"],
    "seed=first": ["seed=first", "Integer"],
    "force=perhaps": ["force=perhaps", "bool"],
    "depth.k=[1": ["depth.k=[1"],
    "teacher=cross_encoder": ["teacher.model=..."],
    "teacher=fused": ["teacher.teachers=[]", "+teacher@teacher.teachers.NAME="],
    "teacher=rankgpt": ["teacher.backend.model=..."],
    "teacher=recorded": ["teacher.run=..."],
    "teacher=recorded teacher.run=no.run": ["teacher.run=no.run"],
    "data=files data.corpus=no.tsv data.queries=no.tsv": ["data.corpus=no.tsv"],
    "+experiments=dmo": ["'dmo'", "demo"],
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(command):
    with pytest.raises(ConfigError) as error:
        for cell in cells(command.split()):
            check(cell)
    assert [part for part in REFUSED[command] if part not in str(error.value)] == []


# A value that its class refuses -> what the message says beside the key.
VALUES = {
    "depth.mode=teachers": ["='teachers'", "relabel"],
    "sampler.variant=bm26": ["='bm26'", "robertson"],
    "sampler.stemmer=englisch": ["='englisch'", "'english'"],
    "student.head=max": ["='max'", "interaction"],
    "student.model=asset:minilm": ["asset:minilm", "asset:all-MiniLM-L6-v2"],
    "trainer.schedule=cosinus": ["='cosinus'", "linear"],
    "trainer.precision=fp8": ["='fp8'", "bf16"],
    "evaluation.measures=[nDG@10]": ["nDG@10", "nDCG@10"],
    "depth.k=ten": ["='ten'", "int"],
    "depth.k=true": ["=True", "int"],
    "depth.k=1": ["=1", "at least 2"],
    "trainer.batch=0": ["=0", "at least 1"],
    "loss.temperature=0": ["=0", "above 0"],
    "loss.temperature=hot": ["='hot'", "number"],
    "data.libraries=[nunpy]": ["nunpy", "numpy"],
    "data._target_=os.system": ["=os.system", "a class of rdx"],
    "data._target_=rdx.data.Nope": ["=rdx.data.Nope", "Nope"],
    "data._target_=rdx.nope.Nope": ["=rdx.nope.Nope", "rdx.nope"],
    "student.lora=adapters": ["student/lora=", "adapters", "null"],
    "prefinetune.sampler=random": ["sampler@prefinetune.sampler=", "'random'"],
    "prefinetune.loss=lce": ["loss@prefinetune.loss=", "'lce'"],
    "evaluation.collections.pydocs.first_stage=random": [
        "sampler@evaluation.collections.pydocs.first_stage=",
        "'random'",
    ],
    "evaluation.collections.pydocs.data=null": ["data@evaluation.collections.pydocs.data="],
    "evaluation.collections.pydocs=5": ["data", "first_stage"],
    "evaluation.collections=pydocs": ["keys and values"],
    "evaluation.dev_first_stage=5": ["sampler@evaluation.dev_first_stage=", "null"],
    "evaluation.gates=5": ["evaluation.gates.ceiling=", "'judged'"],
    "evaluation.gates=null": ["evaluation.gates.ceiling="],
    "evaluation.gates.judged=2": ["at most 1"],
    "evaluation.k=-1": ["at least 1"],
    "evaluation.k=3.0": ["an integer"],
    "evaluation.k=true": ["an integer"],
    "evaluation.measures=nDCG@10": ["a list"],
    "evaluation.measures=[]": [],
    "evaluation.interpolate=1": ["true or false"],
    "depth.lists=top": ["depth/lists=", "'log_rank'"],
    "depth.lists=null": ["depth/lists="],
    "depth.queries=many": ["an integer, or null"],
    "trainer.clip=.nan": ["finite"],
    "trainer.learning_rate=.inf": ["finite"],
    "trainer.max_tokens=all": ["'auto'"],
    "trainer.device=gpu": ["['auto', 'cpu', 'cuda']"],
    "data.libraries=[1]": ["a text"],
    "data.libraries=numpy": ["a list"],
    "prefinetune.queries=0": ["at least 1, or null"],
    "tracking.wait=-1": ["at least 0"],
}
OF_RANKGPT = {
    "teacher.caps=5": ["'tokens'"],
    "teacher.backend=null": ["rdx.teachers.Endpoint"],
    "teacher.backend=gpt": ["rdx.teachers.Local"],
    "teacher.published=[1]": ["keys and values"],
    "teacher.published=high": ["keys and values"],
}


@pytest.mark.parametrize("override", VALUES | OF_RANKGPT)
def test_a_value_that_a_class_refuses_is_named_with_what_is_valid(override):
    rankgpt = ("teacher=rankgpt", "teacher.backend.model=gpt") if override in OF_RANKGPT else ()
    with pytest.raises(ConfigError) as error:
        check(Cell(("the=cell",), "", edited(one(*rankgpt), override)))
    told = str(error.value)
    parts = (override.partition("=")[0], *(VALUES | OF_RANKGPT)[override])
    assert [part for part in parts if part not in told] == []
    assert "\n" not in told


def test_an_object_of_another_group_is_refused():
    bm25 = one().cfg["sampler"]
    with pytest.raises(ConfigError, match=r"^prefinetune\.loss=<BM25>"):
        config.build({**one().cfg["prefinetune"], "loss": bm25}, "prefinetune")
    with pytest.raises(ConfigError, match=r"data\._target_=rdx\.samplers\.BM25"):
        check(Cell((), "", {**one().cfg, "data": bm25}))


def test_a_class_checks_its_values_wherever_it_is_made():
    from rdx.losses import RankNet
    from rdx.students import Student

    for wrong in ({"layers": 0}, {"lora": "adapters"}, {"head": "x"}, {"query_length": "5"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Student("asset:all-MiniLM-L6-v2", **wrong)
    assert RankNet(temperature=1) == RankNet(temperature=1.0)
    assert isinstance(RankNet(temperature=1).temperature, float)


def test_files_are_missing_when_they_are_checked_and_not_before():
    for key, node in {
        "sampler.run": {"_target_": "rdx.samplers.Recorded", "run": "absent.run"},
        "teacher.run": {"_target_": "rdx.teachers.Recorded", "run": "absent.run"},
        "student.model": {"_target_": "rdx.students.Student", "model": "/absent"},
        "data.corpus": {"_target_": "rdx.data.Files", "corpus": "a.tsv", "queries": "q.tsv"},
    }.items():
        group = key.partition(".")[0]
        config.build(node, group)
        with pytest.raises(config.MissingFile, match=f"^{key}="):
            check(Cell((), "", {**one().cfg, group: node}))


# Two spellings of one value -> the same objects, the same signatures.
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("loss.temperature=1", "loss.temperature=1.0"),
        ("sampler.k1=1", "sampler.k1=1.0"),
        ("evaluation.gates.ceiling=0", "evaluation.gates.ceiling=0.0"),
        ("sampler.k1=0.9", "~sampler.k1"),
        ("evaluation.gates.judged=0.05", "~evaluation.gates"),
        ("evaluation.runs=a", "evaluation.runs=b"),
    ],
)
def test_equal_values_have_one_identity(first, second):
    assert one(first).keys == one(second).keys


@pytest.mark.parametrize(
    ("key", "overrides", "value"),
    [
        ("loss", [], "ranknet"),
        ("depth/lists", [], "top"),
        ("depth.lists", ["depth/lists=log_rank", "depth.pool=50"], "log_rank"),
        ("student/lora", [], "none"),
        ("student.lora", ["student/lora=adapters"], "adapters"),
        ("student.lora.rank", ["student/lora=adapters", "student.lora.rank=4"], 4),
        ("loss.temperature", ["loss.temperature=2"], 2.0),
        ("sampler.k1", ["~sampler.k1"], 0.9),
        ("evaluation.dev_first_stage", [], "BM25"),
        ("evaluation.collections.pydocs.queries", [], 320),
        ("evaluation.measures", [], ("nDCG@10", "RR@10")),
        ("seed", ["seed=3"], 3),
    ],
)
def test_a_cell_has_one_value_of_a_key(key, overrides, value):
    assert one(*overrides).value(key) == value


@pytest.mark.parametrize(
    ("key", "level"),
    [
        ("depth/lists", "top"),
        ("student.attention_implementation", "null"),
        ("student.compile", "false"),
        ("evaluation.measures", "[nDCG@10,RR@10]"),
        ("sampler.k1", "0.9"),
    ],
)
def test_a_level_is_the_value_as_the_command_line_has_it(key, level):
    assert one().level(key) == level


def test_a_default_and_its_explicit_spelling_are_one_level():
    plain, explicit, other = (
        one(*overrides)
        for overrides in (
            [],
            ["depth/lists=top", "student/lora=none", "sampler.k1=0.90"],
            ["student/lora=adapters", "student.lora.rank=4"],
        )
    )
    assert config.varied([plain, explicit]) == {}
    assert config.varied([plain, explicit, other]) == {
        "student/lora": ("none", "none", "adapters"),
        "student.lora.rank": ("", "", "4"),
    }


def test_a_key_spelt_in_two_ways_is_one_key():
    without, small = one("student.lora=null"), one("student/lora=adapters")
    assert config.varied([without, small]) == {"student.lora": ("none", "adapters")}
    assert config.varied([small, without]) == {"student/lora": ("adapters", "none")}


@pytest.mark.parametrize("key", ["los", "loss.heat", "depth.asked", "student.lora.rank", "seed.x"])
def test_a_cell_has_no_value_of_what_is_no_key(key):
    with pytest.raises(KeyError):
        one().value(key)


OWN = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, ClassVar
from rdx.declared import PRECISION, READ, SCHEDULES, Above0, one_of

@dataclass(frozen=True)
class Own:
    file: Annotated[str, READ]
    heat: Above0 = 1.0
    kind: Annotated[str, one_of("a", "b")] = "a"
    workers: Annotated[int, SCHEDULES] = 1
    precision: Annotated[str, PRECISION] = "auto"
    needs: ClassVar[str] = "labels"
    engines: ClassVar[tuple[str, ...]] = ("numpy",)

    def __call__(self, *batch): ...
    def check(self):
        raise FileNotFoundError("file=x: no such file")
"""


def test_an_extension_declares_as_our_own_classes_do(tmp_path, monkeypatch):
    (tmp_path / "own_loss.py").write_text(OWN)
    for name in "xy":
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RDX_EXTENSIONS", "own_loss")
    node = {"_target_": "own_loss.Own", "file": "x"}

    def identity(**values):
        return config.identity(config.build({**node, **values}, "loss"))

    assert identity() == identity(heat=1, workers=9) != identity(heat=2)
    assert identity() != identity(file="y")
    assert {"versions", "source"} < set(identity())
    for values in ({"heat": 0}, {"heat": "hot"}, {"kind": "c"}):
        with pytest.raises(ConfigError, match=f"loss.{next(iter(values))}"):
            identity(**values)
    cfg = {**one().cfg, "loss": node, "teacher": {"_target_": "rdx.teachers.Identity"}}
    assert "needs labels" in config.impossible(cfg)
    with pytest.raises(config.MissingFile, match="^loss.file=x"):
        check(Cell((), "", cfg))
    settled = config.resolved(OmegaConf.create({"loss": node}))
    assert settled["loss"]["file"] == str(tmp_path / "x")
    config.settle(settled, "fp32")
    assert settled["loss"]["precision"] == "fp32"


def test_a_test_collection_that_is_not_there_is_refused(world, tmp_path):
    absent = "evaluation.collections.files.data.corpus=absent.tsv"
    cell = one(*world.overrides(tmp_path), absent)
    with pytest.raises(ConfigError, match=r"corpus=absent\.tsv: "):
        check(cell)


# --- grids ---


def test_sweeps_are_multiplied_out_in_order():
    assert expand(["loss=ranknet,adr_mse", "depth.k=5", "seed=1,2"]) == [
        ("", ["loss=ranknet", "depth.k=5", "seed=1"]),
        ("", ["loss=ranknet", "depth.k=5", "seed=2"]),
        ("", ["loss=adr_mse", "depth.k=5", "seed=1"]),
        ("", ["loss=adr_mse", "depth.k=5", "seed=2"]),
    ]
    assert expand([]) == [("", [])]
    crossed = cells(["loss=ranknet,adr_mse", "seed=1,2"])
    assert [(c.levels["loss"], c.cfg["seed"]) for c in crossed] == [
        ("ranknet", 1), ("ranknet", 2), ("adr_mse", 1), ("adr_mse", 2)
    ]  # fmt: skip
    assert len({cell.signature for cell in crossed}) == 4


def test_an_experiment_is_its_grid():
    demo = cells("demo")
    assert [(c.levels["loss"], c.levels["teacher"], c.cfg["seed"]) for c in demo] == [
        ("none", "query_likelihood", 1),
        ("ranknet", "query_likelihood", 1),
        ("adr_mse", "query_likelihood", 1),
        ("ranknet", "shuffled", 1),
    ]
    assert demo[1].signature == one("loss=ranknet", "seed=1").signature


def test_the_command_line_narrows_an_experiment():
    narrowed = cells(["+experiments=demo", "seed=5"])
    assert [(cell.levels["loss"], cell.cfg["seed"]) for cell in narrowed] == [
        ("none", 5), ("ranknet", 5), ("adr_mse", 5), ("ranknet", 5)
    ]  # fmt: skip
    assert narrowed[1].signature == one("loss=ranknet", "seed=5").signature
    wider = expand(["+experiments=demo", "seed=5", "depth.k=5,6"])
    assert wider[:2] == [
        ("", ["+experiments=demo", "seed=5", "depth.k=5", "loss=none"]),
        ("", ["+experiments=demo", "seed=5", "depth.k=5", "loss=ranknet"]),
    ]
    assert len(wider) == 8


def test_load_spec():
    spec = load_spec("demo")
    assert spec["name"] == "demo" and spec["grid"][1]["teacher"] == ["shuffled"]
    assert type(spec["grid"]) is list and type(spec["grid"][0]) is dict


# --- identity ---


def signatures(cfg):
    """Signatures of every stage, for all its roles."""
    keys = {stage: {} for stage in STAGES}
    for step, key in stages.signed(Cell((), "", cfg)).keys.items():
        keys[step.partition(" ")[0]][step] = key
    return keys


def changed(overrides, base=()):
    """Stages whose signatures differ from the base's."""
    before = signatures(one(*base).cfg)
    chosen = any(o.split("=")[0] in GROUPS for o in overrides.split())
    again = chosen or overrides.startswith("depth.k")  # depth.pool follows depth.k
    after = one(*base, *overrides.split()).cfg if again else edited(one(*base), *overrides.split())
    after = signatures(after)
    return [stage for stage in STAGES if before[stage] != after[stage]]


TRAINED = ["distill", "evaluate"]
RETRIEVED = [stage for stage in STAGES if stage != "reference"]  # of the training collection
LABELLED = ["candidates", "teach", "select", *TRAINED]
TAUGHT = ["teach", "select", "distill", "reference", "evaluate"]
CHANGES = {
    # when, where and how fast
    "trainer.max_tokens=99": [],
    "evaluation.max_tokens=99": [],
    "trainer.device=cpu": [],
    "teacher.device=cpu": [],
    "trainer.checkpoint_seconds=0": [],
    "store=elsewhere": [],
    "tracking=none": [],
    "tracking.uri=other.db": [],
    "grid=another": [],
    "force=true": [],
    "trainer.max_tokens=9 trainer.checkpoint_seconds=0 store=x tracking=none force=true": [],
    "loss=ranknet loss.temperature=1.0 seed=1 depth.k=10": [],  # the defaults
    # what the teacher is asked
    "data.max_words=50": RETRIEVED,
    "sampler.k1=1.2": ["index", *LABELLED],
    "depth.queries=50": LABELLED,
    "depth.seed=1": LABELLED,
    "depth.pool=50": LABELLED,
    "depth.k=9": LABELLED,
    "depth.k=9 depth.pool=10": ["select", *TRAINED],
    "depth.mode=relabel": ["select", *TRAINED],  # asks for the same ten
    "teacher=shuffled": TAUGHT,
    "teacher.interpolation=0": TAUGHT,
    "teacher.scale=zscore": ["select", *TRAINED],  # of what was answered
    # stage 1
    "prefinetune=none": ["index", "prefinetune", *TRAINED],
    "prefinetune.seed=2": ["prefinetune", *TRAINED],
    "prefinetune.learning_rate=0.0002": ["prefinetune", *TRAINED],
    "student.layers=2": ["prefinetune", *TRAINED],
    "student.query_length=9": ["tokens", "prefinetune", *TRAINED],
    "student.frozen_positions=true": ["prefinetune", *TRAINED],
    "student.head=mean student.attention=full student.template='{query}{passage}'": [
        "prefinetune",
        *TRAINED,
    ],
    # stage 2
    "loss=adr_mse": TRAINED,
    "loss.temperature=2": TRAINED,
    "seed=2": TRAINED,
    "budget.epochs=3": TRAINED,
    "budget=steps": TRAINED,
    "trainer.learning_rate=0.001": TRAINED,
    "trainer.batch=4": TRAINED,
    "trainer.warmup=0": TRAINED,
    "trainer.weight_decay=0": ["prefinetune", *TRAINED],
    "trainer.precision=fp16": ["prefinetune", *TRAINED],
    # evaluation
    "evaluation.k=11": ["retrieve", "tokens", "reference", "evaluate"],
    "evaluation.measures=[nDCG@5]": ["evaluate"],
    "evaluation.collections.pydocs.queries=10": ["retrieve", "tokens", "reference", "evaluate"],
    "evaluation.interpolate=false": ["index", "retrieve", "evaluate"],
    "evaluation.dev_first_stage.k1=1.2": ["index", "retrieve", "evaluate"],
}


@pytest.mark.parametrize("overrides", CHANGES)
def test_a_signature_covers_just_what_its_stage_depends_on(overrides):
    assert changed(overrides) == CHANGES[overrides]


@pytest.mark.parametrize(
    "overrides", ["seed=2", "depth.k=5", "teacher=shuffled", "trainer.learning_rate=1"]
)
def test_an_undistilled_student_depends_on_nothing_of_the_distillation(overrides):
    assert {"distill", "evaluate"}.isdisjoint(changed(overrides, ["loss=none"]))


def test_without_stage_1_the_start_is_the_model_as_it_comes():
    base = ["prefinetune=none"]
    assert "prefinetune" not in changed("trainer.weight_decay=0 data.max_words=50", base)


def test_the_cells_signature_is_that_of_its_last_stage():
    cell = one("seed=3")
    assert cell.signature == cell.keys["evaluate"]


@pytest.fixture
def files(tmp_path):
    """Two copies of the same files in other places."""
    for name in ("here", "there"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "corpus.tsv").write_text("d1\tone\n")
        (tmp_path / name / "queries.tsv").write_text("q1\tone\n")
        (tmp_path / name / "teacher.run").write_text("q1 Q0 d1 1 1.0 x\n")
        (tmp_path / name / "model" / "config.json").write_text("{}")
    return tmp_path


def on_files(folder):
    names = {"data.corpus": "corpus.tsv", "data.queries": "queries.tsv"}
    names |= {"teacher.run": "teacher.run", "student.model": "model"}
    overrides = ["data=files", "teacher=recorded", "student=hf"]
    return signatures(one(*overrides, *(f"{k}={folder / v}" for k, v in names.items())).cfg)


def test_files_stand_for_their_content_and_not_for_their_place(files, monkeypatch):
    here = on_files(files / "here")
    assert on_files(files / "there") == here
    monkeypatch.chdir(files / "there")
    relative = "data.corpus=corpus.tsv data.queries=queries.tsv student.model=model"
    relative += " teacher.run=teacher.run"
    options = ["data=files", "teacher=recorded", "student=hf"]
    assert signatures(one(*options, *relative.split()).cfg) == here


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("corpus.tsv", RETRIEVED),
        ("queries.tsv", [stage for stage in RETRIEVED if stage != "index"]),
        ("teacher.run", ["teach", "select", *TRAINED]),
        ("model/config.json", ["tokens", "prefinetune", "distill", "evaluate"]),
    ],
)
def test_other_content_is_another_result(files, name, others):
    here = on_files(files / "here")
    path = files / "there" / name
    path.write_text(path.read_text() + " ")
    there = on_files(files / "there")
    assert [stage for stage in STAGES if here[stage] != there[stage]] == others


def test_a_file_that_changes_in_place_is_read_again(files):
    before = on_files(files / "here")
    (files / "here" / "corpus.tsv").write_text("d1\tanother\n")
    assert on_files(files / "here") != before
    shutil.copy(files / "there" / "corpus.tsv", files / "here" / "corpus.tsv")
    assert on_files(files / "here") == before


# --- the command line, in its own process ---

WATCHED = (
    "import runpy, sys\n"
    "sys.argv = ['rdx', *sys.argv[1:]]\n"
    "try:\n    runpy.run_module('rdx', run_name='__main__', alter_sys=False)\n"
    "finally:\n    print('LOADED', {'torch', 'transformers', 'mlflow'} & set(sys.modules))\n"
)


def test_help_names_every_group_and_loads_no_torch(rdx, tmp_path):
    done = rdx(["--help"], tmp_path, module=("-c", WATCHED), status=0)
    for option in OPTIONS:
        group, _, name = option.partition("=")
        [line] = [x for x in done.stdout.splitlines() if x.startswith(f"{group}: ")]
        assert name in line.split(": ")[1].split(", ")
    assert "student/lora: adapters, none" in done.stdout.splitlines()
    assert "teacher/prompts" not in done.stdout and "_common" not in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED set()"
    assert list(tmp_path.iterdir()) == []


TYPOS = {  # command line -> what the message holds
    "loss=rankent": "loss=rankent",
    "-m loss=ranknet,adr_mse depth.kk=3": "depth.kk: ",
    "loss=ranknet,adr_mse": "python -m rdx -m loss=ranknet,adr_mse",
}
IN_TURN = (  # several command lines in one process: it takes seconds to start one
    "import runpy, sys\n"
    "for line in sys.argv[1:]:\n"
    "    sys.argv = ['rdx', *line.split()]\n"
    "    try:\n        runpy.run_module('rdx', run_name='__main__', alter_sys=False)\n"
    "    except SystemExit as end:\n        print(end.code)\n"
    "print('LOADED', {'torch', 'transformers', 'mlflow'} & set(sys.modules))\n"
)


def test_a_typo_ends_before_any_work(rdx, tmp_path):
    done = rdx(TYPOS, tmp_path, module=("-c", IN_TURN), status=0)
    said = done.stderr.split("rdx: ")
    assert said[0] == "" and len(said) == 1 + len(TYPOS)
    for message, own in zip(TYPOS.values(), said[1:], strict=True):
        assert message in own and "Traceback" not in own
    assert done.stdout == "1\n1\n1\nLOADED set()\n"
    assert list(tmp_path.iterdir()) == []


# --- losses and teachers ---


def test_what_teachers_give_is_what_their_rankings_hold(tmp_path):
    from rdx import rankings, teachers

    docs = {f"d{i}": f"text {i}" for i in range(4)}
    qrels = pd.DataFrame({"query_id": ["q"], "doc_id": ["d2"], "relevance": [1]})
    collection = Collection("toy", {"q": "text"}, docs, qrels)
    candidates = rankings.rank(["q"] * 4, list(docs), [4.0, 3.0, 2.0, 1.0])
    rankings.write_trec(candidates, tmp_path / "run", "x")
    by_name = {
        "Identity": teachers.Identity(),
        "Labels": teachers.Labels(),
        "Oracle": teachers.Oracle(),
        "Shuffled": teachers.Shuffled(),
        "Recorded": teachers.Recorded(str(tmp_path / "run"), order="rank"),
    }
    for name, teacher in by_name.items():
        taught = teacher.rank(candidates, collection, tmp_path)
        scored = getattr(teacher, "gives", {}).get("scores") == {}
        assert hasattr(teacher, "scale") == ("scores" in getattr(teacher, "gives", {})), name
        assert taught.score.notna().all() == scored, name
    scored = teachers.Recorded(str(tmp_path / "run"), order="score")
    taught = scored.rank(candidates, collection, tmp_path)
    assert list(taught.sort_values("doc_id").score) == [4.0, 3.0, 2.0, 1.0]


def test_impossible_cells_are_left_out_with_the_reason():
    grid = ["loss=margin_mse,ranknet", "teacher=shuffled,query_likelihood"]
    possible, left_out = config.split(grid)
    assert len(possible) == 3
    [(cell, why)] = left_out
    assert cell.levels["loss"] == "margin_mse" and cell.levels["teacher"] == "shuffled"
    for named in ("MarginMSE", "scores", "Shuffled", "QueryLikelihood", "order=score"):
        assert named in why
    [cell] = config.cells(["loss=margin_mse,ranknet", "teacher=shuffled"])
    assert cell.levels["loss"] == "ranknet"


@pytest.mark.parametrize(
    ("lists", "works"),
    [
        ("depth/lists=score_quantiles", ["query_likelihood", "labels"]),
        ("depth/lists=head_and_band", ["query_likelihood", "labels", "shuffled"]),
        ("depth/lists=single_relevant", ["query_likelihood", "labels", "shuffled"]),
        ("depth/lists=single_relevant depth.lists.margin=0", None),
        (
            "depth/lists=single_relevant depth.lists.margin=0 depth.lists.of=teacher",
            ["query_likelihood", "labels"],
        ),
    ],
)
def test_a_picker_of_scores_needs_a_teacher_that_gives_them(lists, works):
    teachers = ["query_likelihood", "labels", "shuffled"]
    grid = [*lists.split(), "depth.k=10", "depth.pool=50", f"teacher={','.join(teachers)}"]
    possible, left_out = config.split(grid)
    assert [cell.levels["teacher"] for cell in possible] == (works or teachers)
    assert all("depth.lists" in why and "scores" in why for _, why in left_out)
    # without a distillation there is no list to pick
    assert len(config.cells([*grid, "loss=none"])) == len(teachers)


def test_a_grid_without_a_possible_cell_is_an_error():
    with pytest.raises(ConfigError, match="BCE.*labels"):
        config.cells(["loss=bce", "teacher=query_likelihood"])


def test_a_sum_needs_what_its_parts_need():
    cfg = edited(one(), "seed=1")
    cfg["teacher"] = {"_target_": "rdx.teachers.Shuffled"}
    parts = [{"_target_": "rdx.losses.RankNet"}, {"_target_": "rdx.losses.KL"}]
    cfg["loss"] = {"_target_": "rdx.losses.Sum", "losses": parts, "weights": [1, 1]}
    assert "needs scores" in config.impossible(cfg)
    cfg["loss"] |= {"losses": parts[:1], "weights": [1]}
    assert config.impossible(cfg) == ""


SOFT = {"_target_": "rdx.losses.BCE", "targets": "scores"}
HARD, MSE, RANKNET = ({"_target_": f"rdx.losses.{name}"} for name in ("BCE", "MSE", "RankNet"))
QUANTILES = {"_target_": "rdx.teachers.QueryLikelihood", "model": "m", "scale": "quantile"}
RECORDED = {"_target_": "rdx.teachers.Recorded", "run": "FILE"}


def sure(score, **more):
    """A teacher that says yes or no, with some score of how sure it is."""
    form = {"parts": ["{query} {passage}"], "positive": "a", "negative": "b", "score": score}
    form |= {"_target_": "rdx.teachers.Form"}
    return {"_target_": "rdx.teachers.YesNo", "model": "m", "form": form, **more}


@pytest.mark.parametrize(
    ("loss", "teacher", "named"),
    [
        (SOFT, QUANTILES, []),
        (SOFT, QUANTILES | {"scale": "minmax"}, []),
        (SOFT, {"_target_": "rdx.teachers.Labels", "scale": "minmax"}, []),
        (SOFT, QUANTILES | {"scale": "none"}, ["BCE", "teacher.scale=none", "minmax, quantile"]),
        (SOFT, QUANTILES | {"scale": "zscore"}, ["BCE", "teacher.scale=zscore"]),
        (SOFT, RECORDED, ["BCE needs scores", "Recorded", "order=score"]),
        (SOFT, sure("probability"), []),  # as it gives them
        (SOFT, sure("probability", scale="zscore"), ["BCE", "teacher.scale=zscore"]),
        (SOFT, sure("log_probability"), ["BCE", "teacher.scale=none"]),
        (SOFT, sure("difference", scale="minmax"), []),
        (HARD, {"_target_": "rdx.teachers.Labels"}, []),
        (MSE, QUANTILES | {"scale": "zscore"}, []),
        (MSE, RECORDED, ["MSE needs scores", "Recorded"]),
        (RANKNET | {"weights": "score_difference"}, RECORDED, ["RankNet needs scores"]),
        (RANKNET | {"weights": "student_rank"}, RECORDED, []),
        (RANKNET, RECORDED | {"scale": "zscore"}, ["Recorded", "no scores"]),
        (RANKNET, RECORDED | {"scale": "zscore", "order": "score"}, []),
        (
            {"_target_": "rdx.losses.Sum", "losses": [RANKNET, SOFT], "weights": [1.0, 1.0]},
            QUANTILES | {"scale": "zscore"},
            ["BCE", "teacher.scale=zscore"],
        ),
        (  # scores there are, and no labels
            {"_target_": "rdx.losses.Sum", "losses": [MSE, HARD], "weights": [1.0, 1.0]},
            QUANTILES,
            ["BCE needs labels"],
        ),
    ],
)
def test_a_loss_and_the_scale_of_its_teacher_must_agree(loss, teacher, named):
    why = config.impossible(one().cfg | {"loss": loss, "teacher": teacher})
    assert bool(why) == bool(named) and all(word in why for word in named), why


def test_cells_of_a_scale_that_a_loss_does_not_accept_are_left_out():
    possible, left_out = config.split(
        ["loss=bce", "loss.targets=scores", "teacher.scale=none,minmax,zscore,quantile"]
    )
    assert [cell.value("teacher.scale") for cell in possible] == ["minmax", "quantile"]
    assert [cell.value("teacher.scale") for cell, _ in left_out] == ["none", "zscore"]


def test_a_scale_decides_no_answer():
    teachers = [
        config.build(QUANTILES | {"scale": scale}, "teacher") for scale in ("none", "zscore")
    ]
    plain, scaled = teachers
    assert config.identity(plain) != config.identity(scaled)
    assert config.identity(plain, config.ANSWERS) == config.identity(scaled, config.ANSWERS)


# --- evaluation on run files ---


@pytest.mark.parametrize(
    ("option", "sets", "corpora"), [("evaluation=trec_dl", 4, 0), ("evaluation=tirex", 31, 14)]
)
def test_first_stages_are_named_by_a_folder(option, sets, corpora, tmp_path):
    tests = composed(option, f"evaluation.runs={tmp_path}").evaluation.collections
    files = [test.first_stage.run for test in tests.values()]
    assert len(set(files)) == len(tests) == sets
    assert all(file.startswith(f"{tmp_path}/") for file in files)
    assert len({test.corpus for test in tests.values()} - {None}) == corpora
    # of TIREx's 14 corpora, the paper averages 13
    assert len({test.corpus or name for name, test in tests.items() if test.in_mean}) in (4, 13)
    assert all("@" in measure for measure in composed(option).evaluation.measures)


def test_a_first_stage_that_is_not_there_is_refused_before_training(tmp_path):
    cell = Cell((), "", config.resolved(composed("evaluation=trec_dl")))
    named = r"evaluation\.collections\.dl19_bm25\.first_stage.*run=runs/__bm25__"
    with pytest.raises(ConfigError, match=named):
        check(cell)


def test_a_data_set_that_ir_datasets_lacks_is_refused_before_training():
    cell = one("evaluation=ir_datasets", "evaluation.collections.ir_datasets.data.id=vaswanni")
    with pytest.raises(ConfigError, match=r"data\.id=vaswanni.* vaswani"):
        check(cell)


def test_the_folder_of_runs_is_not_part_of_the_identity(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__bm25__msmarco-passage-trec-dl-2019-judged.run").write_text("x")
    less = [f"~evaluation.collections.dl{n}" for n in ("19_colbert", "20_bm25", "20_colbert")]
    keys = {one("evaluation=trec_dl", f"evaluation.runs={tmp_path / f}", *less).signature
            for f in ("here", "there")}  # fmt: skip
    assert len(keys) == 1


def test_no_yaml_line_is_long():
    for path in (CONF / "evaluation").glob("*.yaml"):
        assert max(map(len, path.read_text().splitlines())) <= 120, path


@pytest.mark.parametrize(
    "options, values",
    [
        ([], ["seed=3"]),
        ([], ["depth.k=7"]),  # depth.pool refers to it
        ([], ["depth.pool=50", "depth.k=7", "trainer.batch=4"]),
        (["teacher=rankzephyr"], ["store=/elsewhere"]),  # teacher.ledger refers to it
        (["teacher=rankzephyr"], ["store=/elsewhere", "teacher.ledger=/there"]),
        (["evaluation=trec_dl"], ["evaluation.runs=/runs", "seed=2"]),
        (["sampler=recorded"], ["sampler.run=a.run"]),  # lacks a value
        ([], ["depth.seed=${seed}", "seed=9"]),
        (["loss=sum"], ["trainer.learning_rate=1e-3"]),
    ],
)
def test_values_change_what_is_composed_as_if_all_were_resolved_again(options, values):
    with composing.composing():
        base = composing._base(tuple(options))
    expected = composing._plain(composing._applied(values, base.cfg))
    for _ in range(2):  # the second time from what the first has kept
        assert base.changed(values) == expected
    assert base.changed(["seed=4"]) if base.plain else True
    assert base.changed(values) == expected


def test_nodes_that_refer_to_others_move_with_them():
    refers = {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"e"}, "e": set()}
    base = composing.Base(b"", {}, None, None, refers, {}, {})
    assert base._moved_by(["c"]) == {"a", "b", "c"}
    assert base._moved_by(["a"]) == {"a", "b", "c"}  # needs them to be resolved
    assert base._moved_by(["d"]) == base._moved_by(["e"]) == {"d", "e"}
    values = ["e.x=1", "c=2", "a.y=3", "f=4", "d=5"]
    assert [mine for _, mine in base._independent(values)] == [
        ("c=2", "a.y=3"), ("f=4",), ("e.x=1", "d=5"),
    ]  # fmt: skip


def test_an_argument_without_a_value_is_named():
    with pytest.raises(ConfigError, match=r"^data\.corpus: "):
        config.build({"_target_": "rdx.data.Files", "queries": "q", "qrels": "r"}, "data")
