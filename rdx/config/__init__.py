"""Configuration: compose cells, check them, give them their identity, build their objects.

No torch here: `python -m rdx --help` composes cells without it. It loads when objects are built.
"""

from rdx.config.building import build, built, check, check_all, check_here, part, parts
from rdx.config.cell import Cell, varied
from rdx.config.classes import class_of, find_extensions, lineage, nodes, with_mark
from rdx.config.composer import COMPOSING
from rdx.config.composing import Bases, composed, levels, load_spec, resolved, settle
from rdx.config.explaining import explain
from rdx.config.grid import cells, expand, impossible, single, split
from rdx.config.identity import ANSWERS, FILES, PASSAGES, identity
from rdx.config.machine import emulated, precisions
from rdx.config.revisions import loaders, require_models
from rdx.config.schema import GROUPS, NO_CELL, Config, ConfigError, MissingFile
from rdx.folders import CONF, ROOT

__all__ = [
    "NO_CELL",
    "ANSWERS",
    "COMPOSING",
    "CONF",
    "FILES",
    "GROUPS",
    "PASSAGES",
    "ROOT",
    "Bases",
    "Cell",
    "Config",
    "ConfigError",
    "MissingFile",
    "build",
    "built",
    "cells",
    "check",
    "check_all",
    "check_here",
    "class_of",
    "composed",
    "emulated",
    "expand",
    "explain",
    "find_extensions",
    "identity",
    "impossible",
    "levels",
    "lineage",
    "load_spec",
    "loaders",
    "nodes",
    "part",
    "parts",
    "precisions",
    "require_models",
    "resolved",
    "settle",
    "single",
    "split",
    "varied",
    "with_mark",
]
