"""Every command of the README and the docs names what there is."""

import re
import shlex
from pathlib import Path

import pytest

from rdx import config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^[ \t]*```(?:bash|console|sh|shell)[^\n]*\n(.*?)^[ \t]*```", re.M | re.S)
OPEN = ("...", "…", "<", "???", "$", "NAME")  # a command with a placeholder is not complete
SHOWS = ("--help", "--cfg", "--hydra-help", "--info")


def commands(text):
    """The commands of the shell blocks, as lists of words; comments and outputs are left out."""
    named = []
    for block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        prompts = any(line.lstrip().startswith("$ ") for line in lines)
        for line in lines:
            line = line.strip()
            if prompts and not line.startswith("$ "):
                continue  # output
            words = shlex.split(line.removeprefix("$ "), comments=True)
            named += [part for part in _split(words) if part]
    return named


def _split(words):
    """The commands of a line: a && b; c | d."""
    parts = [[]]
    for word in words:
        if word in ("&&", ";", "|", "||", "&", ">", ">>"):
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def module_arguments(words, module):
    """What comes after `python -m MODULE`, or None if that is not the command."""
    for i in range(len(words) - 2):
        if Path(words[i]).name.startswith("python") and words[i + 1 : i + 3] == ["-m", module]:
            return words[i + 3 :]
    return None


def make_targets():
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", text, re.M))


def check(words):
    """Fail if a command names an option, an experiment or a target that is not there."""
    arguments = module_arguments(words, "rdx")
    if arguments is not None and not any(mark in a for a in arguments for mark in OPEN):
        shown = any(a.split("=")[0] in SHOWS for a in arguments)
        flags = ("-", "hydra", "hydra/")
        overrides = [a for a in arguments if not a.startswith(flags) and "=" in a]
        cells = config.cells(overrides)
        grid = any(a in ("-m", "--multirun") or a.startswith("+experiments=") for a in arguments)
        assert shown or grid or len(cells) == 1, "a grid without -m"
    arguments = module_arguments(words, "analysis")
    if arguments is not None:
        names = [a for a in arguments if not a.startswith("-")]
        if names and not any(mark in names[0] for mark in OPEN):
            config.load_spec(names[0])
    if words[0] == "make":
        targets = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
        absent = set(targets) - make_targets()
        assert not absent, f"no such target: {absent}"


CASES = {  # each command once, with the last page that has it
    shlex.join(words): f"{page.name}: {shlex.join(words)[:80]}"
    for page in PAGES
    for words in commands(page.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("words", [*map(shlex.split, CASES)], ids=[*CASES.values()])
def test_commands_of_the_documentation_name_what_there_is(words):
    check(words)


def test_commands_are_found_in_shell_blocks_only():
    text = """
Text with `python -m rdx none`.
```bash
# a comment
python -m rdx -m loss=ranknet,adr_mse \\
    seed=1,2     # a grid
cd there && make demo
```
```python
python -m rdx nothing
```
1. An item
   ```console
   $ mlflow ui | cat
   some output
   ```
"""
    assert commands(text) == [
        ["python", "-m", "rdx", "-m", "loss=ranknet,adr_mse", "seed=1,2"],
        ["cd", "there"],
        ["make", "demo"],
        ["mlflow", "ui"],
        ["cat"],
    ]


@pytest.mark.parametrize(
    "command",
    [
        "python -m rdx",
        ".venv/bin/python -m rdx -m loss=ranknet,adr_mse seed=1,2",
        "CUDA_VISIBLE_DEVICES=0 python3 -m rdx +experiments=demo",
        "python -m rdx data=files data.corpus=... data.queries=...",
        "python -m rdx --help",
        "python -m rdx loss=adr_mse --cfg job",
        "python -m analysis demo",
        "make",
        "make demo WORKERS=3",
        "ls -l",
    ],
)
def test_a_good_command_passes(command):
    check(shlex.split(command))


@pytest.mark.parametrize(
    "command",
    [
        "python -m rdx loss=rankent",
        "python -m rdx -m loss=ranknet,rankent",
        "python -m rdx depth.kk=3",
        "python -m rdx loss=ranknet,adr_mse",
        "python -m rdx +experiments=dmo",
        "python -m analysis dmo",
        "make dmo",
    ],
)
def test_a_bad_command_is_found(command):
    with pytest.raises((config.ConfigError, AssertionError)):
        check(shlex.split(command))
