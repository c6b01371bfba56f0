"""Draw finished numbers: `draw` gives the figures of a summary, `save` writes them.

Each figure is drawn only if the spec and the trials hold what it shows. What little arithmetic a
figure needs is in `data` and `grid`, what it is drawn from is gathered in `inputs`; the rest draws.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.figures import curves, inputs, maps, overview, systems
from analysis.figures.grid import conditions
from analysis.figures.overview import Point, differences
from analysis.figures.style import COLUMN_WIDTH, STYLE
from analysis.summary import Summary

__all__ = ["COLUMN_WIDTH", "Point", "differences", "draw", "save", "svg"]

SUFFIXES = (".pdf", ".svg", ".png")
STEM = "figure-"
# Panels beyond these go to a further figure, so that one fits on a page.
MOST_LINES = 36
MOST_WINS = 16


def draw(summary: Summary) -> dict[str, Figure]:
    """Every figure that the spec's content allows.

    Returns
    -------
    dict of str to Figure
        ``differences`` (rows against the baseline), ``lines`` (over the spec's `x`),
        ``interaction`` and ``grid`` (of its `factors`), ``queries`` (wins and losses per query),
        ``efficiency`` (where trials were timed), ``ranks`` (critical differences) and ``power``;
        ``-2``, … or ``-COLLECTION`` behind a name where there are several.
    """
    spec = summary.spec
    found = conditions(summary, spec.figure) if spec.x or spec.factors else None
    drawn: dict[str, Figure] = {}
    for i, page in enumerate(_pages(inputs.overview(summary)), 1):
        drawn["differences" + (f"-{i}" if i > 1 else "")] = overview.differences(
            page,
            baseline=str(spec.baseline),
            measure=spec.figure,
            correction=CORRECTIONS[spec.correction],
            margin=spec.margin,
        )
    if lines := inputs.lines(summary, found):
        drawn["lines"] = curves.lines(lines, measure=spec.figure)
    if pairs := inputs.interactions(summary, found):
        drawn["interaction"] = curves.interaction(pairs, measure=spec.figure)
    rows, columns, grids = inputs.heat_maps(summary, found)
    if grids:
        drawn["grid"] = maps.heat_map(grids, rows=rows, columns=columns, measure=spec.figure)
    won = inputs.wins(summary)
    for collection, row in won.items():
        names = list(row)
        for start in range(0, len(names), MOST_WINS):
            name = "queries" + (f"-{collection}" if len(won) > 1 else "")
            drawn[name + (f"-{1 + start // MOST_WINS}" if start else "")] = maps.wins(
                {n: row[n] for n in names[start : start + MOST_WINS]},
                baseline=str(spec.baseline),
                measure=spec.figure,
            )
    timed, hardware = inputs.costs(summary)
    if len(timed) > 1:
        drawn["efficiency"] = systems.costs(timed, measure=spec.figure, hardware=hardware)
    ranks, distance, note = inputs.rankings(summary)
    if ranks:
        drawn["ranks"] = systems.critical_differences(ranks, note=note, distance=distance)
    if power := inputs.power_curves(summary):
        drawn["power"] = curves.power(power, measure=spec.figure)
    return drawn


CORRECTIONS = {"holm": "Holm", "hochberg": "Hochberg", "bh": "Benjamini–Hochberg"}


def _pages(panels: Mapping[str, list[Point]]) -> list[dict[str, list[Point]]]:
    """Panels in figures of at most `MOST_LINES` rows each, a panel never cut."""
    pages: list[dict[str, list[Point]]] = []
    for title, points in panels.items():
        used = sum(map(len, pages[-1].values())) if pages else 0
        if not pages or used + len(points) > MOST_LINES:
            pages.append({})
        pages[-1][title] = points
    return pages


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write ``figure-NAME`` as PDF, SVG and PNG; the same figure gives the same bytes.

    Figures of an earlier run that are not drawn any more are removed from the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for name, figure in figures.items():
            stem = folder / (STEM + re.sub(r"[^\w-]+", "-", name))
            pdf, vector, png = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
            figure.savefig(pdf, metadata={"CreationDate": None, "Creator": "rdx"})
            vector.write_text(svg(figure, name), encoding="utf-8")
            figure.savefig(png, metadata={"Software": "rdx"})
            paths += [pdf, vector, png]
    for old in folder.glob(f"{STEM}*"):
        if old.suffix in SUFFIXES and old not in paths:
            old.unlink()
    return paths


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
