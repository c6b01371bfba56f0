"""Print errors for users: one line on the screen, the traceback in a log.

What a user can mend is a `Mendable` error or an `OSError`; its message says all. Every other error
is one of the program: the line also names its class. HYDRA_FULL_ERROR=1 shows tracebacks.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from rdx import security, stopping

FULL = "HYDRA_FULL_ERROR"
UNCONSTRAINED = ("plaid", "vllm")  # extras whose wheels want a certain torch
_LOG = "rdx_log"  # attribute of an error: the file with its traceback


class Mendable(Exception):
    """What the user can mend: the message names file, line or key, and the cure."""


class Diverged(Mendable, RuntimeError):
    """The loss of a training is not finite any more."""


class Ended(BaseException):
    """The failure of a cell that is run alone; no `Exception`, so that Hydra lets it pass."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def line(error: BaseException) -> str:
    """An error in one line, without keys and passwords; paths of the working folder as typed."""
    text = " ".join(_message(error).split())
    return security.hidden(text.replace(f"{os.getcwd()}{os.sep}", ""))


def _message(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and extra_of(error.name or ""):
        return f"{error.name} is not installed: {installing(error.name or '')}"
    if (mark := getattr(error, "problem_mark", None)) is not None:  # of a YAML file
        return f"{mark.name}:{mark.line + 1}: {error.problem}"  # type: ignore[attr-defined]
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8: {error.object[error.start :][:20]!r}"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, Mendable | OSError) or type(error) is ValueError:
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def installing(module: str) -> str:
    """The command that installs an optional module, by the extra of rdx that has it if one does."""
    extra = extra_of(module)
    if not extra:
        return f"pip install {module}"
    constraints = "" if extra in UNCONSTRAINED else "-c constraints.txt "
    return f"pip install {constraints}-e '.[{extra}]'"


def extra_of(module: str) -> str:
    """The extra of rdx that installs a module, by the metadata of the package; "" if none does."""
    for text in metadata.requires("rdx") or []:
        requirement = Requirement(text)
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        if extra and requirement.name.replace("-", "_") == module:
            return extra[1]
    return ""


def full() -> bool:
    """Whether tracebacks are wanted on the screen."""
    return os.environ.get(FULL, "") not in ("", "0")


def keep_log(error: BaseException, path: Path) -> None:
    """Write the traceback of an error to a file, which `log_of` then names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(security.hidden("".join(traceback.format_exception(error))))
    vars(error)[_LOG] = str(path)


def log_of(error: BaseException) -> str:
    """Where the traceback of an error was written; "" if nowhere."""
    return str(getattr(error, _LOG, ""))


def report(error: BaseException) -> str:
    """The line of an error and where its traceback is; writes that of a fault of the program."""
    mendable = isinstance(error, Mendable | OSError | ModuleNotFoundError)
    if not (log_of(error) or mendable or hasattr(error, "problem_mark")):
        with tempfile.NamedTemporaryFile(prefix="rdx-", suffix=".log", delete=False) as file:
            keep_log(error, Path(file.name))
    log = log_of(error)
    return line(error) + (f" (traceback: {log}, or {FULL}=1)" if log else "")


@contextmanager
def ended(program: str = "rdx", status: int = 1) -> Iterator[None]:
    """End the program with one line and a status when what is inside fails or is stopped."""
    try:
        yield
    except SystemExit as end:
        if stopping.status() is not None:
            sys.exit(stopping.status())
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            sys.exit(status)
        raise
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(status)
    except (Exception, KeyboardInterrupt, Ended) as end:
        if stopping.status() is not None or isinstance(end, KeyboardInterrupt):
            sys.exit(stopping.status() or 130)
        error = end.error if isinstance(end, Ended) else end
        if full():
            raise error from error.__cause__
        print(f"{program}: {report(error)}", file=sys.stderr)
        sys.exit(status)
