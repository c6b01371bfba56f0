"""How many, of how many."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """How many, and of how many."""

    n: int
    of: int

    @property
    def share(self) -> float:
        """`n / of`; 0 of nothing."""
        return self.n / self.of if self.of else 0.0


Counts = dict[str, Count]
