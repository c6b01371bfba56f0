"""Configuration: compose cells, check them, give them their identity, build their objects.

No torch here: `python -m rdx --help` and `python -m analysis` compose cells without it.
"""

from rdx.config.building import build, check, check_all, find_extensions
from rdx.config.composing import COMPOSING, composed, explain, load_spec, resolved, settle
from rdx.config.grid import cells, expand, impossible, split
from rdx.config.identity import CORPUS, LAYOUT, identity
from rdx.config.machine import emulated, precisions
from rdx.config.revisions import loaders, require_models
from rdx.config.schema import GROUPS, Cell, ConfigError, Root, nodes
from rdx.folders import CONF, ROOT

__all__ = [
    "COMPOSING",
    "CORPUS",
    "LAYOUT",
    "CONF",
    "GROUPS",
    "ROOT",
    "Cell",
    "ConfigError",
    "Root",
    "build",
    "cells",
    "check",
    "check_all",
    "composed",
    "emulated",
    "expand",
    "explain",
    "find_extensions",
    "identity",
    "impossible",
    "load_spec",
    "loaders",
    "nodes",
    "precisions",
    "require_models",
    "resolved",
    "settle",
    "split",
]
