"""Examine the machine and its software."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rdx import faults
from rdx.config import ROOT
from rdx.declared import version
from rdx.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from rdx.precision import native_bf16
from rdx.text import counted

GB = 10**9
LITTLE_MEMORY = 2 * GB  # the default recipe takes about 1.5 GB
CGROUP = Path("/sys/fs/cgroup")
CHECKOUT = (ROOT / "pyproject.toml").is_file()
PLACE = "" if CHECKOUT else "in the source of rdx: "
INSTALL = f"{PLACE}pip install -c constraints.txt -e ."
# Variables that would let models run code.
UNSAFE = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",)


def packages(root: Path = ROOT) -> Iterator[Finding]:
    """What the project requires, and the versions that it was tested with."""
    required = _required(root)
    lacking = []
    for requirement in required:
        installed = version(requirement.name)
        if installed is None:
            lacking.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(installed, prereleases=True):
            lacking.append(
                f"{requirement.name} is {installed}, and {requirement.specifier} is needed"
            )
    if lacking:
        yield Finding("packages", ERROR, "; ".join(lacking), INSTALL)
    other = [
        f"{name} {installed} (tested: {wanted})"
        for name, wanted in _pinned(root).items()
        if (installed := version(name)) is not None and _public(installed) != _public(wanted)
    ]
    if other:
        shown = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        seen = f"{len(other)} other versions than those of constraints.txt: {shown}"
        yield Finding("versions", WARNING, seen, INSTALL)
    if required and not lacking and not other:
        yield Finding("packages", OK, f"{len(required)} required, with the versions tested")


def optional(needed: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Packages that a configuration needs: (module, what needs it)."""
    for module, why in dict.fromkeys(needed):
        if importlib.util.find_spec(module) is None:
            seen = f"{why} needs {module}, which is not installed"
            yield Finding("packages", ERROR, seen, PLACE + faults.installing(module))


