"""One go at all lists of a listwise teacher ranking: windows asked, answered, read, merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from rdx.bars import bar, tell
from rdx.collection import Collection
from rdx.rankings import USABLE
from rdx.teachers import tokens, windows
from rdx.teachers.budget import Meter, Prices, Stopped
from rdx.teachers.finished import Finished
from rdx.teachers.ledger import FAILED, REFUSED, REJECTED, TOO_LONG, UNFIT, Entry, Ledger
from rdx.teachers.messages import (
    Answer,
    Backend,
    Fatal,
    Identity,
    Message,
)
from rdx.teachers.parsing import Parsed, read
from rdx.teachers.prompts import Prompt, load
from rdx.teachers.requests import Requests
from rdx.teachers.standing import FAILURES, Standing
from rdx.teachers.tables import COLUMNS, worst
from rdx.teachers.thoughts import ends_in_thought, thinking_tokens, without_thoughts
from rdx.teachers.window_table import Outcome, Window, WindowTable
from rdx.text import counted

if TYPE_CHECKING:
    from rdx.teachers.listwise import Listwise

FRESH = 1.0  # seconds before the ledger is looked through again for answers of other processes
FEWEST_WORDS = 16  # of a passage that is shortened because a window does not fit the context
# Share of the words kept at each step: where the service says that the window is too long, and
# where it may only mean that.
STEPS = {TOO_LONG: 3 / 4, REJECTED: 1 / 2, UNFIT: 1 / 2}


class Lists:
    """Candidates query by query, numbered from 0 on, each list from rank 1 on.

    Parameters
    ----------
    candidates
        [query_id, doc_id, rank].

    Attributes
    ----------
    queries, lengths
        Query id and number of passages of each list.
    """

    def __init__(self, candidates: pd.DataFrame) -> None:
        codes, query_ids = pd.factorize(candidates.query_id)
        order = np.lexsort((candidates["rank"].to_numpy(), codes))
        self.queries = [str(query_id) for query_id in query_ids]
        self._table = candidates[["query_id", "doc_id"]].iloc[order].reset_index(drop=True)
        self._doc_ids = pa.array(self._table.doc_id.astype(str), pa.string())
        self.lengths = np.bincount(codes, minlength=len(self.queries))
        self._starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, number: int) -> list[str]:
        """The doc ids of a list."""
        doc_ids: list[str] = self._doc_ids.slice(
            self._starts[number], self.lengths[number]
        ).to_pylist()
        return doc_ids

    def ranked(self, ranks: Sequence[np.ndarray], states: Sequence[str]) -> pd.DataFrame:
        """A teacher ranking without scores: [n] ranks of the passages of each list, its state."""
        teacher_rank = np.concatenate([np.empty(0, np.int64), *ranks]).astype(np.int32)
        return self._table.assign(
            teacher_rank=teacher_rank,
            score=np.float32("nan"),
            state=np.repeat(states, self.lengths),
        )[COLUMNS]


class _Order(NamedTuple):
    """What became of one input order of a list: positions in it, best first."""

    positions: list[int]
    state: str = "ok"


class _Shown(NamedTuple):
    """A list as it is shown: its query, and a text by doc id and number of words kept of it."""

    query_id: str
    query: str
    text: Callable[[str, int], str]


class Session:
    """One go at all lists of a teacher ranking.

    Parameters
    ----------
    owner
        Of the ledger's entries.
    table, finished
        Of the windows that are asked; of the lists that were finished by a killed process.
    """

    def __init__(
        self,
        teacher: Listwise,
        collection: Collection,
        owner: str,
        lists: Lists,
        table: WindowTable,
        finished: Finished,
    ) -> None:
        self.teacher, self.collection, self.lists = teacher, collection, lists
        self.table, self.finished = table, finished
        self.prompt: Prompt = load(teacher.prompt)
        self.backend: Backend = teacher.backend.backend()
        self.ledger = Ledger(Path(teacher.ledger), fresh=FRESH)
        self.meter = Meter(teacher.caps, teacher.prices)
        failures = teacher.failures or max(FAILURES, 2 * teacher.concurrency)
        self.identity: Identity = {"prompt": self.prompt.identity(), **self.backend.identity()}
        self.requests = Requests(
            *(self.backend, self.ledger, self.meter, Standing(failures, self.meter)),
            *(Entry("", 0, owner, identity=self.identity), self._answered, self._state),
        )
        self.orders: dict[tuple[int, int], _Order] = {}
        # An answer is read when it comes, and once more when its window is put in order.
        self._parsed = lru_cache(4 * teacher.concurrency)(self._read)

    async def run(self) -> None:
        """Let `concurrency` workers take one list after the other."""
        self.requests.count_before()
        if self.finished:
            self.requests.standing.answered(before=True)
        self._announce()
        jobs = list(product(range(len(self.lists)), range(self.teacher.shuffles)))
        waiting = iter(enumerate(jobs))
        with bar(total=len(jobs), desc="teaching", unit="list", smoothing=0.1) as progress:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.teacher.concurrency, len(jobs))):
                        group.create_task(self._work(waiting, progress))
            finally:
                await self.requests.written()
                await self.backend.close()
        if self.requests.halted is not None:
            raise self.requests.halted
        self.requests.standing.end()

    async def _work(self, waiting: Iterator[tuple[int, tuple[int, int]]], progress: tqdm) -> None:
        for number, (place, shuffle) in waiting:
            try:
                self.orders[place, shuffle] = await self._list(number, place, shuffle)
            except (Stopped, Fatal) as error:
                # The others end after the answer that they wait for: it is paid for.
                self.requests.halted = self.requests.halted or error
            if self.requests.halted is not None:
                return
            progress.update()
            progress.set_postfix_str(self._rates(progress), refresh=False)
            await asyncio.sleep(0)  # where the ledger has all answers, nothing was waited for

    async def _list(self, number: int, place: int, shuffle: int) -> _Order:
        """All passes over one list, from one input order; the windows go into the table."""
        teacher, asked = self.teacher, list[Window]()
        doc_ids, shown = self.lists[place], self._shown(place)
        known = iter(self.finished.outcomes(place, shuffle))
        first = shuffle + (teacher.order == "shuffled")
        order, state = windows.shuffled(len(doc_ids), teacher.seed, shown.query_id, first), "ok"
        for turn in range(teacher.passes):
            for start, end in windows.positions(len(order), teacher.window, teacher.stride):
                window = [doc_ids[position] for position in order[start:end]]
                outcome = next(known, None) or await self._window(shown, window)
                asked.append(Window(shown.query_id, shuffle, turn, start, end, window, outcome))
                if outcome.permutation is None:
                    self.table.add(number, asked)
                    return _Order(list(range(len(doc_ids))), outcome.state)
                order = windows.applied(order, start, outcome.permutation)
                state = "repaired" if outcome.state == "repaired" else state
        self.table.add(number, asked)
        self.finished.add(place, shuffle, [window.outcome for window in asked])
        return _Order(order, state)

    def _shown(self, place: int) -> _Shown:
        """A list whose texts are looked up and cut once, not for every window."""

        @cache
        def text(doc_id: str, words: int) -> str:
            return self.prompt.plain(self.collection.passages[doc_id], words)

        query_id = self.lists.queries[place]
        return _Shown(query_id, self.prompt.plain(self.collection.queries[query_id]), text)

    async def _window(self, shown: _Shown, doc_ids: list[str]) -> Outcome:
        """Ask until there is a permutation, or tries or words are used up."""
        words = self.teacher.passage_words
        attempt, entries = 0, list[Entry]()
        while True:
            messages = self._messages(shown, doc_ids, words)
            entry = await self.requests.answer(shown.query_id, messages, len(doc_ids), attempt)
            before = entries[-1].answer if entries else None
            entries.append(entry)
            if entry.state in STEPS:
                fewer = self._fewer(doc_ids, words, STEPS[entry.state])
                if fewer is not None:
                    words = fewer
                    continue
            attempt += 1
            if entry.answer is None:
                if entry.state != TOO_LONG:
                    self.requests.standing.failed(entry.error)
                entry = replace(entry, state=REFUSED if entry.state == REFUSED else FAILED)
            elif attempt == 1:
                await self.requests.were_too_long(entries)
            if entry.state in USABLE:
                permutation = self._parsed(entry.answer, entry.finish, len(doc_ids)).order
                return self._outcome(permutation, entry.state, attempt, words, entries)
            if entry.answer in (None, before) or attempt == self.teacher.tries:
                return self._outcome(None, entry.state, attempt, words, entries)

    def _fewer(self, shown: list[str], words: int, share: float) -> int | None:
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
    ) -> Outcome:
        last = entries[-1]
        return Outcome(
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

    def _messages(self, shown: _Shown, doc_ids: Sequence[str], words: int) -> list[Message]:
        return self.prompt.chat(shown.query, [shown.text(doc_id, words) for doc_id in doc_ids])

    def _read(self, text: str | None, finish: str, size: int) -> Parsed:
        answer = self.prompt.canonical(without_thoughts(text or ""))
        finish = "within a thought" if ends_in_thought(text or "") else finish
        return read(answer, finish, size, self.teacher.parse, self.prompt.identifiers)

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        """Number of a list, and where a window of it starts and ends, of all windows of a pass."""
        for number, length in enumerate(self.lists.lengths.tolist()):
            for span in windows.positions(length, self.teacher.window, self.teacher.stride):
                yield number, *span

    def _announce(self) -> None:
        """Say before the first request what all of them may cost."""
        teacher = self.teacher
        spans = sum(1 for _ in self._spans())
        if not spans:
            return
        some = [
            (self._shown(number), self.lists[number][start:end])
            for number, start, end in islice(self._spans(), 0, None, max(1, spans // 50))
        ]
        prompts = [
            tokens.of_chat(self._messages(shown, doc_ids, teacher.passage_words))
            for shown, doc_ids in some
        ]
        estimate = self.meter.estimate(
            spans * teacher.passes * teacher.shuffles,
            sum(prompts) / len(prompts),
            sum(len(doc_ids) for _, doc_ids in some) / len(some),
        )
        before = self.requests.before
        spent = f"; {counted(before, 'answer')} from before" if before else ""
        tell(f"teaching {counted(len(self.lists), 'list')}: {estimate}{spent}")

    def _rates(self, progress: tqdm) -> str:
        elapsed = max(progress.format_dict["elapsed"], 1e-9)
        fresh, unusable = self.requests.fresh, self.requests.unusable
        rates = [f"{fresh / elapsed:.1f} answers/s", f"{self.meter.tokens:,} tokens"]
        if fresh:
            rates.insert(1, f"{unusable / fresh:.1%} unusable")
        if self.meter.prices != Prices():
            rates.append(f"cost {self.meter.cost:.2f}")
        return ", ".join(rates)

    def ranking(self) -> pd.DataFrame:
        """The teacher ranking: per list the merged orders, or without a usable one its own."""
        ranks, states = [], []
        for place in range(len(self.lists)):
            orders = [self.orders[place, shuffle] for shuffle in range(self.teacher.shuffles)]
            state = worst([order.state for order in orders])
            merged = list(range(len(orders[0].positions)))
            if state in USABLE:
                merged = windows.merged([order.positions for order in orders], self.teacher.merge)
            ranks.append(np.argsort(merged) + 1)
            states.append(state)
        return self.lists.ranked(ranks, states)
