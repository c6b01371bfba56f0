"""One self-contained HTML page per experiment: no network, no other file, nothing computed.

Style and script are inline, figures are inline SVG. Without scripts everything can still be read:
what a click on a number shows also stands in the table of trials.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import urlparse

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.render.entry import ALARM, APART, DASH, Column, Entry, Flag, Table
from rdx.facts import OK

# Where a table is stacked, its entries below each other with their heads, so that no number is cut:
# on screens up to the first of these widths (in rem) that it needs, always beyond the last.
WIDTHS = (24, 32, 40, 48, 56, 64, 72, 80, 999)
CHARACTER, GAP, MOST_NAME = 0.57, 0.8, 26  # rem of a character, rem between columns, characters
MARGIN = 1.5  # rem beside the page
SCHEMES = ("", "http", "https", "file")


@dataclass(frozen=True)
class Trial:
    """One trial behind a row of the tables.

    Attributes
    ----------
    row, signature : str
        Name of the row, and the trial's signature.
    seed : int or None
        None for a system that is not trained, as is `health`.
    health : str or None
        ``ok`` or what is wrong.
    run, page : str
        MLflow's run and the address of its page; empty if none is known.
    listed : bool
        Whether it has a line in the table of trials.
    """

    row: str
    signature: str
    seed: int | None = None
    health: str | None = None
    run: str = ""
    page: str = ""
    listed: bool = True

    def __post_init__(self) -> None:
        """Reject links of other schemes than http and https."""
        _check(self.page, ("", "http", "https"))

    @property
    def seed_text(self) -> str:
        """The seed, or a dash."""
        return DASH if self.seed is None else str(self.seed)

    @property
    def sick(self) -> bool:
        """Whether something is wrong with it."""
        return self.health not in (OK, None)

    @property
    def line(self) -> str:
        """All of it in words."""
        return (
            f"trial {self.signature}: seed {self.seed_text}, health {self.health or DASH}, "
            f"MLflow run {self.run or DASH}"
        )


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text, with its caption."""

    svg: str
    caption: str

    @property
    def width(self) -> str:
        """As the SVG gives it, with its unit; what its text is sized for."""
        match = re.search(r"<svg[^>]*?\swidth=\"([\d.]+(?:pt|px|in|mm)?)\"", self.svg)
        return match[1] if match else "100%"


@dataclass(frozen=True)
class Page:
    """What the report of an experiment shows.

    Attributes
    ----------
    title, claim : str
        At the top; the claim may be empty.
    answer : mapping of str to str
        What a sentence tells -> the sentence, below the claim.
    tables : sequence of Table
        The main one first, which stands above all figures but the first.
    links : mapping of str to str
        Words -> address of files beside the page, or of a tracking server.
    alarms : sequence of str
        What a reader must see before the numbers.
    marks : mapping of str to str
        Sign raised behind an entry -> what it means.
    pictures : sequence of Picture
        Figures, the main one first.
    trials : sequence of Trial
        Behind the rows.
    interface : str
        The command that must run before links to runs are opened; "" if none need.
    """

    title: str
    claim: str = ""
    answer: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    alarms: Sequence[str] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    trials: Sequence[Trial] = ()
    interface: str = ""

    def __post_init__(self) -> None:
        """Reject links of other schemes than http, https and file."""
        for address in self.links.values():
            _check(address, SCHEMES)


def _check(address: str, schemes: Sequence[str]) -> None:
    if urlparse(address).scheme not in schemes:
        known = ", ".join(filter(None, schemes))
        raise ValueError(f"a link must be relative or one of {known}, not {address!r}")


TRIAL_COLUMNS = (
    Column("System", numeric=False),
    Column("Seed"),
    Column("Health", numeric=False),
    Column("Signature", numeric=False),
    Column("MLflow run", numeric=False),
)


def render(page: Page) -> str:
    """HTML of the page."""
    trials: dict[str, list[str]] = {}
    for trial in page.trials:
        trials.setdefault(trial.row, []).append(trial.line)

    def trace(line: Sequence[Entry], entry: Entry) -> str:
        """What a number rests on: the rows named in its line, each with its trials."""
        if Flag.MISSING in entry.flags:
            return ""
        names = dict.fromkeys(name for other in line for name in other.rows)
        return "\n".join(
            text for name in names for text in (name, *entry.detail, *trials.get(name, ()))
        )

    template = _environment().get_template("report.html")
    texts = [
        (t.row, t.seed_text, t.health or DASH, t.signature, t.run) for t in page.trials if t.listed
    ]
    return template.render(page=page, trace=trace, trial_columns=TRIAL_COLUMNS, trial_texts=texts)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"ALARM": ALARM, "APART": APART, "DASH": DASH, "WIDTHS": WIDTHS}
    environment.globals |= {"layout": layout}
    environment.filters["inline"] = inline
    return environment


@dataclass(frozen=True)
class Layout:
    """How a table is laid out on screens that are too narrow for it; widths in rem."""

    stacked: int  # up to this width of the screen
    entry: float  # of an entry with its head


def layout(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Layout:
    """From the longest texts of the columns; heads wrap between words, the names of rows too."""
    texts = list(zip(*rows, strict=True)) or [()] * len(columns)
    lengths = [max(map(len, column), default=0) for column in texts]
    heads = [max(map(len, column.name.split()), default=0) + 2 for column in columns]
    first = min(lengths[0], MOST_NAME)
    others = [max(pair) for pair in zip(lengths[1:], heads[1:], strict=True)]
    needed = sum(CHARACTER * size + GAP for size in (first, *others)) + MARGIN
    entry = max(
        (
            len(f"{column.group} {column.name}") + length
            for column, length in zip(columns[1:], lengths[1:], strict=True)
        ),
        default=0,
    )
    stacked = next((width for width in WIDTHS if needed <= width), WIDTHS[-1])
    return Layout(stacked, round(min(CHARACTER * entry + 1, 21), 1))


def inline(svg: str, label: str) -> Markup:
    """Make an SVG document an element of a page: no prolog, no metadata, no addresses."""
    element = svg[svg.index("<svg") : svg.rindex("</svg>") + len("</svg>")]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element)
    return Markup(element.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))