def memory() -> Iterator[Finding]:
    """What is free, by the machine and by the control group that the process runs in."""
    machine = psutil.virtual_memory()
    free, whole = machine.available, machine.total
    limit, used = (_number(CGROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None and limit < whole:
        free, whole = min(free, max(limit - used, 0)), limit
    seen = f"{free / GB:.1f} of {whole / GB:.1f} GB free"
    if free < LITTLE_MEMORY:
        cure = "end what else runs here; or smaller micro-batches (trainer.max_tokens=1024) and "
        cure += "fewer cells at once"
        yield Finding("memory", WARNING, seen, cure)
    else:
        yield Finding("memory", OK, seen)


def gpus(devices: set[str], precisions: set[str]) -> Iterator[Finding]:
    """Whether the devices that are asked for are there.

    Parameters
    ----------
    devices, precisions
        ``trainer.device`` and ``trainer.precision`` of the cells.
    """
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, whole = torch.cuda.mem_get_info(i)
            seen = f"{torch.cuda.get_device_name(i)}, {free / GB:.1f} of {whole / GB:.1f} GB free, "
            seen += f"CUDA {torch.version.cuda}"
            busy = free < whole / 2
            cure = "nvidia-smi shows what else runs on it; choose another by CUDA_VISIBLE_DEVICES"
            yield Finding(f"GPU {i}", WARNING if busy else OK, seen, cure if busy else "")
        if "bf16" in precisions and not torch.cuda.is_bf16_supported(including_emulation=False):
            seen = "it has no bfloat16, which is emulated slowly"
            yield Finding("GPU", WARNING, seen, "trainer.precision=fp16")
        return
    wanted = sorted(device for device in devices if device.startswith("cuda"))
    card = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()
    if card and torch.version.cuda is None:
        seen = f"there is an NVIDIA driver, but torch {torch.__version__} is built for CPUs alone"
        cure = "install torch for CUDA, as its site says; then `python -m rdx doctor` again"
    elif card:
        seen = f"torch for CUDA {torch.version.cuda} finds no GPU, though there is a driver"
        cure = "look at nvidia-smi, CUDA_VISIBLE_DEVICES, and the driver's version: "
        cure += f"CUDA {torch.version.cuda} may need a newer one"
    else:
        seen, cure = "none", "trainer.device=auto takes the CPU"
    if wanted:
        yield Finding("GPU", ERROR, f"trainer.device={wanted[0]}: {seen}", cure)
    elif card:
        yield Finding("GPU", WARNING, seen, cure)
    else:
        yield from cpu(precisions)


def cpu(precisions: set[str]) -> Iterator[Finding]:
    """How fast this CPU trains the offline student, in each precision; a probe of a second."""
    for precision in sorted(precisions & {"bf16", "fp32"}):
        rate = counted(round(training_rate(precision)), "pair")
        seen = f"none; this CPU trains about {rate} a second with MiniLM in {precision}"
        if precision == "bf16" and not native_bf16("cpu"):
            seen += ", which it has no units for"
            yield Finding("GPU", WARNING, seen, "trainer.precision=auto")
        else:
            yield Finding("GPU", NOTE, seen)


def training_rate(precision: str, pairs: int = 16, tokens: int = 84) -> float:
    """Pairs a second of a training of MiniLM, from one of its six layers, forward and backward.

    Embeddings, head, loss and optimiser took as long as two layers more, on CPUs of both kinds.
    """
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, 0.0, "gelu", batch_first=True)
    states = torch.randn(pairs, tokens, 384, requires_grad=True)
    seconds = []
    for _ in range(3):  # the first is slower, as all that is new
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = layer(states)
        out.float().square().mean().backward()
        seconds.append(time.perf_counter() - start)
    return pairs / (8 * min(seconds))


def compiler(wanted: bool) -> Iterator[Finding]:
    """What torch.compile needs; it is tried, for a compiler may lack its headers."""
    if not wanted:
        return
    import torch

    command = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), "")
    if not shutil.which(command or "g++"):
        yield Finding(
            *("compiler", ERROR, "student.compile=true: there is no C++ compiler"),
            "install one (Debian: apt-get install g++) or name it by CXX; or student.compile=false",
        )
        return
    if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
        seen = "student.compile=true: the package triton is missing"
        yield Finding("compiler", ERROR, seen, "pip install triton, or student.compile=false")
        return
    compilation = subprocess.run(
        [command, "-x", "c++", "-fsyntax-only", "-"],
        input="#include <cmath>\n#include <vector>\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    if compilation.returncode:
        seen = f"{command} cannot compile: {(compilation.stderr.strip().splitlines() or ['?'])[0]}"
        yield Finding("compiler", ERROR, seen, "install its headers; or student.compile=false")
    else:
        yield Finding("compiler", OK, command)


def switches() -> Iterator[Finding]:
    """Variables of the environment that make loading models unsafe."""
    for name in UNSAFE:
        if os.environ.get(name, "0").lower() not in ("", "0", "false", "n", "no"):
            seen = f"{name} is set; rdx asks for weights only all the same, other programs do not"
            yield Finding("security", WARNING, seen, f"unset {name}")


def _required(root: Path) -> list[Requirement]:
    path = root / "pyproject.toml"
    if path.is_file():
        named = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        named = importlib.metadata.requires("rdx") or []
    requirements = map(Requirement, named)
    return [r for r in requirements if r.marker is None or r.marker.evaluate()]


def _pinned(root: Path) -> dict[str, str]:
    path = root / "constraints.txt"
    if not path.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    pairs = (line.partition(";")[0].split("==") for line in lines if "==" in line)
    return {canonicalize_name(name.strip()): version.strip() for name, version in pairs}


def _public(version: str) -> str:
    """Without "+cpu" and the like: builds of the same version."""
    return version.partition("+")[0]


def _number(path: Path) -> int | None:
    """The number in a file of the control group; None for "max", or where there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
