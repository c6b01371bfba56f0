"""`python -m rdx`: check the whole command line, then let Hydra run its cells."""

from __future__ import annotations

from rdx import quiet, stopping

if __name__ == "__main__":
    stopping.install()  # first: libraries take seconds to load
    quiet.environment()

import atexit
import gc
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import patch

import hydra
from hydra._internal import utils
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rdx import config, faults, progress, security, stages
from rdx.arguments import near
from rdx.commands import VERBS
from rdx.commands.checks import check, check_students
from rdx.grids import key_of
from rdx.plan import tables
from rdx.precision import emulation_factor
from rdx.stages import signed
from rdx.sweeper import report
from rdx.text import counted

if TYPE_CHECKING:
    from rdx.pipeline import Summary

SHOWS = (
    *("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"),
    *("--shell-completion", "-sc", "--resolve", "--package", "-p"),
)
MULTIRUN = ("-m", "--multirun")
LAUNCHED = "LOCAL_RANK" in os.environ  # by torchrun or accelerate launch: perhaps one of several


@hydra.main(config_path=str(config.CONF), config_name="config", version_base="1.3")
def job(cfg: DictConfig) -> Summary:
    """One cell, in whatever process the launcher chose."""
    try:
        return _cell(cfg)
    except Exception as error:
        if stopping.status() is not None:  # a library took Ctrl-C for a fault of its own
            raise KeyboardInterrupt from error
        if HydraConfig.get().mode == RunMode.RUN:
            raise faults.Ended(error) from error
        raise


def _cell(cfg: DictConfig) -> Summary:
    collect_rarely()
    quiet.loggers()
    config.find_extensions()
    with stopping.loading():
        from rdx import pipeline, trainer  # torch and transformers load here, not for --help

    if LAUNCHED and not trainer.running():
        raise config.ConfigError(
            "a Hydra launcher started this cell in a process apart from those of torchrun, which "
            "train one cell together: give hydra/launcher=basic, or leave out torchrun"
        )
    cell = _composed(cfg)
    given = [o for o in cell.overrides if not o.startswith("++")]
    print(f"== {' '.join(given) or 'defaults'}")
    print(f"   {' '.join(f'{key}={value}' for key, value in config.precisions(cell.cfg).items())}")
    warn_of_emulation(cell.cfg)
    root = Path(cell.cfg["store"])
    with progress.begun(root, cell), progress.recorded(root, cell.signature, cell.cfg):
        summary = pipeline.run(cell)
    for name, value in summary.facts.means.items():
        print(f"   {name:42} {value:.4f}")
    for name, facts in summary.facts.collections.items():
        if facts.degenerate:
            print(f"   WARNING: {name} is degenerate: {facts.reason}")
        if facts.selected_on:
            print(f"   WARNING: {name} decided which weights were kept: it is no test of them")
    print(f"   health: {summary.facts.health}, signature: {cell.signature}", flush=True)
    if HydraConfig.get().mode == RunMode.RUN:
        print(report([summary]))
    return summary


def _composed(cfg: DictConfig) -> config.Cell:
    """The cell that Hydra composed, whatever process this is."""
    hydra = HydraConfig.get()
    levels = config.levels(hydra.runtime.choices)
    own = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    plain = config.resolved(own, Path(hydra.runtime.cwd))
    config.settle(plain)
    return signed(config.Cell(tuple(hydra.overrides.task), plain["grid"], plain, levels))


def warn_of_emulation(cfg: dict[str, Any]) -> None:
    """Say how much slower an explicit bfloat16 is on a CPU that has no units for it."""
    if keys := config.emulated(cfg):
        print(
            f"   WARNING: {' and '.join(keys)}=bf16, but this CPU has no bfloat16 units: a matrix "
            f"product takes {emulation_factor():.0f} times as long as in fp32, which "
            "precision=auto would choose",
            flush=True,
        )


