"""Configuration: compose cells, check them, give them their identity, build their objects.

No torch here: `python -m rdx --help` and `python -m analysis` compose cells without it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rdx.store import signature

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
# conf/experiments links to experiments/, which is a config group too: `+experiments=demo`. (The
# project folder itself must not be searched: its folder store/ would be taken for a group.)
GROUPS = (
    *("data", "sampler", "depth", "teacher", "prefinetune", "loss", "student"),
    *("budget", "trainer", "evaluation", "tracking"),
)

# What never changes a result, only when, where and how fast it is computed.
SCHEDULING = frozenset(("device", "threads", "max_tokens", "checkpoint_seconds"))
# Likewise, but only as arguments of one class.
SCHEDULING_OF = {
    "rdx.teachers.Listwise": ("concurrency", "ledger", "caps", "prices", "published"),
    "rdx.teachers.Endpoint": (
        *("base_url", "key_variable", "timeout", "tries", "backoff", "max_wait", "patience"),
    ),
    "rdx.teachers.Local": ("batch",),
    "rdx.students.Student": ("compile", "attention_implementation"),
    "rdx.trainer.Trainer": ("gradient_cache",),
    "rdx.evaluation.Evaluation": ("runs",),  # the files in it are told by their content
}
# A text at one of these keys that names a file or folder stands for its content, not its place.
CONTENT = frozenset(("corpus", "queries", "qrels", "run", "model"))
# Packages whose version decides a result, by the class that uses them.
ENGINES = {"rdx.samplers.BM25": ("bm25s", "PyStemmer"), "rdx.teachers.QueryLikelihood": ("gguf",)}
# What a loss must have beyond an order of passages, and which teachers give it.
NEEDS = {
    "rdx.losses.MarginMSE": "scores",
    "rdx.losses.KL": "scores",
    "rdx.losses.BCE": "labels",
}
GIVES = {
    "rdx.teachers.QueryLikelihood": ("scores",),
    "rdx.teachers.Labels": ("labels", "scores"),
}
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
# Stage 1 has its own values of these fields of `trainer`.
STAGE_1_FIELDS = ("learning_rate", "batch", "warmup", "validate_every", "select", "patience")
SCHEMA = 3  # raise it when the meaning of a stored result changes


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key and lists what is valid."""


@dataclass
class Root:
    """The root of the configuration; the groups are plain classes, checked when they are built."""

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
    seed: int = 1
    force: bool = False
    store: str = "store"
    grid: str = ""
    spec: Any = None


ConfigStore.instance().store(name="schema", node=Root)


@dataclass(frozen=True)
class Cell:
    """One full configuration of the grid.

    Attributes
    ----------
    overrides
        The command line that gives it.
    grid
        Name of the sub-grid of the spec; "" for the command line.
    cfg
        The resolved configuration.
    levels
        Option chosen per config group, the factor levels of the cell.
    signature
        Signature of the cell: of its last stage.
    """

    overrides: tuple[str, ...]
    grid: str
    cfg: dict[str, Any]
    levels: dict[str, str] = field(default_factory=dict)
    signature: str = ""


def cells(what: str | Sequence[str]) -> list[Cell]:
    """Every possible cell of an experiment, by its name, or of a list of Hydra overrides.

    Cells whose teacher cannot give what their loss needs are left out; see `split`.

    Raises
    ------
    ConfigError
        On an unknown key, option or value, in any cell; or if no cell is possible.
    """
    return split(what)[0]


def split(what: str | Sequence[str]) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """The cells that are possible, and those that are not, each with the reason; see `cells`."""
    overrides = [f"+experiments={what}"] if isinstance(what, str) else list(what)
    with _composing():
        every = [_cell(grid, job) for grid, job in expand(overrides)]
    reasons = [impossible(cell.cfg) for cell in every]
    if every and all(reasons):
        raise ConfigError(f"{reasons[0]}\n  in: python -m rdx {' '.join(every[0].overrides)}")
    found = list(zip(every, reasons, strict=True))
    return [cell for cell, why in found if not why], [(cell, why) for cell, why in found if why]


