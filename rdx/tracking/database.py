"""The SQLite file of a local MLflow, made in one piece."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient

from rdx.tracking.lookup import SQLITE


def client(uri: str) -> MlflowClient:
    """The client of a tracking URI, whose SQLite file is made if it is not there.

    MLflow makes its tables step by step and without a lock: of several processes that find no file
    all but one fail, and so does everyone after a process that was killed meanwhile. So each makes
    a file of its own, and the first one that is complete gets the name.
    """
    path = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if uri.startswith(SQLITE) and not path.exists():
        own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        own.parent.mkdir(parents=True, exist_ok=True)
        try:
            MlflowClient(f"{SQLITE}{own}").search_experiments(max_results=1)
            with suppress(FileExistsError):  # another process was first
                os.link(own, path)
        finally:
            own.unlink(missing_ok=True)
    return MlflowClient(uri)
