"""Find, check and read the files of trials: ``trial.json`` and ``per_query.parquet``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rdx import facts, rankings
from rdx.config import Cell
from rdx.facts import TrialFacts
from rdx.faults import Mendable
from rdx.store import Unreadable, published

FACTS = "trial.json"
SCORES = "per_query.parquet"
# What run files are called.
RUN = re.compile(r"\.(run|trec|res)(\.gz|\.zst)?$")
PER_QUERY = ("collection", "system", "query_id", "measure", "value")


class NoTrialsError(FileNotFoundError):
    """There is no record at the tracking URI, or nothing of rdx in it."""


class TrialError(Mendable, RuntimeError):
    """A finished trial does not hold what a finished trial must hold."""


@dataclass(frozen=True)
class Trial:
    """A finished trial: its facts, and per-query scores with the columns `PER_QUERY`."""

    facts: TrialFacts
    scores: pd.DataFrame

    @property
    def imported(self) -> str:
        """Name that the run was imported under; "" of a cell."""
        return self.facts.imported.name if self.facts.imported else ""


def in_stores(cells: Iterable[Cell]) -> Iterator[Trial]:
    """Trials of the cells that the cells' own stores hold."""
    for cell in cells:
        folder = Path(cell.cfg.get("store", "")) / "evaluate" / cell.signature
        if "store" in cell.cfg and (folder / FACTS).is_file():
            yield read(folder, f"trial {folder}", cell.signature)


def in_folder(folder: Path, signatures: set[str], names: set[str]) -> Iterator[Trial]:
    """Trials below a folder that have one of the signatures or imported names, sorted by path.

    Those of published results (`python -m rdx export results`) come first.
    """
    if not folder.is_dir():
        raise NoTrialsError(f"no folder {folder}")
    paths = sorted(folder.rglob(FACTS))
    together = results_in(folder)
    if not (paths or together):
        raise NoTrialsError(_no_trial(folder))
    for results in together:
        for trial in results.record.trials:
            own = trial.facts
            if own.signature in signatures or (own.imported and own.imported.name in names):
                yield Trial(own, results.of(own.signature)[list(PER_QUERY)])
    for path in paths:
        label = f"trial {path.parent}"
        facts = read_facts(path, label)
        if facts.signature in signatures or (facts.imported and facts.imported.name in names):
            yield Trial(facts, read_scores(path.with_name(SCORES), label))


def results_in(folder: Path) -> list[published.Results]:
    """The published results anywhere below a folder, sorted by path.

    Raises
    ------
    TrialError
        If one is damaged, or another version of rdx wrote it.
    """
    try:
        return [published.read(p.parent) for p in sorted(folder.rglob(published.RESULTS))]
    except (OSError, published.DamagedResults) as error:
        raise TrialError(str(error)) from error


def read(folder: Path, label: str, signature: str) -> Trial:
    """Read a trial; errors begin with its label. Its facts must be of the signature."""
    facts = read_facts(folder / FACTS, label)
    if facts.signature != signature:
        raise TrialError(f"{label} is tagged {signature}, but {FACTS} is of {facts.signature}")
    return Trial(facts, read_scores(folder / SCORES, label))


def read_facts(path: Path, label: str) -> TrialFacts:
    """Read a trial.json."""
    if not path.exists():
        raise TrialError(f"{label} has no {path.name} at {path}")
    try:
        return facts.parse(TrialFacts, path.read_bytes())
    except (OSError, facts.FactsError) as error:
        raise TrialError(f"{label}: {Unreadable(path, error)}") from error


def read_scores(path: Path, label: str) -> pd.DataFrame:
    """Read a per_query.parquet: columns `PER_QUERY`, no value twice, all finite."""
    if not path.exists():
        raise TrialError(f"{label} has no {path.name} at {path}")
    try:
        table = rankings.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TrialError(f"{label}: {error}") from error
    absent = [column for column in PER_QUERY if column not in table.columns]
    if absent:
        raise TrialError(f"{label}: {path} lacks the columns {', '.join(absent)}")
    table = table[list(PER_QUERY)]
    key = ["collection", "system", "query_id", "measure"]
    repeated = table.duplicated(key)
    if repeated.any():
        first = table.loc[repeated, key].iloc[0].tolist()
        raise TrialError(f"{label}: {path} has two values for {first}")
    broken = ~np.isfinite(table["value"].to_numpy(dtype=float))
    if broken.any():
        first = table.loc[broken, key].iloc[0].tolist()
        raise TrialError(f"{label}: {path} has no finite value for {first}")
    return table


def _no_trial(folder: Path) -> str:
    """Say that a folder has no trials; of TREC runs, what makes trials of them."""
    run = next((path for path in sorted(folder.rglob("*")) if RUN.search(path.name)), None)
    if run is None:
        return f"no {FACTS} below {folder}"
    return (
        f"no {FACTS} below {folder}; {run} is a run: first measure it and its like with "
        "`python -m rdx import` (docs/evaluation.md), which records judgements, first stage and "
        "the rule for ties, then leave --import away"
    )
