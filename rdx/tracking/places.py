"""Addresses of MLflow, and errors of records."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from urllib.parse import unquote

from rdx.security import hidden

SQLITE = "sqlite:///"


class NoRecords(LookupError):
    """There is no MLflow store at an address, or no such experiment in it."""


class RecordError(ValueError):
    """A finished trial lacks its files, or its database cannot be read."""


def target(uri: str, experiment: str) -> str:
    """Name of an experiment of an MLflow in the store."""
    return hashlib.sha256(f"{uri}\n{experiment}".encode()).hexdigest()[:12]


def database_file(uri: str) -> Path | None:
    """The file of a local database; None of any other address."""
    if not uri.startswith(SQLITE):
        return None
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))


def deleted(experiment: str, number: str, uri: str) -> RecordError:
    """The error of an experiment that was deleted, which MLflow keeps and does not write to."""
    return RecordError(f"experiment {experiment!r} was deleted; {restoring(number, uri)}")


def restoring(number: str, uri: str) -> str:
    """How to go on with an experiment that was deleted."""
    where = f"MLFLOW_TRACKING_URI={shlex.quote(hidden(uri))}"
    return (
        f"restore it: {where} mlflow experiments restore -x {number}; or record in another one: "
        "tracking.experiment=NAME"
    )
