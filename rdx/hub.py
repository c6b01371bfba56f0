"""Get models from the Hugging Face Hub: commit of a revision, files, and errors with their cure.

A model is downloaded as a folder of one commit, and everything is loaded from that folder, so that
weights, tokeniser and configuration cannot come from two commits. huggingface_hub keeps the
cache (HF_HOME), the token (`hf auth login`, HF_TOKEN) and the address (HF_ENDPOINT).
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rdx.faults import Mendable

COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"
SECONDS = 5.0  # to wait for an answer about a model
ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
# What a folder needs beside its weights: configurations, vocabularies, chat templates; ColBERT's
# artifact.metadata; and the numbered modules of sentence-transformers (1_Dense).
BESIDE = re.compile(r"[^/]+\.(json|txt|model|jinja|metadata)|\d+_\w+/[^/]+\.(json|safetensors|bin)")
# As Transformers prefers them.
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
INDEX = ".index.json"


class HubError(Mendable, ValueError):
    """A model that cannot be had from the Hub: the problem and its cure, in one line."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem}; {cure}")
        self.problem, self.cure = problem, cure


class Unreachable(HubError):
    """No answer: there is no network, the Hub is down, or HF_HUB_OFFLINE forbids to ask."""


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit.

    Attributes
    ----------
    files
        Bytes by name; None = unknown.
    """

    commit: str
    files: Mapping[str, int | None]


@dataclass(frozen=True)
class Weights:
    """The files of a model's weights, their bytes, and whether all are in the cache."""

    files: tuple[str, ...]
    size: int
    cached: bool


@dataclass
class _Answers:
    """Answers of the Hub to this process: nothing is asked twice, and a silent Hub only once."""

    listings: dict[tuple[str, str], Listing | HubError] = field(default_factory=dict)
    silent: Unreachable | None = None


_answers = _Answers()


def is_id(model: str) -> bool:
    """Whether a model comes from the Hub: it is no asset, and no folder of this name is there."""
    return ID.fullmatch(model) is not None and not Path(model).exists()


def commit(model: str, revision: str | None = None) -> str:
    """Resolve a revision (None = "main") to its commit: by the Hub, else by the cache.

    The Hub is asked once per process; a revision that is a commit is not asked for.

    Raises
    ------
    HubError
        If neither knows it.
    """
    name = revision or MAIN
    if COMMIT.fullmatch(name):
        return name
    answer = _answer(model, name)
    if isinstance(answer, Listing):
        return answer.commit
    known = _cached_commit(model, name)
    if known is None:
        raise answer
    return known


def available(model: str, revision: str | None = None) -> Weights:
    """Find the weights of a model, in the cache or on the Hub, and download nothing.

    Raises
    ------
    HubError
        If they cannot be had: no such model, revision or file, no access, or no Hub.
    """
    known = commit(model, revision)
    try:
        cached = _cached(model, known)
        names = _weights(model, cached, _folder(model, known))
        return Weights(names, sum(cached.files[name] or 0 for name in names), True)
    except HubError as error:
        incomplete = error
    answer = _answer(model, known)
    if isinstance(answer, HubError):
        raise incomplete if isinstance(answer, Unreachable) else answer
    names = _weights(model, answer, None)
    for name in names[:1]:
        _head(model, answer.commit, name)
    return Weights(names, sum(answer.files[name] or 0 for name in names), False)


def snapshot(model: str, revision: str | None = None) -> Path:
    """Download a model at one commit, as far as it is not in the cache; return its folder.

    Raises
    ------
    HubError
        If it cannot be had, or a download breaks off.
    """
    known = commit(model, revision)
    answer = _answer(model, known, again=True)
    folder = _folder(model, known)
    if isinstance(answer, Listing):
        listing = answer
    elif isinstance(answer, Unreachable) or folder.is_dir():
        listing = _cached(model, known)
    else:
        raise answer
    for name in filter(BESIDE.fullmatch, listing.files):
        _download(model, known, name)
    for name in _weights(model, listing, folder):
        _download(model, known, name)
    remember(model, known)
    return folder


