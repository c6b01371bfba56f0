"""Measure what a graph takes and what memory is free, to save a second forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import torch
from torch import Tensor

SHARE = 0.25  # of the free memory: other things want some, and lengths differ from step to step
CGROUPS = Path("/sys/fs/cgroup")


def kept_bytes(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the parameters themselves.

    Weights that FSDP puts together for a layer and has given back at the end do not count.
    """
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> None:
        """Note what is kept; as long as it is noted it has an address of its own.

        Nothing goes into the graph: an operation that kept its own output would hold itself, and
        all before it, for ever.
        """
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        forward()
    return sum(storage.nbytes() for place, storage in kept.items() if place not in own)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; on a CPU, within the limit of the process's control group."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the control groups (version 2) of the process leave it, as Slurm and containers do."""
    try:
        [path] = [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")]
    except (OSError, ValueError):
        return []
    group = root / path.lstrip("/")
    return [left for folder in (group, *group.parents) if (left := _left(folder)) is not None]


def _left(folder: Path) -> int | None:
    try:
        limit = int((folder / "memory.max").read_text())
        return max(limit - int((folder / "memory.current").read_text()), 0)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None
