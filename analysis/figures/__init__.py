"""Draw finished numbers: `sketches` says which a summary has, `save` draws and writes them.

There is a figure only if the spec and the trials hold what it shows. What little arithmetic a
figure needs is in `data` and `grid`, what it is drawn from is gathered in `inputs`; the rest draws.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.figures import curves, inputs, maps, overview, systems
from analysis.figures.grid import conditions
from analysis.figures.overview import Point, differences
from analysis.figures.style import COLUMN_WIDTH, STYLE
from analysis.summary import Summary

__all__ = ["COLUMN_WIDTH", "Point", "differences", "Sketch", "draw", "save", "sketches", "svg"]

Item = TypeVar("Item")
SUFFIXES = (".pdf", ".svg", ".png")
STEM = "figure-"
# Panels beyond these go to a further figure, so that one fits on a page.
MOST_LINES = 36
MOST_WINS = 16


@dataclass(frozen=True)
class Sketch:
    """A figure before it is drawn: the function, all that it is given, and the caption."""

    function: Callable[..., Figure]
    shown: Any
    words: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""

    def draw(self) -> Figure:
        """Return the figure."""
        return self.function(self.shown, **self.words)

    @cached_property
    def key(self) -> str:
        """Hash of what the picture is made from: the numbers, the code, and matplotlib."""
        found = hashlib.sha256(version("matplotlib").encode())
        for path in sorted(Path(__file__).parent.glob("*.py")):
            found.update(path.read_bytes())
        given = [self.function.__qualname__, _plain(self.shown), _plain(self.words)]
        found.update(json.dumps(given).encode())
        return found.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON can hold, nothing left out: equal inputs give equal texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, one.name)) for one in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(one)] for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def draw(summary: Summary) -> dict[str, Figure]:
    """Every figure that the spec's content allows; see `sketches`."""
    return {name: sketch.draw() for name, sketch in sketches(summary).items()}


def sketches(summary: Summary) -> dict[str, Sketch]:
    """Every figure that the spec's content allows, not drawn yet.

    Returns
    -------
    dict of str to Sketch
        ``differences`` (rows against the baseline), ``lines`` (over the spec's `x`),
        ``interaction`` and ``grid`` (of its `factors`), ``queries`` (wins and losses per query),
        ``efficiency`` (where trials were timed), ``ranks`` (critical differences) and ``power``;
        ``-2``, … or ``-COLLECTION`` behind a name where there are several.
    """
    spec = summary.spec
    measure = {"measure": spec.figure}
    settings = conditions(summary, spec.figure) if spec.x or spec.factors else None
    shown: dict[str, Sketch] = {}

    def add(
        kind: str, place: str, function: Callable[..., Figure], data: Any, **words: Any
    ) -> None:
        name = f"{kind}-{place}" if place else kind
        shown[name] = Sketch(function, data, words, f"{CAPTIONS[kind]} {place}".rstrip())

    for i, panels in enumerate(_pages(inputs.overview(summary)), 1):
        add(
            "differences",
            str(i) if i > 1 else "",
            overview.differences,
            panels,
            baseline=str(spec.baseline),
            correction=CORRECTIONS[spec.correction],
            margin=spec.margin,
            **measure,
        )
    if lines := inputs.lines(summary, settings):
        add("lines", "", curves.lines, lines, **measure)
    if pairs := inputs.interactions(summary, settings):
        add("interaction", "", curves.interaction, pairs, **measure)
    rows, columns, grids = inputs.heat_maps(summary, settings)
    if grids:
        add("grid", "", maps.heat_map, grids, rows=rows, columns=columns, **measure)
    wins = inputs.wins(summary)
    for collection, by_row in wins.items():
        for i, part in enumerate(_parts(by_row, MOST_WINS), 1):
            place = [collection] * (len(wins) > 1) + [str(i)] * (i > 1)
            baseline = {"baseline": str(spec.baseline)}
            add("queries", "-".join(place), maps.wins, part, **baseline, **measure)
    timed, hardware = inputs.costs(summary)
    if len(timed) > 1:
        add("efficiency", "", systems.costs, timed, hardware=hardware, **measure)
    ranks, distance, note = inputs.rankings(summary)
    if ranks:
        add("ranks", "", systems.critical_differences, ranks, note=note, distance=distance)
    if power := inputs.power_curves(summary):
        add("power", "", curves.power, power, **measure)
    return shown


CORRECTIONS = {"holm": "Holm", "hochberg": "Hochberg", "bh": "Benjamini–Hochberg"}


CAPTIONS = {
    "differences": "Difference of each row to the baseline.",
    "lines": "Scores over the levels of the grid; 95 % intervals without what queries share.",
    "interaction": "Interactions: lines that are not parallel. Means over all else that was "
    "crossed; 95 % intervals without what queries share.",
    "grid": "Mean score of every cell of the grid.",
    "queries": "Difference to the baseline of every query, sorted; wins / ties / losses.",
    "efficiency": "Effectiveness against time per query.",
    "ranks": "Mean ranks over queries; a bar joins systems that are not told apart.",
    "power": "Probability that one uncorrected test finds a true difference.",
}


def _parts(entries: Mapping[str, Item], size: int) -> list[dict[str, Item]]:
    """Consecutive parts of a mapping, of at most `size` entries each."""
    items = list(entries.items())
    return [dict(items[start : start + size]) for start in range(0, len(items), size)]


def _pages(panels: Mapping[str, list[Point]]) -> list[dict[str, list[Point]]]:
    """Panels in figures of at most `MOST_LINES` rows each, a panel never cut."""
    pages: list[dict[str, list[Point]]] = []
    for title, points in panels.items():
        used = sum(map(len, pages[-1].values())) if pages else 0
        if not pages or used + len(points) > MOST_LINES:
            pages.append({})
        pages[-1][title] = points
    return pages


def save(
    shown: Mapping[str, Sketch], folder: Path, before: Mapping[str, str] | None = None
) -> dict[str, list[Path]]:
    """Write ``figure-NAME`` as PDF, SVG and PNG; the same figure gives the same bytes.

    Parameters
    ----------
    shown : mapping of str to Sketch
        What is drawn. Other figures that lie in the folder are removed.
    folder : Path
        Made if it is not there.
    before : mapping of str to str, optional
        Name -> `Sketch.key` of what was drawn into the folder; where both are still so, the files
        are left alone.

    Returns
    -------
    dict
        Name -> its files: PDF, SVG, PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, list[Path]] = {}
    with mpl.rc_context(STYLE):
        for name, sketch in shown.items():
            stem = folder / (STEM + re.sub(r"[^\w-]+", "-", name))
            files = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
            paths[name] = files
            if (before or {}).get(name) == sketch.key and all(path.is_file() for path in files):
                continue
            figure = sketch.draw()
            figure.savefig(files[0], metadata={"CreationDate": None, "Creator": "rdx"})
            files[1].write_text(svg(figure, name), encoding="utf-8")
            figure.savefig(files[2], metadata={"Software": "rdx"})
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
    wanted = {one or other for one, other in used}
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