def impossible(cfg: dict[str, Any]) -> str:
    """Why a cell's loss cannot learn from its teacher; "" if it can.

    Every loss but those of `NEEDS` learns from an order of passages, which every teacher gives.
    """
    if not isinstance(cfg["loss"], dict) or not isinstance(cfg["teacher"], dict):
        return ""
    teacher = cfg["teacher"]
    gives = set(GIVES.get(teacher["_target_"], ()))
    if teacher["_target_"] == "rdx.teachers.Recorded" and teacher.get("order") == "score":
        gives.add("scores")
    lacking = sorted({NEEDS[t] for t in _targets(cfg["loss"]) if t in NEEDS} - gives)
    if not lacking:
        return ""
    loss, source = (str(cfg[g]["_target_"]).rpartition(".")[2] for g in ("loss", "teacher"))
    others = sorted(t.rpartition(".")[2] for t, given in GIVES.items() if lacking[0] in given)
    return (
        f"loss {loss} needs {lacking[0]}, which teacher {source} does not give; those that do: "
        f"{', '.join(others)}" + (", Recorded with order=score" if lacking == ["scores"] else "")
    )


def _targets(node: Any) -> Iterator[str]:
    """The classes named in a node and below it."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def expand(overrides: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The command lines of the cells: (name of the sub-grid, overrides), one per cell.

    Sweeps ("loss=ranknet,adr_mse") are multiplied out. When `+experiments=NAME` is among the
    overrides, that happens once for every sub-grid of its `spec.grid`; other overrides are added
    to each sub-grid and replace its own values of the same key, so that `seed=5` narrows a grid.
    """
    name = next((o.split("=", 1)[1] for o in overrides if o.startswith("+experiments=")), None)
    if name is None:
        return [("", job) for job in _sweep(overrides)]
    with _composing():
        grids = load_spec(name).get("grid") or {}
    if not isinstance(grids, dict) or not grids:
        raise ConfigError(f"experiments/{name}.yaml: spec.grid must name at least one sub-grid")
    mine = {_key(override) for override in overrides}
    return [
        (grid, job)
        for grid, own in grids.items()
        for job in _sweep([*(o for o in own if _key(o) not in mine), *overrides])
    ]


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command line as Hydra composes it: unresolved, ``???`` included.

    Raises
    ------
    ConfigError
        On an unknown key or option.
    """
    with _composing():
        try:
            cfg = compose("config", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, overrides)) from error
    OmegaConf.set_struct(cfg, False)
    return cfg


def load_spec(name: str) -> dict[str, Any]:
    """Return the `spec:` node of experiments/NAME.yaml."""
    known = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no experiment {name!r}; known: {', '.join(known)}")
    whole = OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")
    spec = OmegaConf.select(whole, "spec", default=OmegaConf.create())
    return OmegaConf.to_container(spec, resolve=True)  # type: ignore[return-value]


def check(cell: Cell) -> None:
    """Build every object of a cell (cheap: nothing is loaded or computed) to find bad values."""
    for group in GROUPS:
        node = cell.cfg[group]
        try:
            built = build(node, group)
            tests = getattr(built, "collections", {}).values()  # of `evaluation`
            for one in (built, *(test_set.data for test_set in tests)):
                if hasattr(one, "check"):
                    one.check()
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"{error}\n  in: python -m rdx {' '.join(cell.overrides)}") from error


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain values."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}: give it as {missing[0]}=...")
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # type: ignore[return-value]


def build(node: Any, where: str) -> Any:
    """Turn a node with `_target_` into an object, its nested nodes first.

    The only place that instantiates. Targets are classes of rdx and nothing else.

    Raises
    ------
    ConfigError
        If a key is not an argument of the class (valid ones are listed) or a value is refused.
    """
    if isinstance(node, list):
        return [build(item, f"{where}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: build(value, f"{where}.{key}") for key, value in node.items()}
    target = str(node["_target_"])
    if not target.startswith("rdx."):
        raise ConfigError(f"{where}._target_={target}: must be a class of rdx")
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (AttributeError, ModuleNotFoundError) as error:
        raise ConfigError(f"{where}._target_={target}: {error}") from error
    arguments = {k: build(v, f"{where}.{k}") for k, v in node.items() if k != "_target_"}
    valid = list(inspect.signature(cls).parameters)
    for key in arguments:
        if key not in valid:
            raise ConfigError(f"{where}.{key}: no such key{_near(key, valid)}; valid: {valid}")
    _check_types(cls, arguments, where)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        message = str(error)
        prefix = "" if message.startswith(f"{where}.") else f"{where}: "
        raise ConfigError(f"{prefix}{message}") from error


def identity(cfg: dict[str, Any]) -> dict[str, Any]:
    """What decides a result: the groups without scheduling knobs, files replaced by content."""
    return {group: _identity(cfg[group]) for group in GROUPS if group != "tracking"} | {
        "seed": cfg["seed"]
    }


def signatures(cfg: dict[str, Any]) -> dict[str, str]:
    """Signature of every stage of a cell, in the order of `rdx.pipeline`; the last is the cell's.

    Each one covers just what the stage depends on, so that e.g. another loss asks no teacher again.
    """
    part = identity(cfg)
    depth, trainer = part["depth"], part["trainer"]
    stages: dict[str, str] = {}

    def sign(stage: str, *needs: Any) -> str:
        return signature({"stage": stage, "schema": SCHEMA, "needs": needs})

    asked = depth["k"] if depth["mode"] == "relabel" else depth["pool"]
    chosen = {"queries": depth["queries"], "seed": depth["seed"], "asked": asked}
    stages["candidates"] = sign("candidates", part["data"], part["sampler"], chosen)
    stages["teach"] = sign("teach", stages["candidates"], part["teacher"])
    shared = {key: value for key, value in trainer.items() if key not in STAGE_1_FIELDS}
    stages["prefinetune"] = sign(
        "prefinetune",
        part["student"],
        *((part["prefinetune"], part["data"], shared) if part["prefinetune"] else ()),
    )
    evaluation = part["evaluation"]
    validated = (evaluation["dev_queries"], evaluation["k"], evaluation["measures"][0])
    taught = (part["loss"], stages["teach"], depth, part["budget"], trainer, part["seed"])
    taught += ((*validated, part["sampler"]),) if trainer.get("validate_every") else ()
    stages["distill"] = sign("distill", stages["prefinetune"], *(taught if part["loss"] else ()))
    dev = (part["data"], part["sampler"]) if part["evaluation"]["interpolate"] else ()
    evaluated = (part["evaluation"], trainer["precision"], dev)
    stages["reference"] = sign("reference", evaluated, part["teacher"])
    last = stages["reference"] if part["loss"] else None
    stages["evaluate"] = sign("evaluate", stages["distill"], evaluated, last)
    return stages


@contextmanager
def _composing() -> Iterator[None]:
    """Hydra's composer on conf/, also inside a running Hydra job."""
    before = GlobalHydra.instance().hydra
    if before is not None and getattr(_composing, "depth", False):
        yield
        return
    GlobalHydra.instance().clear()
    _composing.depth = getattr(_composing, "depth", 0) + 1  # type: ignore[attr-defined]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        _composing.depth -= 1  # type: ignore[attr-defined]
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def _cell(grid: str, overrides: list[str]) -> Cell:
    try:
        cfg = compose("config", list(overrides), return_hydra_config=True)
        choices = cfg.hydra.runtime.choices
        levels = {group: str(choices[group]) for group in GROUPS if group != "tracking"}
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        plain = resolved(cfg)
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, overrides)) from error
    known = [f.name for f in dataclasses.fields(Root)]
    for key in plain:  # "+key=value" adds what the schema does not have
        if key not in known:
            raise ConfigError(f"{key}: no such key{_near(str(key), known)}; valid: {known}")
    return Cell(tuple(overrides), grid, plain, levels, signatures(plain)["evaluate"])


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """One readable message: what is wrong, what would be right, in which command line."""
    text = str(error).strip()
    for override in overrides:
        key = _key(override)
        if f"Could not override '{key}'" in text or f"full_key: {key}" in text:
            parent, _, name = key.rpartition(".")
            valid = _valid_keys(parent, overrides)
            if valid and name not in valid:
                where = f"{parent}.{name}" if parent else name
                return f"{where}: no such key{_near(name, valid)}; valid: {valid}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = ("Config search path", "Set the env", "provider=")
    lines = [line for line in lines if not line.startswith(noise)]
    if error.__cause__ is not None and text.startswith("Error merging override"):
        lines.append(str(error.__cause__).strip().splitlines()[0])
    return "\n  ".join([*lines, f"in: python -m rdx {' '.join(overrides)}"])


