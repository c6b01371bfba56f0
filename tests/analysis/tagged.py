"""What a spec says of the fields of its recipe, beside the cells that it is said of."""

import dataclasses

from rdx import config
from rdx.declared import SCHEDULES, marked
from rdx.grids import key_of, text

# Of a recipe everything but files, and what only says where and how fast.
GROUPS = ("data", "depth", "prefinetune", "loss", "student", "budget", "trainer")


def plain(tags):
    """The tags of keys; others are sentences."""
    return {key: tag for key, tag in tags.items() if tag is not None and " " not in key}


def wrong(cell, tags):
    """The keys whose value is not what is said, but for those that the cell's overrides set."""
    own = [key_of(o) for o in cell.overrides if not o.startswith("+")]
    found = {}
    for key, (told, _) in plain(tags).items():
        varied = any(key == mine or key.startswith(f"{mine}.") for mine in own)
        absent = key not in cell.levels and cell.cfg[key.split(".")[0]] is None
        if not varied and not absent and text(cell.value(key)) != text(told):
            found[key] = (told, cell.value(key))
    return found


def untagged(cell, tags):
    """The keys that decide a result and are not their class's default, of which nothing is said.

    A key of a list of words, "depth.k, depth.queries of TWOLAR data", is said something of.
    """
    told = " ".join(key for key, tag in tags.items() if tag is not None)
    leaves = [leaf for group in GROUPS for leaf in _leaves(cell.cfg[group], group)]
    return [key for key in leaves if key not in told]


def _leaves(node, where):
    if not isinstance(node, dict):
        return
    cls = config.class_of(node)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for key, value in node.items():
        if isinstance(value, dict) and "_target_" in value:
            if key not in ("sampler", "lists"):  # of a file; one of depth/lists
                yield from _leaves(value, f"{where}.{key}")
        elif key not in ("_target_", "revision", *marked(cls, SCHEDULES)) and (
            value != defaults.get(key, dataclasses.MISSING)
        ):
            yield f"{where}.{key}"
