"""Let the analysis check the tables that an experiment asks for, before its cells cost anything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rdx import facts
from rdx.config import ConfigError
from rdx.facts import Outline


def experiment(overrides: Sequence[str]) -> str:
    """The experiment that a command line names; "" without one."""
    return next((o.partition("=")[2] for o in overrides if o.startswith("+experiments=")), "")


@contextmanager
def checked(overrides: Sequence[str]) -> Iterator[list[Outline]]:
    """Refuse, at the end, an experiment of which ``python -m analysis`` would make no table.

    What is yielded then holds what its spec tests; nothing without an experiment.

    The analysis knows what a spec may say, and rdx does not import it: a process is asked, which
    works while this one does what is inside.

    Raises
    ------
    ConfigError
        With what it says.
    """
    name = experiment(overrides)
    if not name or importlib.util.find_spec("analysis") is None:
        yield []
        return
    outlines: list[Outline] = []
    command = [sys.executable, "-m", "analysis", "--check", "--json", name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asked:
        try:
            yield outlines
        except BaseException:
            asked.kill()
            raise
        outline, told = asked.communicate()
    if asked.returncode:
        lines = told.strip().splitlines() or [f"exit status {asked.returncode}"]
        raise ConfigError(lines[-1].removeprefix("error: "))
    outlines.append(facts.parse(Outline, outline))
