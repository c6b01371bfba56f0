"""Where options and experiments lie: in the working folder first, then in rdx's own folder."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# The checkout; of an installed rdx the package itself, into which setup.py copies the same files.
ROOT = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF = ROOT / "conf"
PROMPTS = "teacher/prompts"  # lies among config groups, and is none: templates for teacher.prompt
FULL = 100_000_000  # bytes free of a disk that nothing should be begun on
EXPERIMENTS = "experiments"  # the config group whose options do not lie in conf/


def homes() -> list[Path]:
    """Folders with a conf/ or an experiments/: the working folder, if it has one, then rdx's."""
    here = Path.cwd()
    own = here != ROOT and any((here / name).is_dir() for name in ("conf", EXPERIMENTS))
    return [here, ROOT] if own else [ROOT]


def place(home: Path, config_path: str) -> Path:
    """The folder of a group, or the file of an option but its suffix, in one of `homes`."""
    group = config_path.split("/", 1)[0]
    return home / config_path if group == EXPERIMENTS else home / "conf" / config_path


def options(group: str) -> dict[str, Path]:
    """Name of every option of a group to its file; the user's own replace rdx's.

    What begins with "_" is a part of options, and none itself.
    """
    files: dict[str, Path] = {}
    for home in reversed(homes()):
        files |= {path.stem: path for path in place(home, group).glob("[!_]*.yaml")}
    return dict(sorted(files.items()))


def is_group(config_path: str) -> bool:
    """Whether there is such a config group."""
    return any(place(home, config_path).is_dir() for home in homes())


def experiment(name: str) -> Path | None:
    """The file of an experiment: what ends in .yaml is a path, all else the name of an option."""
    path = Path(name) if name.endswith(".yaml") else options(EXPERIMENTS).get(name)
    return path if path is not None and path.is_file() else None


def title(name: str) -> str:
    """The name of an experiment that may be given by the path of its file."""
    return Path(name).name.removesuffix(".yaml")


def shown(name: str) -> str:
    """The file of an experiment as messages name it."""
    return name if name.endswith(".yaml") else f"{EXPERIMENTS}/{name}.yaml"


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def unwritable(path: Path) -> str:
    """Why no folder can be made or filled at a path; "" if one can. Nothing is written."""
    try:
        place = existing(path)
        if not place.is_dir():
            return f"{place} is a file, and must be a folder"
        if not os.access(place, os.W_OK | os.X_OK):
            return f"{place} cannot be written by this user"
        free = shutil.disk_usage(place).free
    except OSError as error:
        return f"{error.filename or path}: {error.strerror or error}"
    return f"the disk of {place} is full: {free / 1e6:.0f} MB are free" if free < FULL else ""


def encoded(path: Path | str) -> str:
    """A path as it stands in an address, where these characters would mean something else."""
    return re.sub("[%?#]", lambda letter: f"%{ord(letter[0]):02X}", str(path))


def is_address(place: str) -> bool:
    """Whether a place is an address, SCHEME:/..., and no path; folders may have any name."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", place) is not None