def cached(model: str, revision: str | None = None) -> Path | None:
    """The folder in the cache of what a revision was when it was downloaded; the Hub is not asked.

    None if the cache does not know the revision.
    """
    name = revision or MAIN
    known = name if COMMIT.fullmatch(name) else _cached_commit(model, name)
    return None if known is None else _folder(model, known)


def remember(model: str, commit: str) -> None:
    """Note in the cache which names, such as "main", stand for a commit: for times without the Hub.

    huggingface_hub does so for what is downloaded by name; here it is downloaded by commit.
    """
    for (of_model, name), answer in _answers.listings.items():
        if of_model == model and isinstance(answer, Listing) and commit == answer.commit != name:
            path = _repository(model) / "refs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit)


def _answer(model: str, revision: str, again: bool = False) -> Listing | HubError:
    """Ask the Hub about a revision, once; `again` repeats it where the Hub did not answer."""
    key = (model, revision)
    before = _answers.listings.get(key)
    if again and isinstance(before, Unreachable) and not _offline():
        before = _answers.silent = None
    if before is None and COMMIT.fullmatch(revision):
        of_model = (answer for (name, _), answer in _answers.listings.items() if name == model)
        before = next((a for a in of_model if getattr(a, "commit", "") == revision), None)
    if before is None:
        try:
            before = _answers.silent or _ask(model, revision)
        except Unreachable as error:
            before = _answers.silent = error
        except HubError as error:
            before = error
        _answers.listings[key] = before
    return before


def _ask(model: str, revision: str) -> Listing:
    from huggingface_hub import HfApi

    if _offline():
        problem = (
            f"model={model}: not in the cache of the Hub, and HF_HUB_OFFLINE forbids to ask it"
        )
        raise Unreachable(problem, f"unset HF_HUB_OFFLINE, or give a folder{_near(model)}")
    with _explained(model, revision):
        info = HfApi().model_info(model, revision=revision, timeout=SECONDS, files_metadata=True)
    files = {file.rfilename: file.size for file in info.siblings or ()}
    return Listing(str(info.sha), files)


def _head(model: str, commit: str, name: str) -> None:
    """Ask for a file without reading it: a gated model shows its list to all, and no file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _explained(model, commit, name):
        get_hf_file_metadata(hf_hub_url(model, name, revision=commit), timeout=SECONDS)


def _download(model: str, commit: str, name: str) -> None:
    """Fetch a file into the cache if it is not there; huggingface_hub resumes what breaks off."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars

    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        disable_progress_bars()
    with _explained(model, commit, name):
        path = _folder(model, commit) / name
        damaged = path.is_file() and not _whole(path)
        hf_hub_download(model, name, revision=commit, force_download=damaged)


