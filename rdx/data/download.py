"""Downloads that go on where they were cut, and are kept only if their checksum is right."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rdx.bars import bar
from rdx.faults import Mendable

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
TRIES = 5  # without a single new byte


class DownloadError(Mendable, OSError):
    """A file that could not be fetched, or is not the one that was meant."""


def download(
    address: str,
    path: Path,
    md5: Collection[str] = (),
    headers: Mapping[str, str] | None = None,
    pause: float = 1.0,
) -> None:
    """Fetch a file; what a cut connection or a killed process left is kept and gone on from.

    Parameters
    ----------
    address
        Of the file, http or https.
    path
        Where to put it. Until it is whole and right it is called PATH.part.
    md5
        Sums that the file may have; none: it is not checked. A file with another sum is kept as
        PATH.refused, to be looked at.
    headers
        Sent with every request.
    pause
        Seconds before the second try, doubled with every one that brings nothing.

    Raises
    ------
    DownloadError
        If the server refuses, five tries in a row bring nothing, the disk is too small, or the
        sum is wrong (the message has both).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    failed = 0
    while True:
        before = _size(part)
        try:
            whole, problem = _go_on(address, part, dict(headers or {})), "the connection was cut"
        except (OSError, HTTPException) as error:
            if isinstance(error, DownloadError):
                raise
            whole, problem = False, str(error)
        if whole:
            break
        failed = failed + 1 if _size(part) == before else 0
        if failed == TRIES:
            raise DownloadError(
                f"{address}: {problem}; {_size(part):,} bytes are kept in {part}, from which the "
                "same command goes on"
            )
        if failed:
            time.sleep(pause * 2 ** (failed - 1))
    _accept(part, path, md5, address)


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class locked:
    """A lock on a file, for one process at a time; who waits says what for."""

    def __init__(self, path: Path, what: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock, self.what = FileLock(path), what

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=1)
        except Timeout:
            print(f"waiting for another process that fetches {self.what}", flush=True)
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _go_on(address: str, part: Path, headers: dict[str, str]) -> bool:
    """Append what is still lacking; whether the file is whole now."""
    have = _size(part)
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        return _refused(error, address, part, have)
    with answer:
        whole = answer.status == 206
        if whole and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise DownloadError(f"{address}: the server sent another range than bytes {have}-")
        start = have if whole else 0  # a server without ranges sends all of it again
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if total is not None:
            _check_room(part, total - start, address)
        return _append(answer, part, start, total)


def _append(answer: Any, part: Path, start: int, total: int | None) -> bool:
    with (
        part.open("ab" if start else "wb") as file,
        bar(initial=start, total=total, unit="B", unit_scale=True, desc=part.stem) as shown,
    ):
        while block := answer.read(BLOCK):
            file.write(block)
            shown.update(len(block))
    return total is None or _size(part) == total


def _refused(error: urllib.error.HTTPError, address: str, part: Path, have: int) -> bool:
    """What a status of 400 or more means: False if it is worth trying again."""
    if error.code == 416:  # nothing beyond what is there: whole, or of another file
        if error.headers.get("Content-Range", "") in ("", f"bytes */{have}"):
            return True
        part.unlink()
        return False
    if error.code >= 500 or error.code in (408, 429):
        return False
    raise DownloadError(f"{address}: {error.code} {error.reason}") from error


def _accept(part: Path, path: Path, md5: Collection[str], address: str) -> None:
    found = md5_of(part) if md5 else ""
    if md5 and found not in md5:
        refused = path.with_name(f"{path.name}.refused")
        os.replace(part, refused)
        raise DownloadError(
            f"{address}: md5 {found}, expected {' or '.join(md5)}; the file is kept as {refused}"
        )
    os.replace(part, path)


def _check_room(part: Path, needed: int, address: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DownloadError(
            f"{address}: {needed / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free in "
            f"{part.parent}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
