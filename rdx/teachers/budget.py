"""Cost of an LLM's answers: an estimate before the first request, and caps that hold."""

from __future__ import annotations

import asyncio
import time

from rdx.declared import Above0, From0, Positive, settings
from rdx.faults import Mendable
from rdx.teachers.messages import Answer
from rdx.text import counted

TOKENS_PER_PASSAGE = 6  # of an answer: "[12] > "
MARGIN = 1.2  # reserved tokens over the tokens expected


class Stopped(Mendable, RuntimeError):
    """A cap is reached, or nothing answers any more; all answers so far are kept."""


@settings(frozen=True)
class Prices:
    """Price of a million tokens, in any currency.

    Parameters
    ----------
    input, output
        Of the prompt's and of the answer's tokens.
    """

    input: From0 = 0.0
    output: From0 = 0.0

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Price of one or many answers."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@settings(frozen=True)
class Caps:
    """What a teacher may spend on a teacher ranking; None = no limit.

    `Meter` says by how much a cap may be passed.

    Parameters
    ----------
    tokens
        Input and output tokens, of all sessions that worked on it: as the service counts them,
        else as they are estimated. The prompt of a try that the service took and
        did not answer counts.
    cost
        In the currency of the prices, likewise.
    hours
        Hours of this session.
    """

    tokens: Positive | None = None
    cost: Above0 | None = None
    hours: Above0 | None = None


class Ticket:
    """A request that was let through, and what each of its tries may take.

    Attributes
    ----------
    prompt
        Tokens of its prompt, as `rdx.teachers.tokens` estimates them.
    input_tokens, output_tokens
        Reserved for a try.
    lost_input, lost_output
        Taken by tries that were served in vain.
    """

    def __init__(self, meter: Meter, prompt: int, input_tokens: float, output_tokens: float):
        self.prompt = prompt
        self.input_tokens, self.output_tokens = input_tokens, output_tokens
        self.lost_input = self.lost_output = 0
        self._meter = meter

    def lost(self, input_tokens: int, output_tokens: int) -> None:
        """Count a try that was served in vain.

        Raises
        ------
        Stopped
            If another try could pass a cap.
        """
        self.lost_input += input_tokens
        self.lost_output += output_tokens
        self._meter.add(input_tokens, output_tokens)
        self._meter.check()


class Meter:
    """Tokens and money spent, and what the requests in flight may still take.

    A request, and each further try of it, is let through only if the caps hold even when all
    requests in flight take what is reserved for them: `MARGIN` times the prompt's expected tokens,
    and the longest answer. So a cap is passed at most by what the requests in flight take beyond
    that, at most one try of each.
    """

    def __init__(self, caps: Caps, prices: Prices) -> None:
        self.caps, self.prices = caps, prices
        self.input_tokens = self.output_tokens = 0
        self._in_flight: set[Ticket] = set()
        self._settled = asyncio.Event()
        self._start = time.monotonic()
        # of the prompts that were counted, and of all answers
        self._counted = self._estimated = self._longest = 0

    @property
    def tokens(self) -> int:
        """Input and output tokens so far."""
        return self.input_tokens + self.output_tokens

    @property
    def cost(self) -> float:
        """Money so far."""
        return self.prices.cost(self.input_tokens, self.output_tokens)

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._in_flight)

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Count tokens."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    def expected(self, prompt: float, size: float) -> tuple[float, float]:
        """Input and output tokens of a request.

        Parameters
        ----------
        prompt
            Tokens of the prompt, estimated; corrected by what the service has counted so far.
        size
            Passages that it shows.
        """
        ratio = self._counted / self._estimated if self._estimated else 1.0
        return prompt * ratio, size * TOKENS_PER_PASSAGE

    async def admit(self, prompt: int, size: int, longest: int | None) -> Ticket:
        """Let a request through, once the caps allow it; `settle` ends it.

        Parameters
        ----------
        prompt, size
            As of `expected`.
        longest
            Tokens of the longest answer; None = not limited: the longest so far.

        Raises
        ------
        Stopped
            If a cap could be passed and no request in flight can make room.
        """
        while True:
            input_tokens, answer = self.expected(prompt, size)
            output_tokens = MARGIN * max(answer, self._longest) if longest is None else longest
            ticket = Ticket(self, prompt, MARGIN * input_tokens, output_tokens)
            try:
                self.check(ticket)
            except Stopped:
                if not self._in_flight:
                    raise
                await self.change()
            else:
                self._in_flight.add(ticket)
                return ticket

    def check(self, *more: Ticket) -> None:
        """Raise `Stopped` if the requests in flight, and more, could pass a cap."""
        if self.caps == Caps():
            return
        tickets = [*self._in_flight, *more]
        input_tokens = self.input_tokens + sum(ticket.input_tokens for ticket in tickets)
        output_tokens = self.output_tokens + sum(ticket.output_tokens for ticket in tickets)
        hours = (time.monotonic() - self._start) / 3600
        after = {
            "tokens": (self.caps.tokens, input_tokens + output_tokens, self.tokens),
            "cost": (self.caps.cost, self.prices.cost(input_tokens, output_tokens), self.cost),
            "hours": (self.caps.hours, hours, hours),
        }
        for name, (cap, value, now) in after.items():
            if cap is not None and value > cap:
                raise Stopped(
                    f"teacher.caps.{name}={cap} is reached (spent {now:.6g}; the next request "
                    "could pass it). All answers are kept; raise the cap and run the same command "
                    "to go on"
                )

    async def change(self) -> None:
        """Wait until a request in flight has ended."""
        await self._settled.wait()

    def settle(self, ticket: Ticket, answer: Answer | None) -> None:
        """End a request: count its answer, None if there was none."""
        self._in_flight.remove(ticket)
        self._settled.set()
        self._settled = asyncio.Event()
        if answer is None:
            return
        self.add(answer.input_tokens, answer.output_tokens)
        self._longest = max(self._longest, answer.output_tokens)
        if answer.input_tokens and not answer.estimated:
            self._estimated += ticket.prompt
            self._counted += answer.input_tokens

    def estimate(self, requests: int, prompt: float, size: float) -> str:
        """One line about requests still to be asked; tokens of prompts and passages are means."""
        input_tokens, output_tokens = self.expected(prompt, size)
        total = requests * (input_tokens + output_tokens)
        cost = self.prices.cost(requests * input_tokens, requests * output_tokens)
        line = f"up to {counted(requests, 'request')}, about {total:,.0f} tokens"
        if self.prices != Prices():
            line += f", costing about {cost:,.2f}"
        if self.caps.tokens is not None and self.tokens + total > self.caps.tokens:
            line += f"; teacher.caps.tokens={self.caps.tokens} will stop it before the end"
        if self.caps.cost is not None and self.cost + cost > self.caps.cost:
            line += f"; teacher.caps.cost={self.caps.cost} will stop it before the end"
        return line
