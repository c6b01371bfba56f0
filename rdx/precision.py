"""Choose the precision that the hardware computes: bfloat16 where it has units for it.

The choice rests on what the hardware says, never on a timing, so that it is the same in every
process of one machine. torch is imported only where a GPU may be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

AUTO = "auto"
CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's
# Files of the drivers of NVIDIA's cards, those under WSL, and AMD's: without one, no GPU.
DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
AMPERE = 8.0  # the first compute capability with bfloat16


def chosen(precision: str, device: str = "auto") -> str:
    """What a precision stands for on this machine.

    Parameters
    ----------
    precision
        "auto" becomes "bf16" where the device computes that natively (a GPU that can; a CPU with
        AVX512-BF16, AMX-BF16 or Arm's BF16), else "fp32", and never "fp16". Others stay.
    device
        "auto" (a GPU if there is one), "cpu", "cuda", ...

    Examples
    --------
    >>> chosen("fp32"), chosen("bf16", "cpu")
    ('fp32', 'bf16')
    """
    if precision != AUTO:
        return precision
    return "bf16" if native_bf16(device) else "fp32"


def native_bf16(device: str = "auto") -> bool:
    """Whether a device computes bfloat16 in hardware."""
    gpu = None if device == "cpu" else _gpu_has_bf16(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if gpu is None and device in ("auto", "cpu"):
        return _cpu_has_bf16()
    return bool(gpu)


def emulation_factor(size: int = 256) -> float:
    """How many times as long as in float32 a bfloat16 matrix product takes on this CPU.

    Each is repeated for at least 25 ms; 1 or less where there are units for it.
    """
    import torch

    return _seconds(torch.bfloat16, size) / _seconds(torch.float32, size)


def _seconds(dtype: torch.dtype, size: int) -> float:
    """Seconds of one product of square matrices: the fastest of those that fit into 25 ms."""
    import torch

    left, right = torch.randn(2, size, size).to(dtype)
    end = time.perf_counter() + 0.025
    fastest = float("inf")
    while time.perf_counter() < end:
        start = time.perf_counter()
        left @ right
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def _cpu_has_bf16() -> bool:
    """Whether the CPU says so, unless a variable holds torch or oneDNN to older instructions."""
    aten = os.environ.get("ATEN_CPU_CAPABILITY", "").lower()
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    limit = onednn.upper()
    uncapped = not aten or aten.startswith(("avx512", "amx", "sve"))
    newest = limit in ("ALL", "DEFAULT") or limit.startswith("AVX10_")
    newest |= any(name in limit for name in ("BF16", "FP16", "AMX"))
    return uncapped and newest and any(flag in _cpu_flags() for flag in FLAGS)


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU; of one that does not tell, none."""
    if not CPUINFO.is_file():
        import torch

        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return frozenset(name for name, value in capabilities.items() if value is True)
    for line in CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@lru_cache(maxsize=4)
def _gpu_has_bf16(visible: str | None) -> bool | None:
    """Whether the GPUs that torch would use compute bfloat16; None without one.

    `visible`, the variable CUDA_VISIBLE_DEVICES, is what the answer is remembered by.
    """
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in DRIVERS):
        return None
    import torch

    if torch.cuda.is_available():
        capabilities = _compute_capabilities(visible)
        if capabilities:
            return min(capabilities) >= AMPERE
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False if torch.accelerator.is_available() else None  # Apple's: fp32


def _compute_capabilities(visible: str | None) -> list[float]:
    """Of NVIDIA's cards, as the driver tells them; torch itself would take memory of each card."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    command += [f"--id={visible}"] if visible else []
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    try:
        return [float(line) for line in answer.stdout.split()] if answer.returncode == 0 else []
    except ValueError:
        return []
