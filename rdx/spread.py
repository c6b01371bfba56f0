"""How far a mean may be off: Student's t interval, for queries and for training runs alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when used


def half_width(values: npt.ArrayLike) -> float:
    """Half the width of the 95 % t interval of a mean; infinite for one value."""
    n = len(numbers := np.asarray(values, dtype=np.float64))
    if n < 2:
        return float("inf")
    return float(scipy.special.stdtrit(n - 1, 0.975) * numbers.std(ddof=1) / np.sqrt(n))
