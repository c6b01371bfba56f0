"""A parser for the command lines of verbs, with errors of one line."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser without the usage before its errors, and with hints at misspelt options."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        hint = near(unknown, self._option_string_actions) if unknown[:1] == "-" else ""
        print(f"{self.prog}: {message}{hint}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def near(word: str, valid: Iterable[str]) -> str:
    """A hint at the valid word that looks most like a wrong one; "" if none does."""
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
