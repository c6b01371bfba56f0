"""Search token vectors approximately: PLAID (Santhanam et al. 2022) by fast-plaid."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "plaid"


def check() -> None:
    """Refuse to begin without fast-plaid, or with one that was built for another torch.

    Its wheels are linked to one version of torch; with another one it ends the process.

    Raises
    ------
    ValueError
        Naming both versions.
    """
    here = importlib.metadata.version("torch").split("+")[0]
    try:
        needs = importlib.metadata.requires("fast-plaid") or []
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            "index='plaid': needs fast-plaid (the extra `plaid`), in a version that was "
            f"built for torch {here}; sampler.index=exact needs nothing"
        ) from None
    pins = (re.match(r"torch==([\d.]+)", requirement) for requirement in needs)
    built = next((pin[1] for pin in pins if pin), here)
    if built != here:
        raise ValueError(
            f"index='plaid': fast-plaid {importlib.metadata.version('fast-plaid')} was "
            f"built for torch {built}, this is torch {here}; sampler.index=exact works with any"
        )


def build(folder: Path, passages: Sequence[np.ndarray], device: str) -> None:
    """Index passages, each with its token vectors [n, D]; a passage without a token has none."""
    import torch

    vectors = [torch.from_numpy(np.array(tokens, dtype=np.float32)) for tokens in passages]
    _opened(folder, device).create(vectors)


def search(
    folder: Path, queries: Sequence[Tensor], k: int, device: str
) -> list[tuple[Tensor, Tensor]]:
    """The k best passages that the index finds: (positions, scores) per query, best first.

    Of equal scores the passage that comes first in the collection is put first.
    """
    import torch

    results = _opened(folder, device).search(
        [query.float().cpu() for query in queries],
        top_k=k,
        n_full_scores=max(4096, 4 * k),
        show_progress=False,
    )
    return [
        (torch.tensor([i for i, _ in hits], dtype=torch.int64), torch.tensor([s for _, s in hits]))
        for hits in results
    ]


def _opened(folder: Path, device: str) -> Any:  # FastPlaid, which has no types
    return importlib.import_module("fast_plaid.search").FastPlaid(
        str(folder / INDEX), device=device
    )
