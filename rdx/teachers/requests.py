"""The requests of a teacher ranking: asked within the caps, in the ledger before they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from rdx.bars import tell
from rdx.rankings import USABLE
from rdx.teachers import tokens
from rdx.teachers.budget import Meter, Stopped, Ticket
from rdx.teachers.commits import Commits
from rdx.teachers.ledger import (
    FAILED,
    REFUSED,
    REJECTED,
    TOO_LONG,
    UNFIT,
    Entry,
    Ledger,
    request_key,
)
from rdx.teachers.messages import (
    Answer,
    Backend,
    Denied,
    Failed,
    MaybeTooLong,
    Message,
    Refused,
    TooLong,
)
from rdx.teachers.standing import Standing

log = logging.getLogger(__name__)

# States of requests that a service turns away for what they are; of all others "failed".
WITHOUT_ANSWER: dict[type[Exception], str] = {
    TooLong: TOO_LONG,
    MaybeTooLong: REJECTED,
    Refused: REFUSED,
}


class Requests:
    """Asks a backend what the ledger does not know.

    Parameters
    ----------
    backend, ledger, meter, standing
        Who answers, where answers are kept, what may be spent, and when to give up.
    blank
        Entry with owner and identity.
    answered
        Entry with an answer and its parse state.
    state
        Parse state of an entry that has an answer.

    Attributes
    ----------
    halted
        Why no request is sent any more; None = they are.
    before, fresh, unusable
        Answers of the sessions before; requests of this one, and those without a usable answer.
    """

    def __init__(
        self,
        backend: Backend,
        ledger: Ledger,
        meter: Meter,
        standing: Standing,
        blank: Entry,
        answered: Callable[[Entry, Answer], Entry],
        state: Callable[[Entry], str],
    ) -> None:
        self.standing = standing
        self.halted: Exception | None = None
        self.before = self.fresh = self.unusable = 0
        self._backend, self._ledger, self._meter = backend, ledger, meter
        self._commits = Commits(ledger)
        self._blank, self._answered, self._state = blank, answered, state
        self._estimates = False  # whether it was said that tokens are estimated

    def count_before(self) -> None:
        """Count what the ledger says was spent on this teacher ranking."""
        for entry in self._ledger.entries():
            if entry.owner == self._blank.owner:
                self._meter.add(entry.input_tokens, entry.output_tokens)
                self._meter.add(entry.lost_input, entry.lost_output)
                self.before += entry.answer is not None

    async def answer(
        self, query_id: str, messages: list[Message], size: int, attempt: int
    ) -> Entry:
        """The ledger's entry of a request; asked for if it is not there, or was not answered.

        Without an answer its state is "too_long", "rejected", "unfit", "refused" or "failed".

        Raises
        ------
        Stopped
            If a cap is reached, or the session is halted.
        Fatal
            If no request will be answered.
        """
        key = request_key(self._blank.identity, messages)
        known = self._ledger.find(key, attempt)
        if known is not None and not known.open:
            if known.answer is None:
                return known
            self.standing.answered(before=True)
            # The answer is what was stored; the rule that reads it may have changed.
            state = self._state(known)
            return known if state == known.state else replace(known, state=state)
        longest = self._backend.longest(size)
        ticket = await self._meter.admit(tokens.of_chat(messages), size, longest)
        entry = replace(self._blank, key=key, attempt=attempt, query_id=query_id, size=size)
        entry, fault = await self._asked(entry, messages, ticket)
        # What was denied before failed while others were answered: it may be a fault of its own.
        if isinstance(fault, Denied) and known is None:
            if not await self.standing.answers_others():
                raise fault
        # Kept also without an answer; one to the same request takes precedence in the ledger.
        await self._commits.add(entry)
        if isinstance(fault, Stopped):
            raise fault
        self.fresh += 1
        self.unusable += entry.state not in USABLE
        return entry

    async def were_too_long(self, entries: list[Entry]) -> None:
        """Note of requests that were rejected that they are unfit: a shorter one is answered."""
        for entry in entries:
            if entry.state == REJECTED:
                # the first entry has counted what it cost
                uncounted = replace(entry, cost=0.0, lost_input=0, lost_output=0)
                await self._commits.add(replace(uncounted, state=UNFIT))

    async def written(self) -> None:
        """Wait until all answers are on the disk, also those that nobody waits for any more."""
        await self._commits.end()

    async def _asked(
        self, entry: Entry, messages: list[Message], ticket: Ticket
    ) -> tuple[Entry, Exception | None]:
        """The entry with its answer or with why there is none, and that fault."""
        answer: Answer | None = None
        fault: Exception | None = None
        try:
            if self.halted is None:
                answer = await self._backend.ask(messages, entry.size, ticket.lost)
                entry = replace(self._answered(entry, answer), estimated=answer.estimated)
        except (TooLong, Failed, Denied, Stopped) as error:
            fault = error
            entry = replace(entry, state=_state(error), error=str(error))
        finally:
            self._meter.settle(ticket, answer)
        if answer is not None:
            self._heard(answer)
        elif fault is None:
            raise Stopped("another list stopped the session")
        if isinstance(fault, TooLong):
            log.warning("query %s: %d passages are too long: %s", entry.query_id, entry.size, fault)
        cost = entry.cost + self._meter.prices.cost(ticket.lost_input, ticket.lost_output)
        return (
            replace(entry, cost=cost, lost_input=ticket.lost_input, lost_output=ticket.lost_output),
            fault,
        )

    def _heard(self, answer: Answer) -> None:
        self.standing.answered()
        if answer.estimated and not self._estimates:
            self._estimates = True
            tell("the service does not count the tokens of its answers: they are estimated")


def _state(fault: Exception) -> str:
    """State of a request without an answer."""
    return WITHOUT_ANSWER.get(type(fault), FAILED)
