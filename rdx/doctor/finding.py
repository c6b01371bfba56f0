"""What an examination finds: how bad it is, and what helps."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    about
        What was looked at, e.g. "store".
    state
        "ok"; "note": worth knowing; "warning": it runs, worse than it could; "error": it does not
        run.
    told
        What was seen, in a line.
    cure
        What to do about it; "" where there is nothing to do.
    """

    about: str
    state: str
    told: str
    cure: str = ""


def stops(found: list[Finding]) -> bool:
    """Whether something stops the configuration."""
    return any(one.state == ERROR for one in found)


def as_json(found: list[Finding]) -> dict[str, object]:
    """The findings as plain values."""
    return {"runs": not stops(found), "findings": [asdict(one) for one in found]}


def text(found: list[Finding]) -> str:
    """A line per finding, and below it the cure."""
    width = max(len(one.about) for one in found)
    lines = []
    for one in found:
        lines.append(f"{one.state:<8}{one.about:<{width}}  {one.told}")
        lines += [f"{'':8}{'':<{width}}  -> {line}" for line in one.cure.splitlines()]
    counts = {state: sum(one.state == state for one in found) for state in (ERROR, WARNING)}
    if counts[ERROR]:
        end = "this does not run as it stands"
    else:
        end = "this runs" + (", but see the warnings" if counts[WARNING] else "")
    return "\n".join([*lines, f"{counts[ERROR]} errors, {counts[WARNING]} warnings: {end}"])
