"""One go at all lists of a listwise teacher ranking: windows asked, answered, read, merged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm import tqdm

from rdx.bars import bar, tell
from rdx.collection import Collection
from rdx.rankings import USABLE
from rdx.teachers import tokens, windows
from rdx.teachers.budget import Meter, Prices, Stopped
from rdx.teachers.ledger import FAILED, REFUSED, REJECTED, TOO_LONG, UNFIT, Entry, Ledger
from rdx.teachers.messages import (
    Answer,
    Backend,
    Fatal,
    Identity,
    Message,
)
from rdx.teachers.parsing import Parsed, read
from rdx.teachers.prompts import Prompt, load, shorten
from rdx.teachers.requests import Requests
from rdx.teachers.standing import FAILURES, Standing
from rdx.teachers.tables import COLUMNS
from rdx.teachers.thoughts import ends_in_thought, thinking_tokens, without_thoughts
from rdx.text import counted

if TYPE_CHECKING:
    from rdx.teachers.listwise import Listwise

FEWEST_WORDS = 16  # of a passage that is shortened because a window does not fit the context
# Share of the words kept at each step: where the service says that the window is too long, and
# where it may only mean that.
STEPS = {TOO_LONG: 3 / 4, REJECTED: 1 / 2, UNFIT: 1 / 2}
# Of the table of windows (`rdx.teachers.audit.audit` explains them).
PLACE = ["query_id", "shuffle", "pass", "start", "end"]
OUTCOME = [
    "state",
    "tries",
    "words",
    "key",
    "shortened",
    "estimated",
    "lost",
    "thinking",
    "shown",
    "given",
]


class _Order(NamedTuple):
    """What became of one input order of a list: doc ids, best first."""

    doc_ids: list[str]
    state: str = "ok"


class _Outcome(NamedTuple):
    """What became of a window; all but the permutation as in the table of windows."""

    permutation: tuple[int, ...] | None
    state: str
    tries: int
    words: int
    key: str
    shortened: bool
    estimated: int
    lost: int
    thinking: int


class _Window(NamedTuple):
    """A window that was asked, its place first: the windows of a pass go from the back forward."""

    query_id: str
    shuffle: int
    turn: int
    start: int
    end: int
    shown: list[str]
    outcome: _Outcome

    def row(self) -> list[object]:
        """Values of `PLACE` and `OUTCOME`."""
        permutation, *facts = self.outcome
        return [*self[:5], *facts, self.shown, [self.shown[i] for i in permutation or ()]]


class Session:
    """One go at all lists of a teacher ranking."""

    def __init__(self, teacher: Listwise, collection: Collection, owner: str) -> None:
        self.teacher, self.collection, self.owner = teacher, collection, owner
        self.prompt: Prompt = load(teacher.prompt)
        self.backend: Backend = teacher.backend.backend()
        self.ledger = Ledger(Path(teacher.ledger))
        self.meter = Meter(teacher.caps, teacher.prices)
        failures = teacher.failures or max(FAILURES, 2 * teacher.concurrency)
        self.identity: Identity = {"prompt": self.prompt.identity(), **self.backend.identity()}
        self.requests = Requests(
            *(self.backend, self.ledger, self.meter, Standing(failures, self.meter)),
            *(Entry("", 0, owner, identity=self.identity), self._answered, self._state),
        )
        self.orders: dict[tuple[str, int], _Order] = {}
        self.windows: list[_Window] = []

    async def run(self, lists: Mapping[str, list[str]]) -> None:
        """Let `concurrency` workers take one list after the other."""
        self.requests.count_before()
        jobs = [(q, n) for q in lists for n in range(self.teacher.shuffles)]
        self._announce(lists)
        waiting = iter(jobs)
        with bar(total=len(jobs), desc="teaching", unit="list", smoothing=0.1) as progress:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.teacher.concurrency, len(jobs))):
                        group.create_task(self._work(waiting, lists, progress))
            finally:
                await self.backend.close()
        if self.requests.halted is not None:
            raise self.requests.halted
        self.requests.standing.end()

    async def _work(
        self, waiting: Iterator[tuple[str, int]], lists: Mapping[str, list[str]], progress: tqdm
    ) -> None:
        for query_id, number in waiting:
            try:
                self.orders[query_id, number] = await self._list(query_id, number, lists[query_id])
            except (Stopped, Fatal) as error:
                # The others end after the answer that they wait for: it is paid for.
                self.requests.halted = self.requests.halted or error
            if self.requests.halted is not None:
                return
            progress.update()
            progress.set_postfix_str(self._rates(progress), refresh=False)

    async def _list(self, query_id: str, number: int, doc_ids: list[str]) -> _Order:
        """All passes over one list, from one input order."""
        teacher = self.teacher
        first = number + (teacher.order == "shuffled")
        shuffle = windows.shuffled(len(doc_ids), teacher.seed, query_id, first)
        order, state = [doc_ids[i] for i in shuffle], "ok"
        for turn in range(teacher.passes):
            for start, end in windows.positions(len(order), teacher.window, teacher.stride):
                shown = order[start:end]
                outcome = await self._window(query_id, shown)
                self.windows.append(_Window(query_id, number, turn, start, end, shown, outcome))
                if outcome.permutation is None:
                    return _Order(doc_ids, outcome.state)
                order = windows.applied(order, start, outcome.permutation)
                state = "repaired" if outcome.state == "repaired" else state
        return _Order(order, state)

    async def _window(self, query_id: str, shown: list[str]) -> _Outcome:
        """Ask until there is a permutation, or tries or words are used up."""
        words = self.teacher.passage_words
        attempt, entries = 0, list[Entry]()
        while True:
            messages = self._messages(query_id, shown, words)
            entry = await self.requests.answer(query_id, messages, len(shown), attempt)
            before = entries[-1].answer if entries else None
            entries.append(entry)
            if entry.state in STEPS:
                fewer = self._fewer(query_id, shown, words, STEPS[entry.state])
                if fewer is not None:
                    words = fewer
                    continue
            attempt += 1
            if entry.answer is None:
                if entry.state != TOO_LONG:
                    self.requests.standing.failed(entry.error)
                entry = replace(entry, state=REFUSED if entry.state == REFUSED else FAILED)
            elif attempt == 1:
                self.requests.were_too_long(entries)
            if entry.state in USABLE:
                permutation = self._parsed(entry.answer, entry.finish, len(shown)).order
                return self._outcome(permutation, entry.state, attempt, words, entries)
            if entry.answer in (None, before) or attempt == self.teacher.tries:
                return self._outcome(None, entry.state, attempt, words, entries)

    def _fewer(self, query_id: str, shown: list[str], words: int, share: float) -> int | None:
        """Words of a passage that make a shorter request; None if it is as short as it may be."""
        longest = max(len(self.collection.passages[doc_id].split()) for doc_id in shown)
        while words > FEWEST_WORDS:
            words = max(FEWEST_WORDS, int(words * share))
            if words < longest:
                return words
        return None

    def _outcome(
        self,
        permutation: tuple[int, ...] | None,
        state: str,
        tries: int,
        words: int,
        entries: list[Entry],
    ) -> _Outcome:
        last = entries[-1]
        return _Outcome(
            *(permutation, state, tries, words, last.key),
            shortened=last.answer is not None and words < self.teacher.passage_words,
            estimated=sum(e.input_tokens + e.output_tokens for e in entries if e.estimated),
            lost=sum(e.lost_input + e.lost_output for e in entries),
            thinking=sum(e.thinking_tokens for e in entries),
        )

    def _answered(self, entry: Entry, answer: Answer) -> Entry:
        return replace(
            entry,
            answer=answer.text,
            finish=answer.finish,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            latency=round(answer.latency, 4),
            served=answer.served,
            thinking_tokens=answer.thinking_tokens
            or thinking_tokens(answer.text, answer.thoughts, answer.output_tokens),
            cost=self.meter.prices.cost(answer.input_tokens, answer.output_tokens),
            state=self._parsed(answer.text, answer.finish, entry.size).state,
        )

    def _state(self, entry: Entry) -> str:
        """What the answer of an entry is by the rule of now."""
        return self._parsed(entry.answer, entry.finish, entry.size).state

    def _messages(self, query_id: str, doc_ids: Sequence[str], words: int) -> list[Message]:
        texts = [shorten(self.collection.passages[doc_id], words) for doc_id in doc_ids]
        return self.prompt.messages(self.collection.queries[query_id], texts)

    def _parsed(self, text: str | None, finish: str, size: int) -> Parsed:
        answer = self.prompt.canonical(without_thoughts(text or ""))
        finish = "within a thought" if ends_in_thought(text or "") else finish
        return read(answer, finish, size, self.teacher.parse, self.prompt.identifiers)

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
        prompts = [
            tokens.of_chat(self._messages(q, shown, teacher.passage_words)) for q, shown in some
        ]
        estimate = self.meter.estimate(
            len(spans) * teacher.passes * teacher.shuffles,
            sum(prompts) / len(prompts),
            sum(len(shown) for _, shown in some) / len(some),
        )
        before = self.requests.before
        spent = f"; {counted(before, 'answer')} from before" if before else ""
        tell(f"teaching {counted(len(lists), 'list')}: {estimate}{spent}")

    def _rates(self, progress: tqdm) -> str:
        elapsed = max(progress.format_dict["elapsed"], 1e-9)
        fresh, unusable = self.requests.fresh, self.requests.unusable
        rates = [f"{fresh / elapsed:.1f} answers/s", f"{self.meter.tokens:,} tokens"]
        if fresh:
            rates.insert(1, f"{unusable / fresh:.1%} unusable")
        if self.meter.prices != Prices():
            rates.append(f"cost {self.meter.cost:.2f}")
        return ", ".join(rates)

    def table(self, lists: Iterable[str]) -> pd.DataFrame:
        """All windows, one row each, in the order of (query, shuffle, pass, window)."""
        place = {query_id: i for i, query_id in enumerate(lists)}
        in_order = sorted(
            self.windows, key=lambda w: (place[w.query_id], w.shuffle, w.turn, -w.start)
        )
        return pd.DataFrame([window.row() for window in in_order], columns=[*PLACE, *OUTCOME])

    def ranking(self, lists: Mapping[str, list[str]]) -> pd.DataFrame:
        """The teacher ranking: per list the merged orders, or without a usable one its own."""
        rows = []
        for query_id, doc_ids in lists.items():
            orders = [self.orders[query_id, n] for n in range(self.teacher.shuffles)]
            state = _worst([order.state for order in orders])
            merged = doc_ids
            if state in USABLE:
                merged = windows.merged([order.doc_ids for order in orders], self.teacher.merge)
            ranks = {doc_id: rank for rank, doc_id in enumerate(merged, start=1)}
            rows += [(query_id, d, ranks[d], float("nan"), state) for d in doc_ids]
        table = pd.DataFrame(rows, columns=COLUMNS)
        return table.astype({"teacher_rank": "int32", "score": "float32"})


def _worst(states: Sequence[str]) -> str:
    """The state of a list of several input orders: an unusable one decides."""
    unusable = [state for state in states if state not in USABLE]
    return unusable[0] if unusable else "repaired" if "repaired" in states else "ok"