@contextmanager
def _explained(model: str, revision: str, name: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into a `HubError`, and keep its log to what matters."""
    from huggingface_hub import constants, errors

    # the class of its HTTP client's own errors; which client that is depends on its version
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    for noisy in ("httpx", "httpx2"):  # a line per request
        logging.getLogger(noisy).setLevel(logging.WARNING)
    place, hub = f"model={model}" + (f": {name}" if name else ""), constants.ENDPOINT
    login = "`hf auth login`, or HF_TOKEN in the environment"
    try:
        yield
    except errors.GatedRepoError as error:
        problem = f"{place}: the model is gated, and "
        if error.response.status_code == 401:
            problem += "nobody is logged in"
        else:
            problem += "the account of the token in use has no access"
        raise HubError(problem, f"accept its licence at {hub}/{model}, then {login}") from error
    except errors.RevisionNotFoundError as error:
        problem = f"{place}: no revision {revision!r} on the Hub"
        raise HubError(problem, "give a branch, a tag or a whole commit (40 digits)") from error
    except errors.RepositoryNotFoundError as error:
        problem = f"{place}: no such model at {hub}, or a private one"
        raise HubError(
            problem, f"check the name{_near(model)}; if it is private: {login}"
        ) from error
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(model, place, hub, error.__cause__ or error) from error
        raise HubError(f"{place}: no such file at revision {revision}", "try another") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise HubError(f"{place}: {hub} does not take the token", f"{login} anew") from error
        cure = "ask its owner for access" if status == 403 else "try again later"
        raise HubError(f"{place}: {hub} answers HTTP {status}", cure) from error
    except (transport, ConnectionError, TimeoutError) as error:
        raise _unreachable(model, place, hub, error) from error
    except OSError as error:  # the disk is full; fewer bytes than there should be
        reason = error.strerror or str(error).splitlines()[0].split(" (")[0]
        cure = "run the same command again: whole files are kept (df -h tells the room)"
        raise HubError(f"{place}: the download broke off: {reason}", cure) from error


def _unreachable(model: str, place: str, hub: str, error: BaseException) -> Unreachable:
    return Unreachable(
        f"{place}: the Hub at {hub} cannot be reached ({type(error).__name__})",
        f"check the network and HF_ENDPOINT, or give a folder{_near(model)}",
    )


def _near(model: str) -> str:
    """A model's name may be meant as a folder, which is not there."""
    return f" (there is no folder {model!r} here)"


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.is_offline_mode()


def _repository(model: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")


def _folder(model: str, commit: str) -> Path:
    return _repository(model) / "snapshots" / commit


def _cached_commit(model: str, name: str) -> str | None:
    path = _repository(model) / "refs" / name
    text = path.read_text().strip() if path.is_file() else ""
    return text if COMMIT.fullmatch(text) else None


def _cached(model: str, commit: str) -> Listing:
    """What the cache has of a commit, which may be less than the whole."""
    folder = _folder(model, commit)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and _whole(path)]
    if not paths:
        problem = f"model={model}: commit {commit[:12]} is not in the cache of the Hub"
        raise HubError(problem, f"{_when()}, or give a folder{_near(model)}")
    return Listing(commit, {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths})


def _whole(path: Path) -> bool:
    """Whether a file of safetensors is as long as its header says; others are not looked into."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy"):
                pass
    except SafetensorError:
        return False
    return True


def _when() -> str:
    return "unset HF_HUB_OFFLINE" if _offline() else "run this where the Hub can be reached"


def _weights(model: str, listing: Listing, folder: Path | None) -> tuple[str, ...]:
    """Names of the files of the weights.

    Parameters
    ----------
    folder
        Holds the index of a model of several files, which names them; None = it is not downloaded,
        and the files are known by their numbers.

    Raises
    ------
    HubError
        If there are none, or not all.
    """
    chosen = next((name for name in WEIGHTS if name in listing.files), None)
    if chosen is None:
        gguf = [name for name in listing.files if re.fullmatch(r"[^/]+\.gguf", name)]
        if len(gguf) == 1 or any(re.match(r"\d+_\w+/", name) for name in listing.files):
            return tuple(gguf)
        problem = f"model={model}: {f'{len(gguf)} GGUF files' if gguf else 'no weights'} at commit "
        wanted = "give a folder with one of them" if gguf else f"one of {list(WEIGHTS)} is needed"
        raise HubError(f"{problem}{listing.commit[:12]}", wanted)
    if not chosen.endswith(INDEX):
        return (chosen,)
    stem, _, ending = chosen.removesuffix(INDEX).rpartition(".")
    if folder is None:
        numbered = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{ending}")
        return tuple(sorted(filter(numbered.fullmatch, listing.files)))
    if not (folder / chosen).is_file():
        _download(model, listing.commit, chosen)
    index = json.loads((folder / chosen).read_text(encoding="utf-8"))
    names = tuple(sorted(set(index["weight_map"].values())))
    if absent := [name for name in names if name not in listing.files]:
        problem = (
            f"model={model}: {len(absent)} of {len(names)} files of the weights are missing at "
        )
        problem += f"commit {listing.commit[:12]}, the first is {absent[0]}"
        raise HubError(problem, _when())
    return names
