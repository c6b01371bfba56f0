"""What is measured: runs, and the collections and candidates that a command line chooses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from rdx import config, folders, materials, rankings
from rdx import evaluation as ev
from rdx.data import Collection
from rdx.samplers import Recorded
from rdx.store import Store


@dataclass(frozen=True)
class Run:
    """A TREC run.

    Parameters
    ----------
    path
        The file; may be .gz or .zst.
    order
        "score": by score, ties by doc id descending, as trec_eval; "rank": by the rank column, and
        scores are the negative ranks.
    """

    path: str
    order: str = "score"

    @property
    def name(self) -> str:
        """File name without the endings of runs."""
        name = Path(self.path).name
        for ending in (".gz", ".zst", ".run", ".trec", ".txt"):
            name = name.removesuffix(ending)
        return name

    @property
    def sha256(self) -> str:
        """Of the file."""
        with Path(self.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, test: Collection) -> pd.DataFrame:
        """The ranking of the queries of a collection; others are left out.

        Raises
        ------
        FileNotFoundError, FormatError
            If there is no such file, it is no run, or it ranks none of the queries.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file (in {Path.cwd()})")
        ranking = rankings.read_trec(self.path, order=self.order)  # type: ignore[arg-type]
        if self.order == "rank":  # then no rule for ties may look at the scores
            ranking = ranking.assign(score=-ranking["rank"].astype("float32"))
        kept = ranking[ranking.query_id.isin(test.queries)].reset_index(drop=True)
        if kept.empty:
            raise rankings.FormatError(
                f"{self.path}: none of its {ranking.query_id.nunique()} queries is among the "
                f"{len(test.queries)} judged queries of collection {test.name!r}"
            )
        return kept


def collections(
    words: Sequence[str],
    first_stage: str | None = None,
    measures: Sequence[str] = (),
    local: Path | None = None,
) -> tuple[SimpleNamespace, list[str]]:
    """The evaluation that a command line chooses, and the collections that it names.

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

    Returns
    -------
    cell, names
        `cell` has what `rdx.pipeline` needs for test collections: cfg, store, parts; of the
        evaluation's collections it holds the named ones only, so that the others may lack files.
        `local` says whether they are copies, `loaded` keeps what `tested` has read.

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
    if measures:
        cfg.evaluation.measures = list(measures)
    if first_stage is not None:
        run = {"_target_": "rdx.samplers.Recorded", "run": first_stage, "order": "score"}
        for name in names:
            cfg.evaluation.collections[name].first_stage = {**run, "missing": "error"}
    if local is not None:
        for name in names:
            data = cfg.evaluation.collections[name].data
            own = local / name if (local / name).is_dir() else local
            cfg.evaluation.collections[name].data = copied(own, data.get("id") or name)
    plain = config.resolved(cfg)
    config.settle(plain)
    parts = {group: config.build(plain[group], group) for group in ("evaluation", "tracking")}
    for one in parts["evaluation"].collections.values():
        if hasattr(one.data, "check"):
            one.data.check()
    cell = SimpleNamespace(cfg=plain, store=Store(Path(plain["store"])), parts=parts)
    cell.local, cell.loaded = local is not None, {}
    return cell, names


def copied(folder: Path, name: str) -> dict[str, Any]:
    """The data of a collection as files of a folder: one corpus.*, one queries.*, one qrels.*.

    It keeps the name of the original. Its digest is that of the files, so that what was measured
    on a copy never stands in a table beside what was measured on the original.
    """
    node: dict[str, Any] = {"_target_": "rdx.data.Files", "name": str(name)}
    for key in ("corpus", "queries", "qrels"):
        found = sorted(folder.glob(f"{key}.*"))
        if len(found) != 1:
            held = ", ".join(path.name for path in found) or "none"
            raise FileNotFoundError(f"{folder}: needs one file {key}.*, there is {held}")
        node[key] = str(found[0])
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


def tested(cell: Any, name: str) -> tuple[Collection, pd.DataFrame, ev.Beside]:
    """A test collection and its first stage, read and measured once for however many runs."""
    if name not in cell.loaded:
        test = materials.tested_queries(cell, name)
        first = candidates(cell, name, test)
        cell.loaded[name] = test, first, ev.beside(name, test, first, cell.parts["evaluation"])
    test, first, beside = cell.loaded[name]
    return test, first, beside


def candidates(cell: Any, name: str, test: Collection) -> pd.DataFrame:
    """The first stage of a test collection, without opening its texts where they are not needed."""
    stage, k = cell.parts["evaluation"].collections[name].first_stage, cell.parts["evaluation"].k
    if isinstance(stage, Recorded) and stage.missing == "error":
        test = replace(test, passages=_Everything())
    found: pd.DataFrame = stage.candidates(test, k)
    return found


def outside(ranking: pd.DataFrame, first: pd.DataFrame) -> pd.Series[bool]:
    """Whether each passage of a ranking is not among the candidates."""
    pairs = pd.MultiIndex.from_frame(ranking[["query_id", "doc_id"]])
    inside = pairs.isin(pd.MultiIndex.from_frame(first[["query_id", "doc_id"]]))
    return pd.Series(~inside, index=ranking.index)
