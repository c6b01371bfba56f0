"""SmolLM2 behind a real OpenAI-compatible server, `transformers serve`, for slow tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rdx.teachers.models import load_causal

# As the command `transformers`, which would first look for updates of itself.
SERVE = "from transformers.cli.transformers import app; app()"


def saved_smollm2(folder: Path) -> tuple[Any, Any]:
    """Save the model as safetensors: the server does not read GGUF. Gives tokeniser and model."""
    tokenizer, model = load_causal("asset:SmolLM2-135M-Instruct", "fp32", "cpu")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer, model


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextmanager
def transformers_serve(model: str, log: Path) -> Iterator[str]:
    """`transformers serve MODEL` on loopback, until the block ends; gives its base_url."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | offline)
        try:
            end = time.monotonic() + 300
            while not healthy(f"http://127.0.0.1:{port}/health"):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False
