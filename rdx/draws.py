"""Everything random is drawn here: pure functions of a key, whatever workers and resumption."""

import hashlib

import numpy as np


def generator(*key: object) -> np.random.Generator:
    """Return a generator that is a pure function of its key, e.g. (seed, epoch, query id)."""
    return np.random.default_rng(int.from_bytes(_digest(key)[:16], "little"))


def seed(*key: object) -> int:
    """Return a 63-bit seed for torch that is a pure function of its key."""
    return int.from_bytes(_digest(key)[:8], "little") >> 1


def _digest(key: tuple[object, ...]) -> bytes:
    return hashlib.sha256(":".join(map(str, key)).encode()).digest()
