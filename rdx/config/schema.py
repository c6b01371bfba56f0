"""The root of the configuration, its groups, and the errors of bad ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, Node, OmegaConf

from rdx import folders
from rdx.declared import SEEDS
from rdx.faults import Mendable

GROUPS = (
    *("data", "sampler", "depth", "teacher", "prefinetune", "loss", "student"),
    *("budget", "trainer", "evaluation", "tracking"),
)


NO_CELL = "spec.grid: has no cell; python -m analysis makes its table"

Config = dict[str, Any]  # of a cell, resolved: plain values, as YAML has them


class ConfigError(Mendable, ValueError):
    """A configuration that cannot be run; the message names the key and lists what is valid."""


class MissingFile(ConfigError):
    """A file, folder or package that a configuration needs is not on this machine."""


@dataclass
class Root:
    """The root of the configuration; the groups are plain classes, checked when they are built.

    Attributes
    ----------
    data
        The training collection: queries, passages and judgements.
    sampler
        Where the candidates of training queries come from.
    depth
        How many candidates a training list holds, and how they are picked.
    teacher
        What re-orders the candidates: the ranking that the student learns from.
    prefinetune
        Stage 1: fine-tuning on judgements, before the distillation.
    loss
        What the distillation minimises; `none`: the student of stage 1 is the result.
    student
        The cross-encoder that is trained.
    budget
        How long the distillation is: what is held equal between cells.
    trainer
        How students are optimised, and on what machine.
    evaluation
        Test sets, measures, and how deep first stages are re-ranked.
    tracking
        Where trials are shown: MLflow, or nowhere.
    start : text, list of overrides or null
        What the student begins from (docs/rounds.md): the signature of a finished cell, the folder
        of a student, or the overrides by which another cell differs from this one; null: the model
        as it comes.
    origins : never given
        What `start` and the like turn out to name; rdx fills it in.
    seed : whole number >= 0; default 1
        Of the distillation: order of the lists, dropout and fresh weights. Sweep it: seed=1,2,3.
    force : true, false; default false
        Compute the distillation and evaluation of a finished cell again.
    store : folder; default store
        Where all stage results are kept.
    grid : text
        Id of the grid that a cell belongs to; rdx fills it in.
    limits : NAME: share or null
        What may be lost of the training data before a cell stops; its keys are below.
    spec : mapping
        What a table shows: only in files of `experiments` and `recipe` (docs/spec.md).
    """

    data: Any = None
    sampler: Any = None
    depth: Any = None
    teacher: Any = None
    prefinetune: Any = None
    loss: Any = None
    student: Any = None
    budget: Any = None
    trainer: Any = None
    evaluation: Any = None
    tracking: Any = None
    start: Any = None
    origins: Any = None  # what `start` and the like name (`rdx.stages.origins`), never given
    seed: int = 1
    force: bool = False
    store: str = "store"
    grid: str = ""
    limits: Any = None
    spec: Any = None


ConfigStore.instance().store(name="schema", node=Root)


def check_root(cfg: Config) -> None:
    """Refuse a store without a name, a seed that is no such number, and what is never given.

    Raises
    ------
    ConfigError
        Naming the key.
    """
    if not Path(cfg["store"]).name.strip():
        raise ConfigError("store: no value; give it as store=FOLDER")
    if not 0 <= cfg["seed"] < SEEDS:
        raise ConfigError(
            f"seed={cfg['seed']}: must be at least 0 and below 2^63; none stands for chance, so "
            "that a cell can be computed again"
        )
    if cfg["origins"] is not None:
        raise ConfigError("origins: is never given; a student to begin from is start=...")


def _test_set(*, _parent_: Node) -> str:
    """${rdx.test_set:} in the first stage of a test set: the name of the test set."""
    test_set = _parent_._get_parent()
    return str(test_set._key()) if test_set is not None else ""


def _first_stage(*, _root_: DictConfig, _parent_: Node) -> Config:
    """${rdx.first_stage:} of a test set: its run in the folder evaluation.runs; null: BM25."""
    runs = _root_.evaluation.runs
    if runs is None:
        return _sampler("bm25")
    return {**_sampler("recorded"), "run": f"{runs}/{_parent_._key()}.run"}


def _sampler(option: str) -> Config:
    """The keys of an option of the group sampler, with their defaults."""
    text = folders.options("sampler")[option].read_text(encoding="utf-8")
    keys: Config = yaml.safe_load(text)
    return keys


def _file(path: str) -> str:
    """${rdx.file:PATH}: the name of a file, for names that are made from it."""
    return Path(path).name


def _divided(total: int, by: int) -> int:
    """${rdx.divided:TOTAL,BY}: a whole number, such as the lists of so many passages a step."""
    if not by or total % by:
        raise ValueError(f"{total} is no multiple of {by}")
    return total // by


OmegaConf.register_new_resolver("rdx.file", _file, replace=True)
OmegaConf.register_new_resolver("rdx.divided", _divided, replace=True)
OmegaConf.register_new_resolver("rdx.test_set", _test_set, replace=True)
OmegaConf.register_new_resolver("rdx.first_stage", _first_stage, replace=True)


# What Hydra takes as the key of an override.
_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def pinning(key: str, value: str) -> list[str]:
    """The override that gives a key a text, if the key can be one of an override."""
    return [f"++{key}='{value}'"] if _KEY.fullmatch(key) else []
