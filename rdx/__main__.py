"""`python -m rdx`: check the whole command line, then let Hydra run its cells."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rdx import config, progress, security
from rdx.commands import VERBS
from rdx.fetching import require
from rdx.grids import key_of
from rdx.sweeper import report

SHOWS = (
    *("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version"),
    *("--shell-completion", "-sc", "--resolve", "--package", "-p"),
)
MULTIRUN = ("-m", "--multirun")
LAUNCHED = "LOCAL_RANK" in os.environ  # by torchrun or accelerate launch: perhaps one of several


@hydra.main(config_path=str(config.CONF), config_name="config", version_base="1.3")
def job(cfg: DictConfig) -> dict[str, Any]:
    """One cell, in whatever process the launcher chose."""
    collect_rarely()
    from rdx import pipeline, trainer  # torch and transformers load here, not for --help

    if LAUNCHED and not trainer.running():
        raise config.ConfigError(
            "a Hydra launcher started this cell in a process apart from those of torchrun, which "
            "train one cell together: give hydra/launcher=basic, or leave out torchrun"
        )
    choices = HydraConfig.get().runtime.choices
    levels = {group: str(choices[group]) for group in config.GROUPS if group != "tracking"}
    plain = config.resolved(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]))
    config.resolve_revisions(plain)
    own = [o for o in HydraConfig.get().overrides.task if not o.startswith("++")]
    print(f"== {' '.join(own) or 'defaults'}", flush=True)
    signature = config.signatures(plain)["evaluate"]
    with progress.recorded(Path(plain["store"]), signature, plain):
        summary = pipeline.run(plain, levels)
    for name, value in summary["means"].items():
        print(f"   {name:42} {value:.4f}")
    for name, facts in summary["collections"].items():
        if facts["degenerate"]:
            print(f"   WARNING: {name} is degenerate: {facts['reason']}")
    print(f"   health: {summary['health']}, signature: {summary['signature']}", flush=True)
    if HydraConfig.get().mode == RunMode.RUN:
        print(report([summary]))
    return summary


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
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    collect_rarely()
    if LAUNCHED:
        from rdx import trainer

        trainer.run(program)
    else:
        program()


def program() -> None:
    """Check every cell before any work starts, then run."""
    arguments = sys.argv[1:]
    key = security.exposed_argument(arguments)
    if key:
        sys.exit(
            f"rdx: {key}: holds a key or password, and command lines are recorded; leave it in an "
            "environment variable (docs/security.md)"
        )
    if arguments and arguments[0] in VERBS:
        arguments = VERBS[arguments[0]](arguments[1:]) or []  # of `retry`: a grid to run
        if not arguments:
            return
    if not any(a.split("=")[0] in SHOWS for a in arguments):
        try:
            overrides = [a for a in arguments if not a.startswith("-")]
            multirun = any(a in MULTIRUN for a in arguments)
            mine = [o for o in overrides if not key_of(o).startswith("hydra")]
            found, left_out = config.split(mine)
            for cell, why in left_out:
                print(f"left out: {' '.join(cell.overrides)}: {why}", file=sys.stderr)
            if len(found) + len(left_out) > 1 and not multirun and not _experiment(overrides):
                raise config.ConfigError(
                    f"this is a grid of {len(found) + len(left_out)} cells; run it with: "
                    f"python -m rdx -m {' '.join(overrides)}"
                )
            require((cell.cfg for cell in found), mine)
            for cell in found:
                config.check(cell)
            config.require_models(cell.cfg for cell in found)
        except (config.ConfigError, ValueError, FileNotFoundError) as error:
            sys.exit(f"rdx: {error}")
    # Hydra wants -m before the first override; a user may put it anywhere.
    flags = [a for a in arguments if a in MULTIRUN]
    rest = [a for a in arguments if a not in MULTIRUN]
    sys.argv[1:] = [*flags, *rest]
    job()


def _experiment(overrides: list[str]) -> bool:
    return any(o.startswith("+experiments=") for o in overrides)


if __name__ == "__main__":
    main()