def collect_rarely() -> None:
    """Let the garbage collector go through all objects a hundred times less often, and not at exit.

    The libraries that a cell loads make a million objects and no garbage; looking for it there took
    a second of every start and one of every end. Collections of young objects stay as they are.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1000)
    if not LAUNCHED:  # torch ends the threads of process groups when these are collected
        atexit.unregister(gc.freeze)  # a worker runs many cells
        atexit.register(gc.freeze)


def main() -> None:
    """Run the program; of several processes in the first, and the others help it to train."""
    quiet.environment()
    collect_rarely()
    with faults.ended():
        stopping.gently(True)
        config.find_extensions()
        if LAUNCHED:
            from rdx import pipeline, trainer

            trainer.run(program, pipeline.take_part)
        else:
            program()
    stopping.gently(False)


def program() -> None:
    """Check every cell before any work starts, then run.

    Raises
    ------
    Mendable, OSError
        On whatever the user can mend.
    """
    arguments = sys.argv[1:]
    key = security.exposed_argument(arguments)
    if key:
        sys.exit(
            f"rdx: {key}: holds a key or password, and command lines are recorded; leave it in an "
            "environment variable (docs/security.md)"
        )
    quiet.loggers()  # and again after Hydra has set its own
    if arguments and arguments[0] in VERBS:
        again = VERBS[arguments[0]](arguments[1:])  # of `retry`: what to run
        if again is None:
            return
        arguments = again
    if "--version" in arguments:
        print(f"rdx {importlib.metadata.version('rdx')}")
        return
    _refuse_words(arguments)
    overrides = [a for a in arguments if not a.startswith("-")]
    multirun = any(a in MULTIRUN for a in arguments)
    runs = not any(a.split("=")[0] in SHOWS for a in arguments)
    if runs:
        mine = [o for o in overrides if not key_of(o).startswith("hydra")]
        size = len(config.expand(mine))
        if not size:
            raise config.ConfigError(config.NO_CELL)
        if size > 1 and not multirun and not _experiment(overrides):
            raise config.ConfigError(
                f"this is a grid of {counted(size, 'cell')}; run it with: "
                f"python -m rdx -m {' '.join(overrides)}"
            )
        with tables.checked(mine):
            cells, left_out = stages.split(mine)
            for cell, why in left_out:
                print(f"left out: {' '.join(cell.overrides)}: {why}", file=sys.stderr)
            check(cells, mine)
            check_students(cells)
    # Hydra wants -m before the first override; a user may put it anywhere. An experiment is a grid.
    flags = ["-m"] if multirun or (runs and _experiment(overrides)) else []
    sys.argv[1:] = [*flags, *(a for a in arguments if a not in MULTIRUN)]
    try:
        with (
            patch.object(utils, "run_and_report", lambda ask: ask()),  # it prints tracebacks
            # known by now; Hydra would compose everything once more to look for it
            patch.object(Hydra, "get_mode", lambda *_, **__: None),
        ):
            job()
    except (HydraException, OmegaConfBaseException) as error:
        raise config.ConfigError(config.explain(error, overrides)) from error


def _refuse_words(arguments: list[str]) -> None:
    """Refuse verbs and options that there are not; what follows some options is no override."""
    parser = utils.get_args_parser()
    options = parser._option_string_actions
    words = [a for a in arguments[:1] if "=" not in a and a[:1] not in ("-", "~", "")]
    if words and words[0] not in VERBS:
        raise config.ConfigError(
            f"{words[0]}: no such verb{near(words[0], VERBS)}; verbs: {', '.join(VERBS)}; "
            "everything else is KEY=VALUE"
        )
    for argument in arguments:
        name = argument.split("=")[0]
        if argument.startswith("-") and name not in options:
            raise config.ConfigError(
                f"{name}: no such option{near(name, options)}; python -m rdx --help lists all"
            )
    parser.error = _refuse  # type: ignore[method-assign]
    parser.parse_intermixed_args(arguments)


def _refuse(message: str) -> NoReturn:
    raise config.ConfigError(f"{message}; python -m rdx --help lists all options")


def _experiment(overrides: list[str]) -> bool:
    return any(o.startswith("+experiments=") for o in overrides)


if __name__ == "__main__":
    main()
