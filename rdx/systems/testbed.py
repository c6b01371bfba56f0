"""Load the test collections and candidates that a command line chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from pydantic import JsonValue

from rdx import accounting, config, folders, pipeline
from rdx import evaluation as ev
from rdx.collection import Collection
from rdx.facts import Setting
from rdx.job import Job
from rdx.samplers import Recorded
from rdx.stages import testing


@dataclass(frozen=True)
class Tests:
    """A test collection, its first stage, and the measures of first stage and oracle."""

    __test__ = False  # not a test case of pytest

    collection: Collection
    first_stage: pd.DataFrame
    baselines: ev.Baselines


@dataclass(frozen=True, eq=False)
class Testbed:
    """What runs are measured on and recorded in.

    Attributes
    ----------
    job
        The configuration, of whose test collections there are the named ones only, so that the
        others may lack files; and where imports are recorded.
    local
        Whether the collections are copies (`copied`).
    """

    __test__ = False  # not a test case of pytest

    job: Job
    local: bool = False
    _read: dict[str, Tests] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the collections."""
        return list(self.evaluation.collections)

    @property
    def evaluation(self) -> ev.Evaluation:
        """What is measured, and where."""
        return self.job.parts.evaluation

    def queries(self, name: str) -> Collection:
        """A test collection, cut down to the queries that are tested."""
        return pipeline.test_queries(self.job, name)

    def tests(self, name: str) -> Tests:
        """A test collection and its baselines, read and measured once for however many runs."""
        if name not in self._read:
            test = self.queries(name)
            first = self.candidates(name, test)
            accounting.warn(test)
            rule = self.evaluation.self_retrieval_of(name)
            accounting.warn_of_own(name, first, test, rule)
            baselines = ev.baselines(name, test, first, self.evaluation)
            self._read[name] = Tests(test, first, baselines)
        return self._read[name]

    def candidates(self, name: str, test: Collection) -> pd.DataFrame:
        """The first stage of a test collection; texts are opened only where they are needed."""
        sampler = self.evaluation.collections[name].first_stage
        if isinstance(sampler, Recorded) and sampler.missing == "error":
            test = replace(test, passages=_Everything())
        sampler = self.job.parts.in_test(name)
        ranking: pd.DataFrame = sampler.candidates(test, self.evaluation.depth(name))
        return ranking

    def setting(self, name: str, test: Collection) -> Setting:
        """What must be equal before two systems may stand in one table."""
        setting = testing.setting(self.job.parts, name, test)
        return replace(setting, passages_of_copy=len(test.passages)) if self.local else setting


def compose(
    words: Sequence[str],
    first_stage: str | None = None,
    measures: Sequence[str] = (),
    local: Path | None = None,
) -> Testbed:
    """What a command line chooses.

    Parameters
    ----------
    words
        Hydra overrides; options of `evaluation`, which stand for ``evaluation=OPTION``; and names
        of collections of the evaluation, by default all.
    first_stage
        A run that replaces the first stages of the collections.
    measures
        Replace the evaluation's.
    local
        A folder with copies of the collections' data, taken in place of the originals (`copied`).

    Raises
    ------
    ConfigError
        On an unknown word, key or value.
    FileNotFoundError
        If the local folder lacks a file.
    """
    options = list(folders.options("evaluation"))
    overrides = [f"evaluation={w}" if w in options else w for w in words]
    names = [w for w in overrides if "=" not in w and not w.startswith("~")]
    cfg = config.composed([w for w in overrides if w not in names])
    known = [str(name) for name in cfg.evaluation.collections]
    for name in names:
        if name not in known:
            raise config.ConfigError(
                f"--collection {name}: neither an option of evaluation ({', '.join(options)}) nor "
                f"one of its collections ({', '.join(known)})"
            )
    names = list(dict.fromkeys(names)) or known
    cfg.evaluation.collections = {name: cfg.evaluation.collections[name] for name in names}
    means = cfg.evaluation.get("means") or {}
    cfg.evaluation.means = {name: of for name, of in means.items() if set(of) <= set(names)}
    if measures:
        cfg.evaluation.measures = list(measures)
    for name in names:
        node = cfg.evaluation.collections[name]
        if first_stage is not None:
            run = {"_target_": "rdx.samplers.Recorded", "run": first_stage, "order": "score"}
            node.first_stage = {**run, "missing": "error"}
        if local is not None:
            copies = local / name if (local / name).is_dir() else local
            node.data = copied(copies, node.data.get("id") or name)
    plain = config.resolved(cfg)
    config.settle(plain)
    job = Job.of(config.Cell((), "", plain))
    config.check_here(job.parts.evaluation.collections, "evaluation.collections")
    try:
        job.parts.evaluation.check()
    except ValueError as error:
        raise config.ConfigError(f"evaluation.{error}") from error
    return Testbed(job, local is not None)


def copied(folder: Path, name: str) -> dict[str, JsonValue]:
    """The data of a collection as files of a folder: one corpus.*, one queries.*, one qrels.*.

    It keeps the name of the original. Its digest is that of the files, so that what was measured
    on a copy never stands in a table beside what was measured on the original.
    """
    node: dict[str, JsonValue] = {"_target_": "rdx.data.Files", "name": str(name)}
    for key in ("corpus", "queries", "qrels"):
        paths = sorted(folder.glob(f"{key}.*"))
        if len(paths) != 1:
            present = ", ".join(path.name for path in paths) or "none"
            raise FileNotFoundError(f"{folder}: needs one file {key}.*, there is {present}")
        node[key] = str(paths[0])
    return node


class _Everything(Mapping[str, str]):
    """Passages that all exist and have no text: rankings are measured without it."""

    def __contains__(self, doc_id: object) -> bool:
        return True

    def __getitem__(self, doc_id: str) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
