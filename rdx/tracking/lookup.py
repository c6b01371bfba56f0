"""Which trials are finished, read from a local MLflow database without MLflow.

MLflow's own search takes a second to import and loads every parameter and metric of every run; a
plan of 1,000 cells needs one tag of each.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

SQLITE = "sqlite:///"
FINISHED = """
    SELECT DISTINCT signature.value
    FROM runs
    JOIN experiments ON experiments.experiment_id = runs.experiment_id
    JOIN tags AS signature ON signature.run_uuid = runs.run_uuid
    JOIN tags AS kind ON kind.run_uuid = runs.run_uuid
    WHERE experiments.name = ? AND runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active'
      AND signature.key = 'rdx.signature' AND kind.key = 'rdx.kind' AND kind.value = 'trial'
"""


def recorded_in_sqlite(uri: str, experiment: str) -> set[str] | None:
    """Signatures of the FINISHED trials of an experiment.

    Returns
    -------
    set of str or None
        Empty if the file is not there, which is not created; None if the address is no SQLite
        file, or its tables are not those of the MLflow that this was written for (3.x): ask MLflow.
    """
    if not uri.startswith(SQLITE):
        return None
    path = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if not path.is_file():
        return set()
    try:
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=10)) as database:
            return {str(row[0]) for row in database.execute(FINISHED, (experiment,))}
    except sqlite3.Error:
        return None
