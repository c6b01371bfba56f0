"""A parser for the command lines of verbs, with errors of one line."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser without the usage before its errors, and with hints at misspelt options.

    It refuses blank words, which a variable that is not set gives: as a folder, one would be the
    working folder.
    """

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """As of `argparse`."""
        return super().parse_args(self._named(args), namespace)

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """As of `argparse`."""
        return super().parse_intermixed_args(self._named(args), namespace)

    def _named(self, args: Sequence[str] | None) -> list[str]:
        words = list(sys.argv[1:] if args is None else args)
        for before, word in zip(("", *words), words, strict=False):
            option, equals, value = word.partition("=")
            if not word.strip() or (option.startswith("--") and equals and not value.strip()):
                place = option.strip() or before or "a word"
                self.error(f"{place}: no value; is a variable not set?")
        return words

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
