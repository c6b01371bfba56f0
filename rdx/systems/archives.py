"""Find run files in a folder or an archive by patterns of their paths, and register them."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from rdx import config, rankings
from rdx.rankings.trec import Order
from rdx.systems.records import register
from rdx.systems.runs import Run
from rdx.systems.testbed import Testbed

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PLACES = re.compile(r"(\{name\}|\{collection\}|\*)")


@dataclass(frozen=True)
class Archive:
    """Run files of an archive.

    Attributes
    ----------
    runs
        Name of a system -> collection -> its file.
    others
        How many files no pattern matches.
    """

    runs: Mapping[str, Mapping[str, Path]]
    others: int


@contextmanager
def opened(place: Path, patterns: Sequence[str], collections: Sequence[str]) -> Iterator[Archive]:
    """The runs in a folder or tar archive whose paths match.

    Parameters
    ----------
    place
        The folder or archive. Of an archive, the files that match are unpacked to a temporary
        folder under names of our own: no path of the archive is ever written to, and links are
        not followed.
    patterns
        Each of the form ``[COLLECTION:]PATH``, PATH relative to `place` (in an archive, as it is
        listed there) with ``{name}`` for the system, perhaps ``{collection}``, and ``*`` for
        anything; none of them goes over a ``/``. COLLECTION is needed where there are several and
        PATH has no ``{collection}``.
    collections
        Names of the collections.

    Raises
    ------
    ConfigError
        If a pattern lacks ``{name}`` or a collection, or no file matches.
    FormatError
        If an archive cannot be read or holds a path that leads out of it, or two files are the
        run of one system and collection.
    """
    compiled = [_compiled(pattern, collections) for pattern in patterns]
    if place.is_dir():
        files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*"))}
        yield _matching({name: path for name, path in files.items() if path.is_file()}, compiled)
    elif place.is_file() and place.name.endswith(ARCHIVES):
        with TemporaryDirectory(prefix="rdx-import-") as folder:
            wanted = any_of(compiled)
            yield _matching(_unpacked(place, wanted, Path(folder)), compiled)
    else:
        raise config.ConfigError(
            f"{place}: neither a folder nor an archive ({', '.join(ARCHIVES)})"
        )


Match = Callable[[str], tuple[str, str] | None]


def any_of(compiled: Sequence[Match]) -> Callable[[str], bool]:
    """Whether one of the patterns matches a path."""
    return lambda path: any(match(path) for match in compiled)


def register_all(
    testbed: Testbed,
    archive: Archive,
    naming: str = "{name}",
    order: Order = "score",
    drop_outside: bool = False,
    source: str = "",
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Register every system; one that fails does not stop the others.

    Yields
    ------
    name, collections, error
        `naming` with the system's name put in; error is "" if it was registered.
    """
    for name, files in archive.runs.items():
        registered = naming.replace("{name}", name)
        runs = {collection: Run(str(path), order) for collection, path in files.items()}
        try:
            register(testbed, registered, runs, drop_outside, source)
        except (rankings.FormatError, config.ConfigError, OSError) as error:
            yield registered, tuple(runs), str(error)
        else:
            yield registered, tuple(runs), ""


def _compiled(pattern: str, collections: Sequence[str]) -> Match:
    """Path -> (system, collection), or None if the pattern does not match."""
    head, colon, path = pattern.partition(":")
    fixed = head if colon and head in collections else None
    path = path if fixed else pattern
    if "{name}" not in path:
        raise config.ConfigError(f"{pattern}: needs {{name}} where the name of the system stands")
    if fixed is None and "{collection}" not in path:
        if len(collections) > 1:
            raise config.ConfigError(
                f"{pattern}: for which collection? COLLECTION:PATTERN or {{collection}} in it; "
                f"of {', '.join(collections)}"
            )
        fixed = collections[0]
    seen: set[str] = set()
    parts = []
    for part in PLACES.split(path.removeprefix("./")):
        key = part.strip("{}")
        if part == "*":
            parts.append("[^/]*")
        elif not PLACES.fullmatch(part):
            parts.append(re.escape(part))
        elif key in seen:
            parts.append(f"(?P={key})")
        else:
            parts.append(f"(?P<{key}>[^/]+)" if key == "name" else _one_of(collections))
            seen.add(key)
    expression = re.compile("".join(parts))

    def match(path: str) -> tuple[str, str] | None:
        hit = expression.fullmatch(path)
        return (hit["name"], fixed or hit["collection"]) if hit else None

    return match


def _one_of(collections: Sequence[str]) -> str:
    return f"(?P<collection>{'|'.join(map(re.escape, collections))})"


def _unpacked(archive: Path, wanted: Callable[[str], bool], folder: Path) -> dict[str, Path]:
    """Path in the archive -> file; those that are not wanted are listed, but not unpacked."""
    files: dict[str, Path] = {}
    try:
        with tarfile.open(archive) as tar:
            for number, member in enumerate(tar):
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise rankings.FormatError(
                        f"{archive}: {member.name!r} leads out of the archive; nothing is imported"
                    )
                if not member.isfile():
                    continue
                target = folder / str(number) / path.name
                if wanted(str(path)):
                    target.parent.mkdir()
                    content = tar.extractfile(member)
                    assert content is not None  # of a regular file there is one
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
                files[str(path)] = target
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, rankings.FormatError):
            raise
        raise rankings.FormatError(f"{archive}: cannot be read: {error}") from error
    return files


def _matching(files: Mapping[str, Path], compiled: Sequence[Match]) -> Archive:
    runs: dict[str, dict[str, Path]] = {}
    others = 0
    for name, path in sorted(files.items()):
        hits = {hit for match in compiled if (hit := match(name))}
        others += not hits
        for system, collection in sorted(hits):
            files_of_system = runs.setdefault(system, {})
            if collection in files_of_system:
                raise rankings.FormatError(
                    f"{name}: a second run of {system!r} for {collection}; narrow the pattern"
                )
            files_of_system[collection] = path
    if not runs:
        some = ", ".join(sorted(files)[:3]) or "nothing"
        raise config.ConfigError(f"no file matches; there is {some}, ...")
    return Archive(runs, others)
