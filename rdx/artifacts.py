"""Stored results as their readers see them: a folder with typed members.

`rdx.store` has compared the files of an artifact with its manifest before anybody gets it. What the
files are called is known here alone; a folder of another stage is read through its artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import JsonValue

from rdx import ir_metadata, rankings, store
from rdx.declared import content
from rdx.facts import (
    Audit,
    CheckpointFacts,
    Fingerprint,
    QuerySample,
    Selection,
    TrialFacts,
)
from rdx.parts import WINDOWS

if TYPE_CHECKING:
    import pandas as pd

    from rdx.tokens import PairForm, Tokens

TRIAL, PER_QUERY, CONFIG, RUNS = "trial.json", "per_query.parquet", "config.yaml", "runs"
RUN = ".run.gz"
DESCRIPTION = "rdx.yaml"  # of an exported student


@dataclass(frozen=True)
class Artifact:
    """A stored result; a collection or an index is read by the class that laid it out."""

    folder: Path


class Configured(Artifact):
    """A result beside which lies the configuration of the cell that made it."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises
        ------
        Unreadable
            If it is not there, or no YAML mapping.
        """
        return _mapping(self.folder / CONFIG)

    @classmethod
    def write_config(cls, folder: Path, config: dict[str, Any]) -> None:
        """Write a resolved configuration."""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (folder / CONFIG).write_text(text, encoding="utf-8")


class Ranking(Artifact):
    """A ranking of the queries of a test set."""

    FILE = "ranking.parquet"

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """The ranking."""
        return rankings.read_parquet(self.folder / self.FILE)

    @classmethod
    def write(cls, folder: Path, ranking: pd.DataFrame) -> None:
        """Write the files of this artifact."""
        rankings.write_parquet(ranking, folder / cls.FILE)


class Candidates(Ranking):
    """Candidates of the training queries, and which queries were sampled."""

    SAMPLE = "queries.json"

    @cached_property
    def sample(self) -> QuerySample:
        """The sampled queries."""
        return store.read(QuerySample, self.folder / self.SAMPLE)

    @classmethod
    def write_all(
        cls, folder: Path, ranking: pd.DataFrame, sample: QuerySample, first_stage: Fingerprint
    ) -> None:
        """Write the files of this artifact."""
        cls.write(folder, ranking)
        store.write(folder / cls.SAMPLE, sample)
        text = json.dumps(first_stage, indent=1) + "\n"
        (folder / "first_stage.json").write_text(text, "utf-8")


class TeacherRanking(Configured):
    """A teacher's ranking; of training candidates, with its audit and configuration.

    A teacher that asks in windows leaves their table beside it.
    """

    FILE, AUDIT = "teacher.parquet", "audit.json"

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """The teacher ranking."""
        return rankings.read_parquet(self.folder / self.FILE)

    @cached_property
    def windows(self) -> pd.DataFrame | None:
        """What was asked, one row per window; None of a teacher without windows."""
        path = self.folder / WINDOWS
        return rankings.read_parquet(path) if path.exists() else None

    @cached_property
    def audit(self) -> Audit:
        """What the labels are worth."""
        return store.read(Audit, self.folder / self.AUDIT)

    @classmethod
    def write(cls, folder: Path, ranking: pd.DataFrame) -> None:
        """Write the ranking."""
        rankings.write_parquet(ranking, folder / cls.FILE)

    @classmethod
    def write_audit(cls, folder: Path, audit: Audit) -> None:
        """Write the audit beside the ranking."""
        store.write(folder / cls.AUDIT, audit)


class Selected(Ranking):
    """The passages of training lists [..., teacher_rank, teacher_score], and what was dropped."""

    SELECTION = "selection.json"

    @cached_property
    def selection(self) -> Selection:
        """What became of the sampled queries."""
        return store.read(Selection, self.folder / self.SELECTION)

    @classmethod
    def write_all(cls, folder: Path, ranking: pd.DataFrame, selection: Selection) -> None:
        """Write the files of this artifact."""
        cls.write(folder, ranking)
        store.write(folder / cls.SELECTION, selection)


class Tokenised(Artifact):
    """The queries and passages of a collection as a student's tokenizer cuts them."""

    QUERIES, PASSAGES = "queries", "passages"

    def tokens(self, form: PairForm) -> Tokens:
        """The texts, memory-mapped, for a student whose pairs have that form."""
        from rdx.tokens import Table, Tokens

        queries, passages = self.folder / self.QUERIES, self.folder / self.PASSAGES
        return Tokens(Table.open(queries), Table.open(passages), form)


