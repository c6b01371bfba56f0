"""Addresses of MLflow, and errors of records."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rdx.security import hidden

SQLITE = "sqlite:///"
LOCAL = "http://localhost:5000"  # where `mlflow ui` listens by default


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


def page(uri: str, experiment: str, run: str) -> str:
    """Address of a run's page, without what a user and a password would be.

    Of a tracking server its own; of anything else that of a local ``mlflow ui``.

    >>> page("https://me:hunter2@host:81/mlflow/", "1", "ab")
    'https://host:81/mlflow/#/experiments/1/runs/ab'
    >>> page("sqlite:///mlflow.db", "1", "ab")
    'http://localhost:5000/#/experiments/1/runs/ab'
    """
    server = urlsplit(uri)
    base = LOCAL
    if is_server(uri):
        base = f"{server.scheme}://{server.netloc.rpartition('@')[2]}{server.path.rstrip('/')}"
    return f"{base}/#/experiments/{experiment}/runs/{run}"


def is_server(uri: str) -> bool:
    """Whether an address is that of a tracking server, which shows its runs by itself."""
    return urlsplit(uri).scheme in ("http", "https")


def interface(uri: str) -> str:
    """The command that shows what an address holds; "" of a server, which shows it by itself."""
    return "" if is_server(uri) else f"mlflow ui --backend-store-uri {shlex.quote(hidden(uri))}"


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
