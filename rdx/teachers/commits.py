"""Group commit: the answers of many requests are put on the disk by one sync, in a thread."""

from __future__ import annotations

import asyncio

from rdx.teachers.ledger import Entry, Ledger

GATHER = 0.005  # seconds that a group is open at least: nothing beside an answer, and few syncs


class Commits:
    """Appends entries to a ledger in groups; belongs to one event loop, which never waits.

    While one group is written and synced, the next one gathers.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._gathered: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, entry: Entry) -> None:
        """Return once the entry is on the disk; it gets there also if the caller is cancelled.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append((entry, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def end(self) -> None:
        """Wait until all is written, also what nobody waits for any more."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._gathered:
            await asyncio.sleep(GATHER)
            group, self._gathered = self._gathered, []
            fault: Exception | None = None
            try:
                await asyncio.to_thread(self._ledger.add, *(entry for entry, _ in group))
            except Exception as error:
                fault = error
            for _, written in group:
                if written.done():  # its caller was cancelled
                    continue
                if fault is None:
                    written.set_result(None)
                else:
                    written.set_exception(fault)
