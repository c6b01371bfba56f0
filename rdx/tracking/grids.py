"""What is recorded of a finished grid: its table, names of its cells, and the best of them."""

from __future__ import annotations

import json
from typing import Any

from mlflow import MlflowClient

from rdx.tracking import notes
from rdx.tracking.models import MODEL, register
from rdx.tracking.outbox import Event
from rdx.tracking.runs import search, upload


def log_grid(client: MlflowClient, experiment_id: str, parent_id: str, event: Event) -> None:
    """Write cells.json and the description of a grid; name its cells; mark the best.

    The best is the sound cell with the highest student's first measure, mean over collections; the
    first of equal ones. If its model was logged, it is registered under the grid's name, with the
    alias "best".
    """
    trials = search(client, experiment_id, "tags.`rdx.kind` = 'trial'")
    runs = {run.data.tags["rdx.signature"]: run for run in trials}
    cells: list[dict[str, Any]] = event["cells"]
    rows = [
        {**cell, "run_id": runs[s].info.run_id if (s := cell["signature"]) in runs else None}
        for cell in cells
    ]
    upload(client, parent_id, "cells.json", json.dumps(rows, indent=2))
    names = notes.short_names([row.get("overrides", row["signature"]) for row in rows])
    shown = []
    for row, name in zip(rows, names, strict=True):
        run = runs.get(row["signature"])
        changed = run and name and run.info.run_name != notes.cut(name)
        if run and changed and run.data.tags.get("mlflow.parentRunId") == parent_id:
            client.set_tag(run.info.run_id, "mlflow.runName", notes.cut(name))
        shown.append({
            "name": name or row["signature"],
            "address": notes.address(experiment_id, run.info.run_id) if run else "",
            "state": row.get("state", ""),
            "health": row.get("health"),
            "score": notes.score(row.get("means") or {}),
            "run_id": row["run_id"],
        })  # fmt: skip
    shown.sort(key=lambda one: -1.0 if one["score"] is None else one["score"], reverse=True)
    claim = client.get_run(parent_id).data.tags.get("rdx.claim", "")
    text = notes.of_grid(event["grid"], claim, shown)
    place = notes.address(experiment_id, parent_id)
    client.set_tag(parent_id, notes.NOTE, text.replace(notes.RUN, place))
    sound = [one for one in shown if one["score"] is not None and one["health"] == "ok"]
    if sound and sound[0]["run_id"]:
        _mark(client, experiment_id, parent_id, event["grid"], sound[0]["run_id"])


def _mark(client: MlflowClient, experiment: str, parent_id: str, grid: str, best: str) -> None:
    """Tag the best cell of a grid, and no other of its children; register its model."""
    marked = f"tags.`rdx.best` = 'true' and tags.`mlflow.parentRunId` = '{parent_id}'"
    for run in search(client, experiment, marked):
        if run.info.run_id != best:
            client.delete_tag(run.info.run_id, "rdx.best")
    client.set_tag(best, "rdx.best", "true")
    client.set_tag(parent_id, "rdx.best_run", best)
    if any(one.path == MODEL for one in client.list_artifacts(best)):
        register(client, best, grid)
