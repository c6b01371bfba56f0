"""PLAID (Santhanam et al. 2022) by fast-plaid: an approximate index of token vectors."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    built = next((m[1] for one in needs if (m := re.match(r"torch==([\d.]+)", one))), here)
    if built != here:
        raise ValueError(
            f"index='plaid': fast-plaid {importlib.metadata.version('fast-plaid')} was "
            f"built for torch {built}, this is torch {here}; sampler.index=exact works with any"
        )


def build(folder: Path, passages: Sequence[np.ndarray], device: str) -> None:
    """Index passages, each with its token vectors [n, D]; a passage without a token has none."""
    import torch

    vectors = [torch.from_numpy(np.array(one, dtype=np.float32)) for one in passages]
    _opened(folder, device).create(vectors)


def search(folder: Path, queries: Sequence[Any], k: int, device: str) -> list[tuple[Any, Any]]:
    """The k best passages that the index finds: (positions, scores) per query, best first.

    Of equal scores the passage that comes first in the collection is put first.
    """
    import torch

    found = _opened(folder, device).search(
        [one.float().cpu() for one in queries],
        top_k=k,
        n_full_scores=max(4096, 4 * k),
        show_progress=False,
    )
    return [
        (torch.tensor([i for i, _ in one], dtype=torch.int64), torch.tensor([s for _, s in one]))
        for one in found
    ]


def _opened(folder: Path, device: str) -> Any:
    return importlib.import_module("fast_plaid.search").FastPlaid(
        str(folder / INDEX), device=device
    )