class Checkpoint(Artifact):
    """A student's weights and tokeniser as Hugging Face writes them, and how they came about."""

    FACTS, CURVE = "facts.json", "curve.json"

    @cached_property
    def facts(self) -> CheckpointFacts:
        """How the checkpoint came about."""
        return store.read(CheckpointFacts, self.folder / self.FACTS)

    @cached_property
    def curve(self) -> list[float]:
        """The loss of every step; empty without a training."""
        path = self.folder / self.CURVE
        return list(json.loads(path.read_text())) if path.exists() else []

    @classmethod
    def write_facts(cls, folder: Path, facts: CheckpointFacts) -> None:
        """Write the facts beside the weights."""
        store.write(folder / cls.FACTS, facts)


class Evaluated(Configured):
    """A finished cell: facts, per-query values, TREC runs, its configuration."""

    @cached_property
    def facts(self) -> TrialFacts:
        """The outcome."""
        return store.read(TrialFacts, self.folder / TRIAL)

    @cached_property
    def per_query(self) -> pd.DataFrame:
        """Values [collection, system, query_id, measure, value]."""
        return rankings.read_parquet(self.folder / PER_QUERY)

    @classmethod
    def write_runs(cls, folder: Path, runs: Mapping[str, pd.DataFrame]) -> None:
        """Write some of the runs, rankings by the name of their run."""
        (folder / RUNS).mkdir(exist_ok=True)
        for name, ranking in runs.items():
            rankings.write_trec(ranking, folder / RUNS / f"{name}{RUN}", name.rpartition(".")[2])

    @classmethod
    def write(
        cls,
        folder: Path,
        facts: TrialFacts,
        per_query: pd.DataFrame,
        config: dict[str, Any],
        overrides: Sequence[str] = (),
    ) -> None:
        """Write the files of this artifact, and describe each run that is there beside it.

        Parameters
        ----------
        config, overrides
            The resolved configuration, and the command line that gave it.
        """
        for run in (folder / RUNS).glob(f"*{RUN}"):
            name = run.name.removesuffix(RUN)
            ir_metadata.write(run, ir_metadata.of_trial(name, facts, config, overrides))
        rankings.write_parquet(per_query, folder / PER_QUERY)
        cls.write_config(folder, config)
        store.write(folder / TRIAL, facts)


def student_in(folder: Path) -> JsonValue:
    """What decided the student whose weights lie in a folder: a checkpoint, or an exported one.

    None of a model that is no student of rdx.

    Raises
    ------
    Unreadable
        If the file that tells cannot be read.
    """
    if (folder / DESCRIPTION).exists():
        return _mapping(folder / DESCRIPTION).get("student")
    try:
        return Checkpoint(folder).facts.student
    except FileNotFoundError:
        return None


def weights_in(folder: Path) -> JsonValue:
    """The checksums of what a student is loaded from: not of what tells how it came about."""
    told = (store.MANIFEST, Checkpoint.FACTS, Checkpoint.CURVE, DESCRIPTION, "README.md")
    return {name: digest for name, digest in content(folder).items() if name not in told}


def _mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises
    ------
    Unreadable
        If it is not there, or no mapping.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it was built
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise store.Unreadable(path, error) from error
    if not isinstance(values, dict):
        raise store.Unreadable(path, "no mapping")
    return values
