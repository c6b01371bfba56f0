"""The tiny world of the tests of rdx, here too."""

import importlib.util
import sys
from pathlib import Path

_SOURCE = Path(__file__).parents[1] / "rdx" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("chaos_world", _SOURCE)
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _MODULE  # dataclasses look their module up
_SPEC.loader.exec_module(_MODULE)
world = _MODULE.world
