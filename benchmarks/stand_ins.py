"""Stand-ins for packages that are not installed, so that what only computes can be imported.

To be imported before rdx. Students, losses, trainer and teachers then run with torch, Transformers,
Accelerate, NumPy and pandas alone, as on a GPU machine without a package registry: settings are
plain dataclasses, whose values nobody checks, and what reads or writes files of rankings fails.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import accelerate  # noqa: F401  these ask what else is installed, and are to hear the truth
import pandas  # noqa: F401
import transformers  # noqa: F401


class Anything:
    """In the place of what is only named, or made and kept, when a module is imported."""

    def __init__(self, *values: Any, **named: Any) -> None:
        pass


def dataclass(config: Any, **options: Any) -> Any:
    """As that of pydantic, but that values are taken as they are."""
    return dataclasses.dataclass(**options)


class Package(ModuleType):
    """A module in which everything is to be found."""

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


PACKAGES = {
    "annotated_types": [Package("annotated_types")],
    "pydantic": [
        Package("pydantic", JsonValue=Any, ValidationError=ValueError),
        Package("pydantic.dataclasses", dataclass=dataclass),
    ],
    "pyarrow": [
        Package(name) for name in ("pyarrow", "pyarrow.compute", "pyarrow.csv", "pyarrow.parquet")
    ],
}
for _name, _modules in PACKAGES.items():
    try:
        importlib.import_module(_name)
    except ImportError:
        sys.modules.update((module.__name__, module) for module in _modules)
