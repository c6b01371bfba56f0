"""Download files of many gigabytes: resume what was cut, in this process or in another one.

The libraries do less: pooch starts a cut download again from its first byte and takes one checksum
of a file; ir_datasets and huggingface_hub's `http_get` resume within a process, and the latter only
while the Hub may be asked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path

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
    """Fetch a file, going on from what a cut connection or a killed process left.

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
    failures = 0  # in a row
    whole = False
    while not whole:
        before, problem = _size(part), "the connection was cut"
        try:
            whole = _resume(address, part, dict(headers or {}))
        except DownloadError:
            raise
        except (OSError, HTTPException) as error:
            problem = str(error)
        failures = failures + 1 if _size(part) == before and not whole else 0
        if failures == TRIES:
            raise DownloadError(
                f"{address}: {problem}; {_size(part):,} bytes are kept in {part}, from which the "
                "same command goes on"
            )
        if failures:
            time.sleep(pause * 2 ** (failures - 1))
    _accept(part, path, md5, address)


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file; a process that waits for it prints what for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"waiting for another process that fetches {what}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _resume(address: str, part: Path, headers: dict[str, str]) -> bool:
    """Append what is still missing; whether the file is whole now."""
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
        partial = answer.status == 206
        if partial and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise DownloadError(f"{address}: the server sent another range than bytes {have}-")
        start = have if partial else 0  # a server without ranges sends all of it again
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if total is not None:
            _check_room(part, total - start, address)
        return _append(answer, part, start, total)


def _append(answer: HTTPResponse, part: Path, start: int, total: int | None) -> bool:
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
    actual = md5_of(part) if md5 else ""
    if md5 and actual not in md5:
        refused = path.with_name(f"{path.name}.refused")
        os.replace(part, refused)
        raise DownloadError(
            f"{address}: md5 {actual}, expected {' or '.join(md5)}; the file is kept as {refused}"
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
