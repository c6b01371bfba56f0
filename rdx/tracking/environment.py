"""What the numbers of a trial may depend on: software, code version, hardware."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil


def environment() -> dict[str, Any]:
    """Return Python, packages, git commit and dirty flag, CPU, memory, and GPU names.

    GPUs and torch's thread count are given only where torch is loaded already; nothing heavy is
    imported here. The rest is read once per process: that is the code that is running.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return {**machine(), "gpus": [], "torch_threads": None}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(i) for i in range(count)]
    return {**machine(), "gpus": gpus, "torch_threads": torch.get_num_threads()}


@functools.cache
def machine() -> dict[str, Any]:
    """Return the part of the environment that cannot change while the process runs."""
    packages = {d.name: d.version for d in importlib.metadata.distributions() if d.name}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "git": _git(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _git() -> dict[str, Any]:
    """Return commit and dirty flag of rdx's checkout; both None without git or a checkout."""

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1) if found else platform.machine()
