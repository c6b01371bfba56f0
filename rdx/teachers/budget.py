"""Cost of an LLM's answers: an estimate before the first request, and caps that hold."""

from __future__ import annotations

import time

from rdx.declared import Above0, From0, Positive, settings
from rdx.faults import Mendable
from rdx.teachers.messages import Answer
from rdx.text import counted

TOKENS_PER_CHARACTER = 1 / 3  # before an answer says better; English text has about 1/4
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

    Parameters
    ----------
    tokens
        Input and output tokens, of all sessions that worked on it.
    cost
        In the currency of the prices, likewise.
    hours
        Of this session.
    """

    tokens: Positive | None = None
    cost: Above0 | None = None
    hours: Above0 | None = None


class Meter:
    """Tokens and money spent, and what the requests in flight may still take.

    A request is let through only if the caps hold even when it takes what is reserved for it, so
    that a cap is not passed by the requests in flight (as long as none takes more than reserved).
    """

    def __init__(self, caps: Caps, prices: Prices) -> None:
        self.caps, self.prices = caps, prices
        self.input_tokens = self.output_tokens = self.answers = 0
        self._reserved: dict[int, tuple[float, float]] = {}
        self._ticket = 0
        self._start = time.monotonic()
        self._ratio = TOKENS_PER_CHARACTER
        self._characters = self._counted = 0

    @property
    def tokens(self) -> int:
        """Input and output tokens so far."""
        return self.input_tokens + self.output_tokens

    @property
    def cost(self) -> float:
        """Money so far."""
        return self.prices.cost(self.input_tokens, self.output_tokens)

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Count an answer."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.answers += 1

    def expected(self, characters: int, size: int) -> tuple[float, float]:
        """Input and output tokens of a request of so many characters and passages."""
        return characters * self._ratio, float(size * TOKENS_PER_PASSAGE)

    def reserve(self, characters: int, size: int) -> int:
        """Let a request through; give the ticket back to `settle`.

        Raises
        ------
        Stopped
            If a cap could be passed.
        """
        prompt, answer = self.expected(characters, size)
        request = (MARGIN * prompt, MARGIN * answer)
        in_flight = self._reserved.values()
        input_tokens = self.input_tokens + sum(n for n, _ in in_flight) + request[0]
        output_tokens = self.output_tokens + sum(n for _, n in in_flight) + request[1]
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
        self._ticket += 1
        self._reserved[self._ticket] = request
        return self._ticket

    def settle(self, ticket: int, characters: int, answer: Answer | None) -> None:
        """End a request: count its answer, None if there was none."""
        del self._reserved[ticket]
        if answer is None:
            return
        self.add(answer.input_tokens, answer.output_tokens)
        if answer.input_tokens:
            self._characters += characters
            self._counted += answer.input_tokens
            self._ratio = self._counted / self._characters

    def estimate(self, requests: int, characters: float, size: float) -> str:
        """One line about requests still to be asked; characters and passages are means."""
        input_tokens, output_tokens = self.expected(round(characters), round(size))
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
