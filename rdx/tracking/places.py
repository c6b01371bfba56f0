"""Addresses of MLflow, and errors of records."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
    return Path(uri.removeprefix(SQLITE).partition("?")[0])