def _valid_keys(parent: str, overrides: Sequence[str]) -> list[str]:
    """Keys of a node of the configuration with the options chosen, if there is such a node."""
    chosen = [o for o in overrides if _key(o) in GROUPS]
    with _composing():
        cfg = compose("config", chosen)
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return [str(k) for k in node if k != "_target_"] if isinstance(node, DictConfig) else []


def _near(key: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _sweep(overrides: Iterable[str]) -> list[list[str]]:
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return [list(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    except HydraException as error:
        raise ConfigError(f"{error}\n  in: {' '.join(overrides)}") from error


def _check_types(cls: type, arguments: dict[str, Any], where: str) -> None:
    """Refuse a text where a number is meant: dataclasses do not check by themselves."""
    if not dataclasses.is_dataclass(cls):
        return
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str}
    for f in dataclasses.fields(cls):
        if f.name not in arguments:
            continue
        value, annotation = arguments[f.name], str(f.type)
        allowed = [k for k in kinds if k in annotation.replace(" ", "").split("|")]
        if not allowed or (value is None and "None" in annotation):
            continue
        right = any(isinstance(value, kinds[k]) for k in allowed)  # type: ignore[arg-type]
        if not right or (isinstance(value, bool) and "bool" not in allowed):
            raise ConfigError(f"{where}.{f.name}={value!r}: must be {annotation}")


def _identity(node: Any, key: str = "") -> Any:
    if isinstance(node, dict):
        left_out = SCHEDULING.union(SCHEDULING_OF.get(node.get("_target_", ""), ()))
        plain = {k: _identity(v, k) for k, v in node.items() if k not in left_out}
        if node.get("_target_") in ENGINES:
            packages = ENGINES[node["_target_"]]
            plain["_versions_"] = {name: _version(name) for name in packages}
        return plain
    if isinstance(node, list):
        if key == "libraries":
            return {str(one): _version(DISTRIBUTIONS.get(one, str(one))) for one in node}
        return [_identity(item, key) for item in node]
    if key == "prompt" and isinstance(node, str):
        return _prompt(node)
    if key in CONTENT and isinstance(node, str) and Path(node).exists():
        return _content(Path(node))
    return node


def _prompt(name: str) -> Any:
    """A prompt's content: of a file, of one of rdx, or of the version of rank-llm that has it."""
    if name.startswith("rank_llm:"):
        return {"name": name, "version": _version("rank-llm")}
    ours = CONF / "teacher" / "prompts" / f"{name}.yaml"
    path = ours if ours.is_file() else Path(name)
    return _content(path) if path.is_file() else name


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # `check` refuses it


def _content(path: Path) -> dict[str, str]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {
        "" if path.is_file() else str(file.relative_to(path)): _sha256(
            file, file.stat().st_mtime_ns, file.stat().st_size
        )
        for file in files
    }


@lru_cache(maxsize=4096)
def _sha256(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
