"""Listwise teachers: an LLM orders the passages of a sliding window (RankGPT, RankZephyr)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

import pandas as pd
from annotated_types import MinLen
from pydantic import JsonValue

from rdx import folders
from rdx.collection import Collection
from rdx.declared import (
    SCHEDULES,
    WRITTEN,
    DecidedBy,
    Known,
    Positive,
    Read,
    Seed,
    at_least,
    content,
    one_of,
    settings,
    version,
)
from rdx.parts import WINDOWS
from rdx.teachers import windows
from rdx.teachers.budget import Caps, Prices
from rdx.teachers.finished import Finished
from rdx.teachers.messages import (
    Service,
)
from rdx.teachers.parsing import RULES, VERSION
from rdx.teachers.prompts import RANK_LLM, load
from rdx.teachers.session import FEWEST_WORDS, Lists, Session
from rdx.teachers.window_table import WindowTable

ORDERS = ("first_stage", "shuffled")
BACKENDS = ("rdx.teachers.Endpoint", "rdx.teachers.Local", "rdx.teachers.VLLM")


def _template(prompt: str) -> JsonValue:
    """Its content: of a file, of one of rdx, or of the version of rank-llm that has it."""
    if prompt.startswith(RANK_LLM):
        return {"name": prompt, "version": version("rank-llm")}
    path = folders.options(folders.PROMPTS).get(prompt, Path(prompt))
    return content(path) if path.is_file() else prompt


def _rule(name: str) -> JsonValue:
    """A rule that reads answers, and its version: the same answers may be other labels by it."""
    return {"rule": name, "version": VERSION}


@settings(frozen=True)
class Listwise:
    """An LLM orders the passages of a window that slides from the end of the list to its start.

    After RankGPT (Sun et al., EMNLP 2023). Windows of one list are asked one after the other,
    lists at the same time. Every answer is in the ledger before it is used; what is there is not
    asked again. An answer that is no permutation is asked for again, at most `tries` times in all
    (and not when the same text comes back); then the list gets that state, is left in the order of
    the first stage, and is not asked further. Failed lists are never trained on.

    Parameters
    ----------
    backend
        `Endpoint`, `Local` or `VLLM`: who answers.
    prompt
        Name of a prompt of rdx (``single_turn``, ``multi_turn``, ``first_token``), the path of a
        YAML file, or ``rank_llm:NAME`` for a template of an installed rank-llm.
    window
        Passages that the LLM orders at a time; a list no longer than it is one window.
    stride
        Places that the window moves at a time; at most the window.
    passes
        How often it slides over the list.
    order
        What the LLM is shown first: "first_stage", or "shuffled" by `seed`.
    shuffles
        Number of input orders, the first as `order` says, the others shuffled; their rankings are
        merged (permutation self-consistency, Tang et al., NAACL 2024).
    merge
        How the rankings of several input orders become one. "borda": by mean rank. "kemeny": the
        order with the fewest pairs against them that a local search finds.
    seed
        Of the shuffles.
    parse
        "strict": what is no clean permutation is repaired or refused, see docs/teachers.md;
        "lenient": rank_llm's rule.
    tries
        How often a window is asked at most.
    passage_words
        Words kept of a passage; fewer where a window does not fit the model's context: by quarters
        if the service says so, by halves if it rejects the request and may mean that, down to 16.
    concurrency
        Lists in flight. Not part of the identity, as are the following.
    failures
        Windows in a row that may stay without an answer, each a list that is lost; with the last
        of them the teacher stops. None: 20, or twice the lists in flight if that is more.
    ledger
        Folder of all answers, shared by all teachers.
    caps
        What may be spent before the teacher stops.
    prices
        What tokens cost.
    published
        nDCG@10 of this teacher that others report, by test collection, for ``teach --calibrate``.
    """

    backend: Annotated[Service, Known(BACKENDS)]
    prompt: Annotated[str, MinLen(1), Read((".yaml", ".yml")), DecidedBy(_template)]
    window: Annotated[int, at_least(2)] = 20
    stride: Positive = 10
    passes: Positive = 1
    order: Annotated[str, one_of(*ORDERS)] = "first_stage"
    shuffles: Positive = 1
    merge: Annotated[str, one_of(*windows.MERGES)] = "borda"
    seed: Seed = 0
    parse: Annotated[str, one_of(*RULES), DecidedBy(_rule)] = "strict"
    tries: Positive = 3
    passage_words: Annotated[int, at_least(FEWEST_WORDS)] = 300
    concurrency: Annotated[Positive, SCHEDULES] = 8
    failures: Annotated[Positive | None, SCHEDULES] = None
    ledger: Annotated[str, WRITTEN] = "store/ledger"
    caps: Annotated[Caps, SCHEDULES] = field(default_factory=Caps)
    prices: Annotated[Prices, SCHEDULES] = field(default_factory=Prices)
    published: Annotated[Mapping[str, float], SCHEDULES] = field(default_factory=dict)

    ranks_unseen = True

    def __post_init__(self) -> None:
        """Check values together; no request is made."""
        windows.check(self.window, self.stride, self.passes)

    def check(self) -> None:
        """Read the prompt.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is none, or it names passages by letters and a window has more.
        """
        if load(self.prompt).identifiers == "letters" and self.window > len(ascii_uppercase):
            raise ValueError(
                f"window={self.window}: teacher.prompt={self.prompt} names passages by "
                f"letters, so at most {len(ascii_uppercase)}"
            )

    @property
    def service(self) -> str:
        """Model and address of a backend whose answers may cost money; "" of any other."""
        if not getattr(self.backend, "paid", False):
            return ""
        model = getattr(self.backend, "model", type(self.backend).__name__)
        return f"{model} at {getattr(self.backend, 'base_url', None) or 'the default address'}"

    def requests(self, length: int) -> tuple[int, int]:
        """Requests, and passages that they show, of a list of so many passages."""
        spans = windows.positions(length, self.window, self.stride)
        times = self.passes * self.shuffles
        return times * len(spans), times * sum(end - start for start, end in spans)

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """In the currency of `prices`; None if these are not given."""
        known = self.prices.input or self.prices.output
        return self.prices.cost(input_tokens, output_tokens) if known else None

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Ask for every list; write what was asked to windows.parquet in `work`.

        Raises
        ------
        Stopped
            If a cap is reached, the LLM does not answer any more, or has answered nothing at all.
            What was answered is kept.
        Fatal
            If the LLM refuses to answer at all (key, model, address).
        """
        lists = Lists(candidates)
        owner = work.name.partition(".")[0]
        with Finished(work) as finished, WindowTable(work / WINDOWS) as table:
            session = Session(self, collection, owner, lists, table, finished)
            try:
                asyncio.run(session.run())
            finally:
                session.ledger.close()
            return session.ranking()
