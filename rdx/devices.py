"""What this machine computes on, by the names that people know."""

from __future__ import annotations

import platform
import re
from functools import lru_cache
from pathlib import Path

from rdx.facts import Device

CPUINFO = Path("/proc/cpuinfo")
CPU = "cpu"  # what is asked for where no GPU is used; else "auto", "cuda", ...


def device(asked: str, processes: int = 1) -> Device:
    """What work is done on here, all processes together; a GPU that is asked for may lack.

    Parameters
    ----------
    asked
        "cpu"; "auto" or another name of torch: a GPU, if there is one; else, for "auto", the CPU.
    """
    gpu = None if asked == CPU else gpu_name()
    if gpu is not None:
        return Device(gpu, True, processes)
    if asked not in (CPU, "auto"):
        return Device(asked, True, processes)
    import torch

    return Device(short(processor()), False, processes * torch.get_num_threads())


def gpu_name() -> str | None:
    """Of the GPU that torch would use; None without one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return None if accelerator is None else str(accelerator).upper()


@lru_cache(maxsize=1)
def processor() -> str:
    """The name of the CPU, as it gives it itself; of one that gives none, its architecture."""
    try:
        text = CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return model.group(1) if model else platform.machine()


def short(name: str) -> str:
    """The name of a CPU without what nobody says.

    >>> short("AMD EPYC 9645 96-Core Processor"), short("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz")
    ('AMD EPYC 9645', 'Intel Core i7-8700')
    """
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*|\b\d+-Core\b|\bProcessor\b", "", name)
    return " ".join(name.split())
