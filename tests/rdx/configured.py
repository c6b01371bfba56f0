"""Objects as a configuration gives them: bad values are refused with their whole key."""

import copy
import inspect
import re
from typing import Any

import pytest
import yaml

from rdx import config


def configured(where: str, cls: type, *values: Any, **more: Any) -> Any:
    """An object of a class, built and checked as the one at a key of a configuration."""
    arguments = inspect.signature(cls).bind(*values, **more).arguments
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}", **arguments}
    thing = config.build(node, where)
    config.check_here(thing, where)
    return thing


def check_refused(where: str, cls: type, told: str = "", **values: Any) -> None:
    """Fail unless values are refused by key and value: of the last, or as `told`, ``KEY=VALUE``."""
    key, value = [*values.items()][-1]
    with pytest.raises(ValueError, match=re.escape(f"{where}.{told or f'{key}={value!r}'}")):
        configured(where, cls, **values)


def edited(cell: config.Cell, *overrides: str) -> dict[str, Any]:
    """The resolved configuration of a cell with other values of keys that it has."""
    cfg = copy.deepcopy(cell.cfg)
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        assert name in node
        node[name] = yaml.safe_load(value)
    return cfg
