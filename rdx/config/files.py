"""Read files of options and experiments; refuse bad ones in one line that names the file."""

from __future__ import annotations

import io
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rdx.config.classes import MUST_BE, allowed, nodes
from rdx.config.schema import ConfigError
from rdx.text import as_typed

_LAUNCHERS = "hydra_plugins.rdx_"  # with the sweeper: Hydra makes them, and finds them only there


def read(file: Path) -> DictConfig:
    """Read the keys and values of a file, unresolved.

    Raises
    ------
    ConfigError
        If it is no such YAML, or names a class that is neither rdx's nor declared: Hydra itself
        would make what stands below a node ``hydra``.
    """
    shown = as_typed(file)
    try:
        tree, targets = _parsed(shown, file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read as keys and values: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: {error}") from error
    for target in targets:
        if not (allowed(target) or target.startswith(_LAUNCHERS)):
            raise ConfigError(f"{shown}: _target_: {target}: {MUST_BE}")
    return deepcopy(tree)


@lru_cache(maxsize=512)  # composing reads the same files once for each cell's options
def _parsed(shown: str, text: str) -> tuple[DictConfig, tuple[str, ...]]:
    """The keys and values of a file, and the classes that it names."""
    try:
        tree = OmegaConf.load(io.StringIO(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{shown}{line}: no YAML: {error.problem}") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{shown}: {error}") from error
    except OSError as error:  # a number alone
        raise ConfigError(f"{shown}: cannot be read as keys and values: {error}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{shown}: must hold keys and values, as in seed: 1")
    return tree, tuple(str(node["_target_"]) for node in nodes(OmegaConf.to_container(tree)))
