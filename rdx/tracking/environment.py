"""The environment of a trial: software, code version, hardware, seeds, switches."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from rdx.folders import ROOT
from rdx.security import filtered, hidden

DRIVER = Path("/proc/driver/nvidia/version")
# What decides versions of packages, whichever of them a checkout has.
LOCKS = ("constraints.txt", "pyproject.toml")
# Where untracked files are code of the harness, and those of them that are shown whole.
CODE = ("analysis", "conf", "experiments", "hydra_plugins", "rdx")
SUFFIXES = (".py", ".yaml")
MOST = 1_000_000  # characters of a difference that are kept
# Variables that decide numbers or speed; no others are recorded.
SWITCHES = (
    *("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE"),
    *("OMP_NUM_THREADS", "PYTHONHASHSEED", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
    *("RDX_EXTENSIONS", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)


def environment(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return Python, packages, locks, git state, hardware, driver, seeds, determinism.

    What torch knows is given only where torch is loaded already; nothing heavy is imported here.
    The rest is read once per process: that is the code that is running.

    Parameters
    ----------
    config
        The resolved configuration; its seeds are listed by their keys.
    """
    return {
        **machine(),
        **_of_torch(),
        "seeds": dict(_seeds(config or {})),
        "variables": {name: hidden(os.environ[name]) for name in SWITCHES if name in os.environ},
    }


@functools.cache
def machine() -> dict[str, Any]:
    """Return the part of the environment that cannot change while the process runs."""
    packages = {d.name: d.version for d in importlib.metadata.distributions() if d.name}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "git": _git(),
        "locks": {name: _sha256(ROOT / name) for name in LOCKS if (ROOT / name).is_file()},
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "driver": driver(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


@functools.cache
def uncommitted() -> str:
    """Return how the code that runs differs from its commit, secrets taken out; "" if it does not.

    A patch of the tracked files and of the untracked ones that are code or configuration of the
    harness, cut at `MOST` characters; other untracked files are named only. Without git or a
    checkout: "".
    """
    try:
        parts = [_ask("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--relative")]
        untracked = _ask("ls-files", "--others", "--exclude-standard", "-z").split("\0")
    except (OSError, subprocess.SubprocessError):
        return ""
    left = []
    for name in filter(None, untracked):
        path = ROOT / name
        code = name.startswith(tuple(f"{folder}/" for folder in CODE)) and name.endswith(SUFFIXES)
        if code and path.is_file() and path.stat().st_size < MOST:
            parts.append(_added(name, path.read_text(encoding="utf-8", errors="replace")))
        else:
            left.append(f"# untracked, not shown: {name}")
    text = filtered("\n".join(part for part in (*parts, *left) if part))
    return text if len(text) <= MOST else f"{text[:MOST]}\n# cut: {len(text)} characters in all\n"


def driver() -> str | None:
    """Return the version of the NVIDIA driver; None without one."""
    try:
        text = DRIVER.read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return match.group(1) if match else text.splitlines()[0]


def _of_torch() -> dict[str, Any]:
    """Return GPUs, threads and determinism as torch has them; empty where it is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"gpus": [], "torch_threads": None, "cuda": None, "determinism": None}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(i) for i in range(count)]
    cudnn = torch.backends.cudnn
    return {
        "gpus": [gpu.name for gpu in gpus],
        "gpu_memory_bytes": [gpu.total_memory for gpu in gpus],
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version() if count else None,
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": cudnn.deterministic,
            "cudnn_benchmark": cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
    }


def _seeds(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every key ``seed`` of a configuration, with its place."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = f"{where}.{key}" if where else str(key)
            if key == "seed":
                yield place, value
            else:
                yield from _seeds(value, place)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _seeds(value, f"{where}[{i}]")


def _git() -> dict[str, Any]:
    """Return commit and dirty flag of rdx's checkout; both None without git or a checkout."""
    try:
        commit, dirty = _ask("rev-parse", "HEAD"), bool(_ask("status", "--porcelain"))
        return {"commit": commit.strip(), "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _ask(*arguments: str) -> str:
    if not (ROOT / "rdx").is_dir():  # installed, perhaps inside a repository of somebody else
        raise FileNotFoundError("no checkout")
    return subprocess.run(
        ["git", *arguments],
        cwd=ROOT,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=10,
    ).stdout


def _added(name: str, text: str) -> str:
    """A new file as a patch has it."""
    lines = text.splitlines()
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
    body = "".join(f"+{line}\n" for line in lines)
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{body}" if lines else head


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match.group(1) if match else platform.machine()
