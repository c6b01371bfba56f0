"""Labels without training: ask a teacher, audit it, compare it with what others report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import evaluation as ev
from rdx import materials, pipeline, rankings


def label(cfg: dict[str, Any], levels: dict[str, str], again: bool = False) -> Path:
    """Only the labels of a cell: candidates and teacher ranking; nothing is trained.

    Parameters
    ----------
    cfg, levels
        As in `run`.
    again
        Make a finished teacher ranking anew. Answers in the ledger stay: only what was not answered
        is asked.

    Returns
    -------
    Path
        Folder of the teacher ranking, its audit and, where windows were asked, their table.
    """
    cell = materials.assemble(cfg)
    key = cell.keys["teach"]
    with cell.parts["tracking"].trial(
        store=cell.store.root,
        signature=key,
        levels=levels,
        config=cfg,
        grid="teach",
        seed=cfg["seed"],
    ) as trial:
        split = materials.load(cell, "data", "train")
        taught = pipeline.teach(cell, split, pipeline.candidates(cell, split), again)
        folder = Path(cfg["store"]) / "teach" / key
        found = json.loads((folder / pipeline.AUDIT).read_text())
        facts = {"audit": found, "lists": taught.query_id.nunique()}
        trial.log_result(folder, {**facts, "means": pipeline.numbers(found)})
    return folder


def audit_against(cfg: dict[str, Any], folder: Path, other: pd.DataFrame) -> dict[str, Any]:
    """The audit of a finished teacher ranking, with its agreement with another ranking."""
    cell = materials.assemble(cfg)
    split = materials.load(cell, "data", "train")
    taught = rankings.read_parquet(folder / "teacher.parquet")
    theirs = other.rename(columns={"rank": "teacher_rank"})
    return pipeline.label_audit(folder, taught, pipeline.candidates(cell, split), split, theirs)


def calibrate(cfg: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Let the teacher rank the first stages of the evaluation; nDCG@10 by test collection.

    Returns
    -------
    dict
        Per collection "teacher", its "half_width" (of the 95 % t interval over queries),
        "first_stage", "oracle", and the numbers of "queries" and of failed lists ("left_out").
    """
    cell = materials.assemble(cfg)
    found = {}
    for name in cell.parts["evaluation"].collections:
        test, first = materials.tested(cell, name)
        taught = pipeline.rank_test(cell, name, test, first)
        systems = {"teacher": ev.as_ranking(taught), "first_stage": first}
        systems["oracle"] = ev.oracle(first, test.qrels)
        table = ev.per_query(name, systems, test.qrels, ["nDCG@10"])
        values = {system: rows.value for system, rows in table.groupby("system")}
        failed = ~taught.state.isin(rankings.USABLE)
        found[name] = {system: float(value.mean()) for system, value in values.items()} | {
            "half_width": ev.half_width(values["teacher"]),
            "queries": len(values["teacher"]),
            "left_out": taught[failed].query_id.nunique(),
        }
    return found
