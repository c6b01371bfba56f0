"""What of a configuration anybody may see: no scheduling, and of a path the name alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rdx import assets, config, hub
from rdx.declared import MODEL, SCHEDULES, STUDENT, WRITTEN, Read, marks
from rdx.facts import origins_of

# What concerns the machine, not the results, and may say more of it than should be public.
PRIVATE = ("tracking", "store", "force", "grid", "spec", "start", "origins")
PATH = re.compile(r"/|~|\.{1,2}/|file:")  # how a text begins that is a path


def settings(cfg: config.Config) -> config.Config:
    """A whole configuration as it may be published, with those that its students come from.

    How these were named is left out: it may tell of folders.
    """
    origins = {
        key: {"checkpoint": origin.checkpoint, "config": origin.cell and settings(origin.cell)}
        for key, origin in origins_of(cfg).items()
    }
    own = {group: public(node) for group, node in cfg.items() if group not in PRIVATE}
    return own | ({"origins": origins} if origins else {})


def public(node: Any) -> Any:
    """A node of the configuration without scheduling; of a path the name alone."""
    if isinstance(node, dict):
        cls = config.class_of(node)
        of_fields = marks(cls) if cls else {}
        return {
            key: shown(value, of_fields.get(key, ())) if isinstance(value, str) else public(value)
            for key, value in node.items()
            if {SCHEDULES, STUDENT, WRITTEN}.isdisjoint(of_fields.get(key, ()))
        }
    if isinstance(node, list):
        return [public(item) for item in node]
    return shown(node) if isinstance(node, str) else node


def shown(text: str, field_marks: tuple[Any, ...] = ()) -> str:
    """A text as anybody may see it: a file or folder without those that it is in.

    A field that is declared to be read names one, unless it is a model that has a public name;
    another text does where it is written as a path.
    """
    if MODEL in field_marks:
        is_path = not (text.startswith(assets.PREFIX) or hub.is_id(text))
    else:
        is_path = any(isinstance(mark, Read) for mark in field_marks) or bool(PATH.match(text))
    return Path(text).name if is_path else text
