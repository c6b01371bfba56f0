"""Findings of the doctor: how bad each is, and its cure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

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


def stops(findings: list[Finding]) -> bool:
    """Whether something stops the configuration."""
    return any(finding.state == ERROR for finding in findings)


def as_json(findings: list[Finding]) -> dict[str, object]:
    """The findings as plain values."""
    return {"runs": not stops(findings), "findings": [asdict(finding) for finding in findings]}


def text(findings: list[Finding]) -> str:
    """A line per finding, and below it the cure."""
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8}{finding.about:<{width}}  {finding.told}")
        lines += [f"{'':8}{'':<{width}}  -> {line}" for line in finding.cure.splitlines()]
    counts = {
        state: sum(finding.state == state for finding in findings) for state in (ERROR, WARNING)
    }
    if counts[ERROR]:
        end = "this does not run as it stands"
    else:
        end = "this runs" + (", but see the warnings" if counts[WARNING] else "")
    return "\n".join([*lines, f"{counts[ERROR]} errors, {counts[WARNING]} warnings: {end}"])
