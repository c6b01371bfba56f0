"""Put errors of Hydra into readable words."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence

from hydra import compose
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf

from rdx import folders
from rdx.arguments import near
from rdx.config.composer import composing, parsed
from rdx.config.schema import GROUPS, Root
from rdx.faults import line
from rdx.grids import key_of


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """Put an error of Hydra into one readable message that says what is valid."""
    text = str(error).strip()
    for override in overrides:
        if override.startswith("experiments="):
            return f"{override}: an experiment is added, with a plus: +{override}"
    for override in overrides:
        key = key_of(override)
        if f"Could not override '{key}'" in text or f"full_key: {key}" in text:
            if key == "teacher.scale":
                return f"{override}: this teacher gives no scores; leave teacher.scale out"
            parent, _, name = key.rpartition(".")
            valid = _valid_keys(parent, overrides)
            if valid and name not in valid:
                where = f"{parent}.{name}" if parent else name
                return f"{where}: no such key{near(name, valid)}; valid: {valid}"
    if defaults := _defaults(text, overrides):
        return defaults
    absent = re.search(r"Could not (?:find|load) '([^']+)/([^']+)'", text)
    if absent:
        group, option = absent.groups()
        options = list(folders.options(group))
        return f"{group}={option}: no such option{near(option, options)}; valid: {options}"
    if "Config group override must be" in text:
        for group, _, value in (override.partition("=") for override in overrides):
            options = list(folders.options(group)) if group in GROUPS else []
            if options and value not in options:
                return (
                    f"{group}: the name of one option is expected, not {value}; valid: {options}; "
                    f"a key of it is given as {group}.KEY"
                )
    unknown = re.search(r"Key '([^']+)' not in 'Root'", text)
    if unknown and (name := _experiment(overrides)):
        valid = [f.name for f in dataclasses.fields(Root)]
        hint = near(unknown[1], valid)
        return f"{folders.shown(name)}: {unknown[1]}: no such key{hint}; valid: {valid}"
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return line(error.__cause__)
    noise = ("Config search path", "Set the env", "provider=", "full_key:", "reference_type=")
    lines = [entry.strip() for entry in text.splitlines()]
    lines = [entry for entry in lines if entry and not entry.startswith((*noise, "object_type="))]
    lines = lines or [type(error).__name__]
    named = re.search(r"full_key: (\S+)", text)
    if named and named[1] not in lines[0]:
        lines.insert(0, f"{named[1]}:")
    lines[0] = re.sub(r"^Could not override '(.*)'\.$", r"\1: no such key;", lines[0])
    lines[0] = re.sub(r"^Error merging override (.*)$", r"\1:", lines[0])
    if error.__cause__ is not None and text.startswith("Error merging override"):
        lines.append(str(error.__cause__).strip().splitlines()[0])
    return " ".join(dict.fromkeys(lines))


def _experiment(overrides: Sequence[str]) -> str:
    return next((o.partition("=")[2] for o in overrides if o.startswith("+experiments=")), "")


def _defaults(text: str, overrides: Sequence[str]) -> str:
    """What an experiment writes wrongly in its `defaults`, and the cure; "" if nothing.

    A group without a slash is looked for beside the experiment.
    """
    name = _experiment(overrides)
    wrong = re.search(
        r"Could not override '(?:experiments/)?([^'@]+)[^']*'\. No match in the defaults list"
        r"|Could not (?:find|load) 'experiments/([^']+)'|Multiple values for ([^\s.]+)",
        text,
    )
    entry = next(filter(None, wrong.groups())) if wrong else ""
    if not name or entry in ("", name):
        return ""
    hint = near(entry, GROUPS) if entry not in GROUPS else ""
    return (
        f"{folders.shown(name)}: defaults: {entry}{hint}: an option of a group is written as "
        "- override /GROUP: OPTION, with the slash"
    )


def unread(overrides: Sequence[str], error: Exception) -> str:
    """Say why Hydra's grammar cannot read the first bad override, and the cure."""
    for before, override in zip(("", *overrides), overrides, strict=False):
        try:
            parsed(override)
        except HydraException as fault:
            key, equals, value = override.partition("=")
            why = str(fault).strip().splitlines()[0]
            if not equals:
                cure = f"{override!r}: KEY=VALUE is expected"
                whole = shlex.quote(f"{before} {override}")
                return f"{cure}; of a value with spaces: {whole}" if "=" in before else cure
            quoted = shlex.quote(f'{key}="{value}"')
            return f"{override}: {why}; a value with such characters is quoted twice: {quoted}"
    return str(error)


def _valid_keys(parent: str, overrides: Sequence[str]) -> list[str]:
    """Keys of a node of the configuration with the options chosen, if there is such a node."""
    chosen = [o for o in overrides if key_of(o) in GROUPS]
    with composing():
        cfg = compose("config", chosen)
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return [str(k) for k in node if k != "_target_"] if isinstance(node, DictConfig) else []
