"""Whether a service still answers: when a teacher goes on without a list, and when it gives up."""

from __future__ import annotations

from rdx.teachers.budget import Meter, Stopped

FAILURES = 20  # in a row; no fewer than twice the requests in flight, which may all meet one fault


class Standing:
    """What a service has answered so far, and its failures since.

    A fault of one request is not one of the service: the list is lost and the others go on, unless
    nothing has been answered at all, or nothing for many windows in a row.

    Parameters
    ----------
    failures
        Windows in a row that may fail; with the last of them the teacher stops.
    meter
        Knows the requests in flight.
    """

    def __init__(self, failures: int, meter: Meter) -> None:
        self._failures, self._meter = failures, meter
        self._answers = False  # in this session
        self._ever = False
        self._row, self._last = 0, ""

    def answered(self, *, before: bool = False) -> None:
        """Note an answer: the service's, or one of a session before."""
        self._ever = True
        if not before:
            self._answers, self._row = True, 0

    async def answers_others(self) -> bool:
        """Whether the service answers in this session; waits for the requests in flight."""
        while not self._answers and self._meter.in_flight:
            await self._meter.change()
        return self._answers

    def failed(self, error: str) -> None:
        """Note that a window has no answer.

        Raises
        ------
        Stopped
            If that was the last one of too many in a row.
        """
        self._row, self._last = self._row + 1, error
        if self._row >= self._failures:
            self._stop()

    def end(self) -> None:
        """Raise `Stopped` if windows were asked for and none was ever answered."""
        if self._row and not self._ever:
            self._stop()

    def _stop(self) -> None:
        raise Stopped(
            f"{self._row} requests in a row were not answered (the last: {self._last}). All "
            "answers are kept; run the same command to go on (teacher.failures bounds the row)"
        )
