"""Listwise teachers: an LLM orders the passages of a sliding window (RankGPT, RankZephyr)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import pandas as pd
from annotated_types import MinLen
from pydantic import JsonValue

from rdx import folders, rankings
from rdx.bars import bar, tell
from rdx.declared import (
    SCHEDULES,
    WRITTEN,
    DecidedBy,
    Known,
    Positive,
    Read,
    at_least,
    content,
    one_of,
    settings,
    version,
)
from rdx.rankings import USABLE
from rdx.teachers import windows
from rdx.teachers.budget import Caps, Meter, Prices, Stopped
from rdx.teachers.ledger import Ledger, key
from rdx.teachers.messages import Answer, Backend, Failed, Fatal, Service, TooLong
from rdx.teachers.parsing import RULES, parse
from rdx.teachers.prompts import THEIRS, Prompt, load, shorten
from rdx.text import counted

log = logging.getLogger(__name__)

ORDERS = ("first_stage", "shuffled")
FEWEST_WORDS = 16  # of a passage that is shortened because a window does not fit the context
DEAD = 20  # requests in a row that were not answered: nothing answers any more
WINDOWS = "windows.parquet"

BACKENDS = ("rdx.teachers.Endpoint", "rdx.teachers.Local")


def _template(prompt: str) -> JsonValue:
    """Its content: of a file, of one of rdx, or of the version of rank-llm that has it."""
    if prompt.startswith(THEIRS):
        return {"name": prompt, "version": version("rank-llm")}
    path = folders.options(folders.PROMPTS).get(prompt, Path(prompt))
    return content(path) if path.is_file() else prompt


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
        `Endpoint` or `Local`: who answers.
    prompt
        Name of a prompt of rdx (``single_turn``, ``multi_turn``, ``first_token``), the path of a
        YAML file, or ``rank_llm:NAME`` for a template of an installed rank-llm.
    window, stride, passes
        ``0 < stride <= window``; a list no longer than the window is one window.
    order
        What the LLM is shown first: "first_stage", or "shuffled" by `seed`.
    shuffles
        Number of input orders, the first as `order` says, the others shuffled; their rankings are
        merged (permutation self-consistency, Tang et al., NAACL 2024).
    merge
        "borda" or "kemeny".
    seed
        Of the shuffles.
    parse
        "strict": what is no clean permutation is repaired or refused, see docs/teachers.md;
        "lenient": rank_llm's rule.
    tries
        How often a window is asked at most.
    passage_words
        Words kept of a passage; fewer where a window does not fit the model's context.
    concurrency
        Lists in flight. Not part of the identity, as are the following.
    ledger
        Folder of all answers, shared by all teachers.
    caps, prices
        Limits of `Caps`, prices of `Prices`.
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
    seed: int = 0
    parse: Annotated[str, one_of(*RULES)] = "strict"
    tries: Positive = 3
    passage_words: Annotated[int, at_least(FEWEST_WORDS)] = 300
    concurrency: Annotated[Positive, SCHEDULES] = 8
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

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Ask for every list; write what was asked to windows.parquet in `work`.

        Raises
        ------
        Stopped
            If a cap is reached, or the LLM does not answer any more. What was answered is kept.
        Fatal
            If the LLM refuses to answer at all (key, model, address).
        """
        lists = {
            str(q): [str(d) for d in rows.sort_values("rank").doc_id]
            for q, rows in candidates.groupby("query_id", sort=False)
        }
        session = _Session(self, collection, work.name.partition(".")[0])
        try:
            asyncio.run(session.run(lists))
        finally:
            session.ledger.close()
        rankings.write_parquet(session.table(lists), work / WINDOWS)
        return _table(lists, session.results, self.merge)


@dataclass
class _Result:
    """What became of one input order of a list."""

    order: list[str]
    state: str = "ok"


