"""What tells a language model from others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rdx import hub
from rdx.assets import ASSETS, PREFIX
from rdx.teachers.messages import Fatal, Identity

MODEL_FILES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}


def which(model: str, revision: str | None = None) -> Identity:
    """What tells a model from others: its name, without its place, and its revision.

    The revision is the checksum of an asset; of a folder, which is read for it; the commit of a
    model on the Hub.

    Raises
    ------
    Fatal
        If the Hub cannot tell.
    """
    if model.startswith(PREFIX):
        return {"model": model, "revision": ASSETS[model.removeprefix(PREFIX)].sha256}
    if Path(model).is_dir():
        return {"model": Path(model).name, "revision": _folder_digest(Path(model))}
    try:
        return {"model": model, "revision": hub.commit(model, revision)}
    except hub.HubError as error:
        raise Fatal(f"teacher.backend.{error}") from error


def _folder_digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in MODEL_FILES and path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()
