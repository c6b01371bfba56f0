"""Keys and passwords: recognised by name and form, refused in configurations, hidden in texts.

A leaf: plain values in, plain values out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SHORTEST = 8  # characters of a secret; "none" or "EMPTY", which local servers want, are no secrets
HIDDEN = "[hidden]"
# Of environment variables: OPENAI_API_KEY, HF_TOKEN, MLFLOW_TRACKING_PASSWORD, ...
_NAMES = re.compile(r"(?i)(^|_)(api_?key|key|token|secret|password|passwd|credentials?)(_id)?$")
# The forms that services give their keys, and what stands before a secret in headers, in addresses
# and in files of settings. What is hidden is the group "secret".
_FORMS = tuple(
    re.compile(form)
    for form in (
        r"(?<![\w./-])(?P<secret>(?:sk|rk|pk)-(?=[\w-]*\d)[\w-]{16,})",
        r"(?<![\w./-])(?P<secret>(?:hf|gh[oprsu]|glpat|xox[abprs])[_-](?=[\w-]*\d)[\w-]{16,})",
        r"(?<!\w)(?P<secret>(?:AKIA|ASIA)[0-9A-Z]{16})(?!\w)",
        r"(?<!\w)(?P<secret>AIza[\w-]{35})",
        r"(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END|\Z))",
        r"(?i:\b(?:bearer|basic)[ \t]+)(?P<secret>(?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*)",
        r"\w://[^\s:/@]*:(?P<secret>[^\s/@]+)@",
    )
)
_SETTING = re.compile(
    r"(?i)\b[\w-]*(?:api_?key|token|secret|password|passwd|credentials?)[\"']?[ \t]*[=:][ \t]*"
    r"[\"']?(?P<secret>[\w.~+/@!$%^&*-]{8,})"
)


def secrets() -> list[str]:
    """The secrets among the values of environment variables, the longest first."""
    values = {value.strip() for name, value in os.environ.items() if _NAMES.search(name)}
    # a variable such as GOOGLE_APPLICATION_CREDENTIALS names a file
    keys = {value for value in values if len(value) >= SHORTEST and not Path(value).exists()}
    return sorted(keys, key=len, reverse=True)


def hidden(text: str) -> str:
    """A text without secrets: those of the environment, and what has the form of one.

    >>> hidden("postgresql://me:hunter2@host/db")
    'postgresql://me:[hidden]@host/db'
    """
    return _without(text, secrets())


def filtered(text: str) -> str:
    """As `hidden`, for source text: also what is assigned to a name like ``api_key`` or ``token``.

    >>> filtered('+API_KEY = "correcthorse"')
    '+API_KEY = "[hidden]"'
    """
    return _SETTING.sub(_hide, hidden(text))


def exposed(node: Any, where: str = "") -> str:
    """The first key of a configuration whose value holds a secret; "" if there is none."""
    known = secrets()  # once: looking through the environment takes longer than all texts
    return next((key for key, text in _texts(node, where) if _without(text, known) != text), "")


def exposed_argument(arguments: Sequence[str]) -> str:
    """What stands before the ``=`` of the first argument that holds a secret; "" if none does.

    An argument without ``=`` is named by its place, "argument 2".
    """
    for i, argument in enumerate(arguments, 1):
        if hidden(argument) != argument:
            key, equals, _ = argument.partition("=")
            return key if equals and hidden(key) == key else f"argument {i}"
    return ""


def _without(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, HIDDEN)
    for form in _FORMS:
        text = form.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    start, end = (place - match.start() for place in match.span("secret"))
    return match[0][:start] + HIDDEN + match[0][end:]


def _texts(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _texts(value, f"{where}[{i}]")
    elif isinstance(node, str):
        yield where, node
