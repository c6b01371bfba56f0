"""Prompt templates of listwise teachers: YAML files in rank_llm's format -> chat messages."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from string import Formatter, ascii_uppercase

import yaml
from pydantic import JsonValue

from rdx import folders
from rdx.teachers.messages import Message

RANK_LLM = "rank_llm:"

METHODS = ("singleturn_listwise", "multiturn_listwise")
# What looks like an identifier in a text.
IDENTIFIER = {"numbers": re.compile(r"\[(\d+)\]"), "letters": re.compile(r"\[(\d+|[A-Z])\]")}
IDENTIFIERS = tuple(IDENTIFIER)

# What may be filled in, by part; the system message is taken as it is.
PLACES = {
    "prefix": ("query", "num"),
    "prefix_assistant": ("query", "num"),
    "body": ("rank", "candidate"),
    "body_assistant": ("rank",),
    "suffix": ("query", "num", "psg_ids"),
}
REGEXES = ("output_validation_regex", "output_extraction_regex")
# The parts of a conversation that the user says are named so in files of that method.
USER_PARTS = {"prefix_user": "prefix", "body_user": "body", "suffix_user": "suffix"}
ASSISTANT_PARTS = ("prefix_assistant", "body_assistant")
# Read neither by rank_llm's listwise prompts nor here, but present in some of its files.
IGNORED = ("output_pattern", "output_patterns")


@dataclass(frozen=True)
class Prompt:
    """A template, filled in for a query and the passages of one window.

    Parameters
    ----------
    name
        As it was asked for.
    version
        As the file says; "" if it does not.
    method
        "singleturn_listwise": one user message of prefix, bodies and suffix.
        "multiturn_listwise": prefix and bodies are messages of their own, each one answered by
        `prefix_assistant` or `body_assistant`; without `body_assistant`, bodies and suffix are one.
    body
        Text of one passage, with {rank} and {candidate}.
    system_message, prefix, suffix, prefix_assistant, body_assistant
        The other parts; "" = there is none. {query} and {num} (of passages) are filled in in
        prefix and suffix, {psg_ids} ("[PASSAGE1, PASSAGE2]") in the suffix.
    identifiers
        "numbers" (1, 2, ...) or "letters" (A-Z); a file that does not say means those that its
        `output_extraction_regex` finds.
    output_validation_regex, output_extraction_regex
        What the whole answer matches, and one identifier of it (group 1, or all of the match).
    source
        Where the file is from, for the eye; no part of the identity.
    """

    name: str
    version: str
    method: str
    body: str
    system_message: str = ""
    prefix: str = ""
    suffix: str = ""
    prefix_assistant: str = ""
    body_assistant: str = ""
    identifiers: str = "numbers"
    output_validation_regex: str = ""
    output_extraction_regex: str = ""
    source: str = ""

    def messages(self, query: str, passages: Sequence[str]) -> list[Message]:
        """Chat that shows the passages in the given order, the first one as 1 or A."""
        return self.chat(self.plain(query), list(map(self.plain, passages)))

    def plain(self, text: str, words: int | None = None) -> str:
        """A query or a passage as it is shown, or the first words of it.

        White space is collapsed, and what looks like an identifier is written with round brackets,
        as in rank_llm: "[3]" becomes "(3)".
        """
        text = collapsed(text) if words is None else shorten(text, words)
        return IDENTIFIER[self.identifiers].sub(r"(\1)", text) if "[" in text else text

    def chat(self, query: str, passages: Sequence[str]) -> list[Message]:
        """As `messages`, of texts that are `plain`: a window shows most of those of another one."""
        if not passages:
            raise ValueError("a prompt needs at least one passage")
        known = {
            "query": query,
            "num": str(len(passages)),
            "psg_ids": _placeholders(len(passages)),
        }
        names = _names(self.identifiers, len(passages))
        shown = [
            {"rank": name, "candidate": text} for name, text in zip(names, passages, strict=True)
        ]
        bodies = [_filled(self.body, passage) for passage in shown]
        prefix, suffix = _filled(self.prefix, known), _filled(self.suffix, known)
        chat: list[Message] = [{"role": "system", "content": self.system_message}]
        if self.method == "singleturn_listwise":
            chat.append({"role": "user", "content": prefix + "".join(bodies) + suffix})
            return [message for message in chat if message["content"]]
        chat.append({"role": "user", "content": prefix})
        chat.append({"role": "assistant", "content": _filled(self.prefix_assistant, known)})
        if self.body_assistant:
            for body, passage in zip(bodies, shown, strict=True):
                chat.append({"role": "user", "content": body})
                chat.append({"role": "assistant", "content": _filled(self.body_assistant, passage)})
            chat.append({"role": "user", "content": suffix})
        else:
            chat.append({"role": "user", "content": "".join(bodies) + suffix})
        return [message for message in chat if message["content"]]

    def canonical(self, text: str) -> str:
        """An answer of just the form that the template asks for, as "[2] > [1]".

        Any other text comes back as it is: what it is worth is for the parser to say.
        """
        if not self.output_validation_regex or not self.output_extraction_regex:
            return text
        if not re.fullmatch(self.output_validation_regex, text.strip()):
            return text
        matches = re.finditer(self.output_extraction_regex, text.strip())
        names = [match.group(1 if match.re.groups else 0).strip("[]") for match in matches]
        return " > ".join(f"[{name}]" for name in names)

    def identity(self) -> dict[str, JsonValue]:
        """Version and content hash: all that may change an answer, wherever the file is."""
        parts = asdict(self)
        for key in ("name", "version", "source"):
            del parts[key]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {"version": self.version, "sha256": digest}


def load(name: str) -> Prompt:
    """Read a template.

    Parameters
    ----------
    name
        A file of conf/teacher/prompts (without its ".yaml"), the path of a YAML file,
        or "rank_llm:TEMPLATE", a file of an installed rank-llm, which is not imported.

    Raises
    ------
    ValueError
        If there is no such file, or it is no template; the message names file and key.
    """
    if name.startswith(RANK_LLM):
        path, version = _rank_llm_file(name)
        return _read(path, name, f"rank-llm {version}")
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"prompt={name}: no such file")
        return _read(path, name, path.name)
    known = folders.options(folders.PROMPTS)
    if name not in known:
        raise ValueError(
            f"prompt={name}: no such prompt; valid: {', '.join(known)}, "
            f"{RANK_LLM}TEMPLATE (of an installed rank-llm), or the path of a .yaml file"
        )
    return _read(known[name], name, "rdx")


def shorten(text: str, words: int) -> str:
    """Return the first words of a text, split at white space."""
    if words < 1:
        raise ValueError(f"words={words}: must be at least 1")
    text = collapsed(text)
    return text if text.count(" ") < words else " ".join(text.split(" ", words)[:words])


def collapsed(text: str) -> str:
    """Return a text with one space wherever it has white space, and none at its ends."""
    if text.isprintable() and "  " not in text:  # most texts; splitting takes five times as long
        return text.strip(" ")
    return " ".join(text.split())


def _rank_llm_file(name: str) -> tuple[Path, str]:
    """Find a template file and the version of rank-llm, which is looked for but not imported."""
    spec = importlib.util.find_spec("rank_llm")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"prompt={name}: rank-llm is not installed. Its template files are enough: "
            "pip install --no-deps rank-llm"
        )
    folder = Path(spec.submodule_search_locations[0]) / "rerank" / "prompt_templates"
    template = name.removeprefix(RANK_LLM).removesuffix(".yaml")
    path = folder / f"{template}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none"
        raise ValueError(f"prompt={name}: not in {folder}; templates there: {known}")
    try:
        version = importlib.metadata.version("rank-llm")
    except importlib.metadata.PackageNotFoundError:  # a source tree on the path
        version = ""
    return path, version


def _read(path: Path, name: str, source: str) -> Prompt:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a template: no keys")

    method = content.get("method")

    def wrong(key: object, problem: str) -> ValueError:
        user = method == "multiturn_listwise" and key in USER_PARTS.values()
        return ValueError(f"{path}: {key}{'_user' if user else ''}: {problem}")

    if method not in METHODS:
        raise wrong("method", f"{method!r}: must be one of {', '.join(METHODS)}")
    fields = _fields(content, method, path, wrong)
    for part, allowed in PLACES.items():
        _check_places(part, fields.get(part, ""), allowed, wrong)
    _check(fields, method, wrong)
    fields.setdefault("version", "")
    fields.setdefault("identifiers", _identifiers(fields.get("output_extraction_regex", "")))
    return Prompt(name=name, source=source, **fields)


def _fields(
    content: dict[object, object], method: str, path: Path, wrong: Callable[..., ValueError]
) -> dict[str, str]:
    """Arguments of `Prompt`, out of the keys that a file of this method has."""
    valid = ["version", "method", "identifiers", "system_message", *REGEXES]
    names = {"prefix": "prefix", "body": "body", "suffix": "suffix"}
    if method == "multiturn_listwise":
        valid += ASSISTANT_PARTS
        names = USER_PARTS
    fields = {}
    for key, value in content.items():
        if key in IGNORED:
            continue
        if key not in valid and key not in names:
            known = ", ".join([*valid, *names])
            raise ValueError(f"{path}: {key}: no such key; valid for {method}: {known}")
        if key == "version" and isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            raise wrong(key, f"must be a text, not {value!r}")
        fields[names.get(key, key)] = _unquoted(value) if key in REGEXES else value
    if "body" not in fields:
        raise wrong("body", "is missing")
    return fields


def _check(fields: dict[str, str], method: str, wrong: Callable[..., ValueError]) -> None:
    system = fields.get("system_message", "")
    for place in sorted({place for places in PLACES.values() for place in places}):
        if f"{{{place}}}" in system:
            raise wrong("system_message", f"{{{place}}} is not filled in here")
    if not any("query" in _places(fields.get(part, "")) for part in ("prefix", "suffix")):
        raise wrong("prefix", "neither it nor the suffix has {query}")
    for place in PLACES["body"]:
        if place not in _places(fields["body"]):
            raise wrong("body", f"{{{place}}} is missing")
    if method == "multiturn_listwise":
        if not any(fields.get(part) for part in ASSISTANT_PARTS):
            raise wrong("body_assistant", "a conversation needs it, or prefix_assistant")
        if bool(fields.get("prefix")) != bool(fields.get("prefix_assistant")):
            raise wrong("prefix_assistant", "goes with prefix_user: the speakers take turns")
        if fields.get("body_assistant") and not fields.get("suffix"):
            raise wrong("suffix", "is missing: the user asks last")
    if fields.get("identifiers", "numbers") not in IDENTIFIERS:
        raise wrong("identifiers", f"must be one of {', '.join(IDENTIFIERS)}")
    for key in REGEXES:
        try:
            re.compile(fields.get(key, ""))
        except re.error as error:
            raise wrong(key, f"no regular expression: {error}") from error


def _check_places(
    part: str, text: str, allowed: Sequence[str], wrong: Callable[..., ValueError]
) -> None:
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise wrong(part, str(error)) from error
    for _, place, form, conversion in pieces:
        if place is None:
            continue
        if place not in allowed or form or conversion:
            valid = ", ".join(f"{{{name}}}" for name in allowed)
            raise wrong(part, f"{{{place}}} is not filled in here; valid: {valid}")


def _places(text: str) -> set[str]:
    return {place for _, place, _, _ in Formatter().parse(text) if place is not None}


def _filled(template: str, values: dict[str, str]) -> str:
    """Fill a template in; braces in the values are text."""
    return template.format_map(values)


@cache
def _placeholders(size: int) -> str:
    return "[" + ", ".join(f"PASSAGE{i + 1}" for i in range(size)) + "]"


@cache
def _names(identifiers: str, size: int) -> list[str]:
    if identifiers == "numbers":
        return [str(i + 1) for i in range(size)]
    if size > len(ascii_uppercase):
        raise ValueError(f"{size} passages: there are letters for 26; lower teacher.window")
    return list(ascii_uppercase[:size])


def _identifiers(regex: str) -> str:
    """The kind of identifier that a regex finds: rank_llm's files do not name it."""
    letters = regex and re.search(regex, "[B]") and not re.search(regex, "[2]")
    return "letters" if letters else "numbers"


def _unquoted(regex: str) -> str:
    """Read r"..." as rank_llm's files write it: YAML keeps the r and the quotes."""
    quoted = re.fullmatch(r"""r(["'])(.*)\1""", regex.strip(), re.DOTALL)
    return quoted.group(2) if quoted else regex
