"""The modules of scripts/, which import each other and are no package."""

import sys
from importlib import import_module
from pathlib import Path

SCRIPTS = str(Path(__file__).parents[1] / "scripts")


def script(name):
    """A module of scripts/."""
    sys.path.insert(0, SCRIPTS)
    try:
        return import_module(name)
    finally:
        sys.path.remove(SCRIPTS)
