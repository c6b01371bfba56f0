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

from analysis.render.entry import ALARM, DASH, Column, Entry, Flag, Table
from rdx.facts import OK

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
    run : str
        MLflow's run; empty if none is known.
    listed : bool
        Whether it has a line in the table of trials.
    """

    row: str
    signature: str
    seed: int | None = None
    health: str | None = None
    run: str = ""
    listed: bool = True

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


@dataclass(frozen=True)
class Page:
    """What the report of an experiment shows.

    Attributes
    ----------
    title, claim : str
        At the top; the claim may be empty.
    tables : sequence of Table
        In their order.
    links : mapping of str to str
        Words -> address of files beside the page, or of a tracking server.
    alarms : sequence of str
        What a reader must see before the numbers.
    marks : mapping of str to str
        Sign raised behind an entry -> what it means.
    pictures : sequence of Picture
        Figures.
    trials : sequence of Trial
        Behind the rows.
    """

    title: str
    claim: str = ""
    tables: Sequence[Table] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    alarms: Sequence[str] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    trials: Sequence[Trial] = ()

    def __post_init__(self) -> None:
        """Reject links of other schemes than http, https and file."""
        for address in self.links.values():
            if urlparse(address).scheme not in SCHEMES:
                raise ValueError(f"a link must be relative, http, https or file, not {address!r}")


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
    return template.render(page=page, trace=trace, trial_columns=TRIAL_COLUMNS)


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
    environment.globals |= {"ALARM": ALARM, "DASH": DASH}
    environment.filters["inline"] = inline
    return environment


def inline(svg: str, label: str) -> Markup:
    """Make an SVG document an element of a page: no prolog, no metadata, no addresses."""
    element = svg[svg.index("<svg") : svg.rindex("</svg>") + len("</svg>")]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element)
    return Markup(element.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))
