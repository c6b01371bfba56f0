"""Finished numbers as figures: PDF, SVG and PNG; the same numbers give the same bytes.

A module draws a kind of figure, from records that it declares. A `Sketch` is a figure that has not
been drawn yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.render.figures.style import STYLE

SUFFIXES = (".pdf", ".svg", ".png")
STEM = "figure-"


@dataclass(frozen=True)
class Sketch:
    """A figure before it is drawn: a function with all its arguments, and the caption."""

    function: partial[Figure]
    caption: str = ""

    def draw(self) -> Figure:
        """Return the figure."""
        return self.function()

    @cached_property
    def key(self) -> str:
        """Hash of what the picture is made from: the numbers, the code, and matplotlib."""
        digest = hashlib.sha256(version("matplotlib").encode())
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
        call = self.function
        inputs = [call.func.__qualname__, _plain(call.args), _plain(call.keywords)]
        digest.update(json.dumps(inputs).encode())
        return digest.hexdigest()


def _plain(value: object) -> object:
    """What JSON can hold, nothing left out: equal inputs give equal texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(inner)] for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def save(sketches: Mapping[str, Sketch], folder: Path) -> dict[str, list[Path]]:
    """Write ``figure-NAME`` as PDF, SVG and PNG; the same figure gives the same bytes.

    Drawing takes longer than all else, so files are left alone whose SVG ends in the key of what is
    to be drawn.

    Parameters
    ----------
    sketches : mapping of str to Sketch
        What is drawn. Other figures that lie in the folder are removed.
    folder : Path
        Made if it is not there.

    Returns
    -------
    dict
        Name -> its files: PDF, SVG, PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, list[Path]] = {}
    with mpl.rc_context(STYLE):
        for name, sketch in sketches.items():
            stem = folder / (STEM + re.sub(r"[^\w-]+", "-", name))
            files = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
            paths[name] = files
            pdf, vectors, png = files
            mark = f"<!-- {sketch.key} -->\n"
            whole = all(path.is_file() for path in files)
            if whole and vectors.read_text(encoding="utf-8").endswith(mark):
                continue
            figure = sketch.draw()
            figure.savefig(pdf, metadata={"CreationDate": None, "Creator": "rdx"})
            figure.savefig(png, metadata={"Software": "rdx"})
            vectors.write_text(svg(figure, name) + mark, encoding="utf-8")
    kept = {path for files in paths.values() for path in files}
    for old in folder.glob(f"{STEM}*"):
        if old.suffix in SUFFIXES and old not in kept:
            old.unlink()
    return paths


def vector(files: Sequence[Path]) -> Path:
    """The SVG among the files of a figure."""
    return next(path for path in files if path.suffix == ".svg")


def svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG text; letters are paths, so that no font is needed to read it.

    `name` begins every id, so that several figures can stand in one page.
    """
    buffer = StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "rdx"})
    text = buffer.getvalue()
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    wanted = {"".join(target) for target in used}
    prefix = re.sub(r"\W+", "-", name)
    seen: set[str] = set()

    def once(match: re.Match[str]) -> str:
        """Glyphs are defined anew in every text; the first definition is enough."""
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return match[0]

    def named(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in wanted else ""

    text = re.sub(r'<path id="([^"]+)"[^>]*/>', lambda m: once(m) if m[1] in wanted else m[0], text)
    text = re.sub(r'\sid="([^"]+)"', named, text)
    text = re.sub(r'\bhref="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
