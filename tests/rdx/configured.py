"""Objects as a configuration gives them: bad values are refused with their whole key."""

import inspect
from typing import Any

from rdx import config


def configured(where: str, cls: type, *values: Any, **more: Any) -> Any:
    """An object of a class, built and checked as the one at a key of a configuration."""
    given = inspect.signature(cls).bind(*values, **more).arguments
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}", **given}
    thing = config.build(node, where)
    config.check_here(thing, where)
    return thing
