"""Commits of the Hub's models in a configuration, looked up before it is signed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rdx import hub
from rdx.config.classes import with_mark
from rdx.config.schema import Config, ConfigError, pinning
from rdx.declared import MODEL


def resolve_revisions(cfg: Config) -> tuple[str, ...]:
    """Replace the revision of every model of the Hub by the commit that it is now.

    One that neither the Hub nor its cache knows is left as it is.

    Returns
    -------
    tuple of str
        Overrides that load the same commits on any machine, for workers of a grid.
    """
    overrides: list[str] = []
    for path, node in hub_models(cfg):
        try:
            node["revision"] = hub.commit(node["model"], node.get("revision"))
        except hub.HubError:
            continue
        overrides += pinning(f"{path}.revision", node["revision"])
    return tuple(overrides)


def require_models(configurations: Iterable[Config]) -> None:
    """Raise ConfigError, with the cure, if a model of the Hub is neither cached nor to be had."""
    models: dict[tuple[str, str | None], str] = {}
    for cfg in configurations:
        for path, node in hub_models(cfg):
            models.setdefault((node["model"], node.get("revision")), path)
    for (model, revision), path in models.items():
        try:
            hub.available(model, revision)
        except hub.HubError as error:
            raise ConfigError(f"{path}.{error}") from error
        if revision is not None:
            hub.remember(model, revision)


def hub_models(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Nodes whose model is an id of the Hub, each with its path."""
    for path, node in loaders(cfg):
        if isinstance(node.get("model"), str) and hub.is_id(node["model"]):
            yield path, node


def loaders(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Nodes that load a model by its name in the field `model`, each with its path."""
    return ((path, node) for path, node, _ in with_mark(cfg, MODEL))
