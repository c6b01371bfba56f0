"""SIGTERM as an exception, so that the record of a trial is closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into ``SystemExit(143)``, unless somebody else handles it already."""
    owner = os.getpid()

    def raise_exit(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a forked worker inherits the handler, not the record
            os._exit(143)
        raise SystemExit(143)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, raise_exit)
    except ValueError:  # not in the main thread
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
