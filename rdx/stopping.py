"""Handle Ctrl-C and SIGTERM: one line and an exit status, at any moment.

Imported before anything heavy, so that a program can be stopped while its libraries load.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}  # as shells number them
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_signal: int | None = None  # that stopped this process
_gently = False  # whether there is something to close
_loading = False  # whether libraries load


def install() -> None:
    """End this process on both signals: at once, until `gently`."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        global _signal
        if os.getpid() != owner:  # a forked worker inherits the handler, not what is to be closed
            os._exit(STATUS[signal.Signals(number)])
        if _signal is None:
            line = f"\nrdx: stopped by {_NAMES[signal.Signals(number)]}; the same command goes on\n"
            os.write(2, line.encode())
        _signal = number
        if not _gently:
            os._exit(STATUS[signal.Signals(number)])
        if not _loading:
            _raise(number)

    for number in STATUS:
        signal.signal(number, stop)
    atexit.register(_leave)  # first, and so the last that is called


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(STATUS[signal.SIGTERM])


@contextmanager
def loading() -> Iterator[None]:
    """Let libraries load to their end before a signal raises; C++ code would abort."""
    global _loading
    _loading = True
    try:
        yield
    finally:
        _loading = False
    if _signal is not None:
        _raise(_signal)


def _leave() -> None:
    """End with the status of the signal, if one came, when all else has been closed.

    Python itself would end by SIGINT where the KeyboardInterrupt passed through an `exec`, as the
    libraries use many, although it was caught later.
    """
    if (number := status()) is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(number)


def gently(yes: bool) -> None:
    """Let signals raise (KeyboardInterrupt, SystemExit), so that what is open is closed, or not."""
    global _gently
    _gently = yes


def status() -> int | None:
    """The exit status of a process that a signal stops; None if none came.

    Some libraries turn the exception of a signal into one of their own.
    """
    return None if _signal is None else STATUS[signal.Signals(_signal)]
