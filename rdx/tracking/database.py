"""The SQLite file of a local MLflow, made in one piece."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from mlflow import MlflowClient

from rdx.tracking.places import SQLITE, database_file


def client(uri: str) -> MlflowClient:
    """The client of a tracking URI, whose SQLite file is made if it is not there.

    MLflow makes its tables step by step and without a lock: of several processes that find no file
    all but one fail, and so does everyone after a process that was killed meanwhile. So each makes
    a file of its own, and the first one that is complete gets the name.
    """
    path = database_file(uri)
    if path is not None and not path.exists():
        own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        own.parent.mkdir(parents=True, exist_ok=True)
        try:
            MlflowClient(f"{SQLITE}{own}").search_experiments(max_results=1)
            with suppress(FileExistsError):  # another process was first
                os.link(own, path)
        finally:
            own.unlink(missing_ok=True)
    return MlflowClient(uri)
