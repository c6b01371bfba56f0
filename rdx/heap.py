"""Freed memory that the C library keeps."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Return freed memory to the system.

    glibc keeps what lies below a block in use. In a process that trains one student after another
    the holes grow: two gigabytes of objects held ten after eleven cells.
    """
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc
        libc.malloc_trim(0)
