"""Configuration: compose cells, check them, give them their identity, build their objects.

No torch here: `python -m rdx --help` and `python -m analysis` compose cells without it.
"""

from rdx.config.building import build, check
from rdx.config.composing import composed, explain, load_spec, resolved
from rdx.config.grid import cells, distinct, expand, impossible, split
from rdx.config.identity import (
    OF_SPLITS,
    SCHEDULING,
    SCHEDULING_OF,
    SCHEMA,
    corpus,
    identity,
    signatures,
)
from rdx.config.revisions import loaders, require_models, resolve_revisions
from rdx.config.schema import CONF, GROUPS, ROOT, Cell, ConfigError, Root, nodes

__all__ = [
    "CONF",
    "GROUPS",
    "OF_SPLITS",
    "ROOT",
    "SCHEDULING",
    "SCHEDULING_OF",
    "SCHEMA",
    "Cell",
    "ConfigError",
    "Root",
    "build",
    "cells",
    "check",
    "composed",
    "corpus",
    "distinct",
    "expand",
    "explain",
    "identity",
    "impossible",
    "load_spec",
    "loaders",
    "nodes",
    "require_models",
    "resolve_revisions",
    "resolved",
    "signatures",
    "split",
]