class _Session:
    """One go at all lists of a teacher ranking."""

    def __init__(self, teacher: Listwise, collection: Any, owner: str) -> None:
        self.teacher, self.collection, self.owner = teacher, collection, owner
        self.prompt: Prompt = load(teacher.prompt)
        self.backend: Backend = teacher.backend.backend()
        self.ledger = Ledger(Path(teacher.ledger))
        self.meter = Meter(teacher.caps, teacher.prices)
        self.results: dict[tuple[str, int], _Result] = {}
        self.rows: list[dict[str, Any]] = []
        self.halted: Exception | None = None
        self.unanswered = 0  # requests in a row
        self.fresh = self.bad = 0  # answers of this session, and how many of them are unusable
        self._facts = {"prompt": self.prompt.identity(), **self.backend.identity()}

    async def run(self, lists: Mapping[str, list[str]]) -> None:
        """Let `concurrency` workers take one list after the other."""
        for row in self.ledger.rows():
            if row.get("owner") == self.owner and "answer" in row:
                self.meter.add(row)
        jobs = [(q, n) for q in lists for n in range(self.teacher.shuffles)]
        self._announce(lists)
        waiting = iter(jobs)
        with bar(total=len(jobs), desc="teaching", unit="list", smoothing=0.1) as shown:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.teacher.concurrency, len(jobs))):
                        group.create_task(self._work(waiting, lists, shown))
            finally:
                await self.backend.close()
        if self.halted is not None:
            raise self.halted

    async def _work(
        self, waiting: Iterator[tuple[str, int]], lists: Mapping[str, list[str]], shown: Any
    ) -> None:
        for query_id, number in waiting:
            try:
                self.results[query_id, number] = await self._list(query_id, number, lists[query_id])
            except (Stopped, Fatal) as error:
                # The others end after the answer that they wait for: it is paid for.
                self.halted = self.halted or error
            if self.halted is not None:
                return
            shown.update()
            shown.set_postfix_str(self._progress(shown), refresh=False)

    async def _list(self, query_id: str, number: int, doc_ids: list[str]) -> _Result:
        """All passes over one list, from one input order."""
        teacher = self.teacher
        first = number + (teacher.order == "shuffled")
        drawn = windows.shuffled(len(doc_ids), teacher.seed, query_id, first)
        order, states = [doc_ids[i] for i in drawn], set()
        for turn in range(teacher.passes):
            for start, end in windows.positions(len(order), teacher.window, teacher.stride):
                shown = order[start:end]
                permutation, facts = await self._window(query_id, shown)
                self.rows.append(
                    {"query_id": query_id, "shuffle": number, "pass": turn, "start": start}
                    | {"end": end, "shown": shown, **facts}
                    | {"given": [shown[i] for i in permutation or ()]}
                )
                if permutation is None:
                    return _Result(doc_ids, facts["state"])
                order = windows.applied(order, start, permutation)
                states.add(facts["state"])
        return _Result(order, "repaired" if "repaired" in states else "ok")

    async def _window(
        self, query_id: str, shown: list[str]
    ) -> tuple[tuple[int, ...] | None, dict[str, Any]]:
        """The permutation of a window, None if it has none after all tries, and its facts."""
        words = self.teacher.passage_words
        attempt, before = 0, None
        while True:
            messages = self._messages(query_id, shown, words)
            row = await self._answer(query_id, messages, len(shown), attempt)
            if row["state"] == "too_long":
                if words <= FEWEST_WORDS:
                    row = {**row, "state": "failed"}
                else:
                    words = max(FEWEST_WORDS, words * 3 // 4)
                    continue
            attempt += 1
            facts = {"state": row["state"], "tries": attempt, "words": words, "key": row["key"]}
            if row["state"] in USABLE:
                return self._parsed(row, len(shown)).order, facts
            if row["state"] == "failed" or attempt == self.teacher.tries or row["answer"] == before:
                return None, facts
            before = row["answer"]

    async def _answer(
        self, query_id: str, messages: list[dict[str, str]], size: int, attempt: int
    ) -> dict[str, Any]:
        """The ledger's row of a request; asked for if it is not there, or was not answered."""
        name = key(self._facts, messages)
        known = self.ledger.find(name, attempt)
        if known is not None and known["state"] != "failed":
            if known["state"] == "too_long":
                return known
            # The answer is what was stored; the rule that reads it may have changed.
            return {**known, "state": self._parsed(known, size).state}
        if self.halted is not None:
            raise Stopped("another list stopped the session")
        characters = sum(len(one["content"]) for one in messages)
        ticket = self.meter.reserve(characters, size)
        row: dict[str, Any] = {"key": name, "attempt": attempt, "owner": self.owner}
        row |= {"query_id": query_id, "size": size, **self._facts}
        counted = None
        try:
            answer = await self.backend.ask(messages, size)
            counted = row = {**row, **_facts(answer)}
            row["cost"] = self.meter.prices.cost(answer.input_tokens, answer.output_tokens)
            row["state"] = self._parsed(row, size).state
            self.unanswered = 0
        except TooLong as error:
            row |= {"state": "too_long", "error": str(error)}
            log.warning("query %s: a window of %d passages is too long: %s", query_id, size, error)
        except Failed as error:
            # Kept as a trace; in the ledger an answer to the same request takes precedence.
            row |= {"state": "failed", "error": str(error)}
            self.unanswered += 1
        finally:
            self.meter.settle(ticket, characters, counted)
        self.ledger.add(row)
        if self.unanswered >= max(DEAD, 2 * self.teacher.concurrency):
            raise Stopped(
                f"{self.unanswered} requests in a row were not answered (the last: "
                f"{row['error']}). All answers are kept; run the same command to go on"
            )
        self.fresh += 1
        self.bad += row["state"] not in USABLE
        return row

    def _messages(self, query_id: str, doc_ids: Sequence[str], words: int) -> list[dict[str, str]]:
        texts = [shorten(self.collection.passages[doc_id], words) for doc_id in doc_ids]
        return self.prompt.messages(self.collection.queries[query_id], texts)

    def _parsed(self, row: Mapping[str, Any], size: int) -> Any:
        return parse(
            self.prompt.canonical(row["answer"]),
            size,
            self.teacher.parse,
            truncated=row["finish"] == "length",
            identifiers=self.prompt.identifiers,
        )

    def _announce(self, lists: Mapping[str, list[str]]) -> None:
        """Say before the first request what all of them may cost."""
        teacher = self.teacher
        spans = [
            (q, d[start:end])
            for q, d in lists.items()
            for start, end in windows.positions(len(d), teacher.window, teacher.stride)
        ]
        if not spans:
            return
        some = spans[:: max(1, len(spans) // 50)]
        chars = [
            sum(len(m["content"]) for m in self._messages(q, shown, teacher.passage_words))
            for q, shown in some
        ]
        estimate = self.meter.estimate(
            len(spans) * teacher.passes * teacher.shuffles,
            sum(chars) / len(chars),
            sum(len(shown) for _, shown in some) / len(some),
        )
        spent = (
            f"; {counted(self.meter.answers, 'answer')} from before" if self.meter.answers else ""
        )
        tell(f"teaching {counted(len(lists), 'list')}: {estimate}{spent}")

    def _progress(self, shown: Any) -> str:
        elapsed = max(shown.format_dict["elapsed"], 1e-9)
        parts = [f"{self.fresh / elapsed:.1f} answers/s", f"{self.meter.tokens:,} tokens"]
        if self.fresh:
            parts.insert(1, f"{self.bad / self.fresh:.1%} unusable")
        if self.meter.prices != Prices():
            parts.append(f"cost {self.meter.cost:.2f}")
        return ", ".join(parts)

    def table(self, lists: Iterable[str]) -> pd.DataFrame:
        """All windows, one row each, in the order of (query, shuffle, pass, window)."""
        place = {query_id: i for i, query_id in enumerate(lists)}
        rows = sorted(
            self.rows, key=lambda r: (place[r["query_id"]], r["shuffle"], r["pass"], -r["start"])
        )
        columns = ["query_id", "shuffle", "pass", "start", "end", "state", "tries", "words", "key"]
        return pd.DataFrame(rows, columns=[*columns, "shown", "given"])


def _facts(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "finish": answer.finish,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "latency": round(answer.latency, 4),
        **({"served": answer.served} if answer.served else {}),
    }


def _table(
    lists: Mapping[str, list[str]], results: Mapping[tuple[str, int], _Result], merge: str
) -> pd.DataFrame:
    """The teacher ranking [query_id, doc_id, teacher_rank, score, state]."""
    numbers = sorted({number for _, number in results})
    rows = []
    for query_id, doc_ids in lists.items():
        found = [results[query_id, number] for number in numbers]
        state = _worst(one.state for one in found)
        usable = state in USABLE
        orders = [one.order for one in found]
        order = doc_ids if not usable else windows.merged(orders, merge)
        ranks = {doc_id: rank for rank, doc_id in enumerate(order, start=1)}
        rows += [(query_id, d, ranks[d], float("nan"), state) for d in doc_ids]
    columns = ["query_id", "doc_id", "teacher_rank", "score", "state"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"teacher_rank": "int32", "score": "float32"})


def _worst(states: Iterable[str]) -> str:
    """The state of a list of several input orders: an unusable one decides."""
    found = list(states)
    unusable = [state for state in found if state not in USABLE]
    return unusable[0] if unusable else "repaired" if "repaired" in found else "ok"
