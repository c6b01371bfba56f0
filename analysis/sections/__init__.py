"""Further tables of a summary: published numbers, factors, training runs, and power.

Each module here asks the pure functions of its namesake in `analysis` and words the answer; what
was assumed, on how many runs it rests and what is left out stands in the notes of each table.
"""

from __future__ import annotations

from analysis.render.entry import Table
from analysis.sections.efficiency import efficiency_table
from analysis.sections.factors import factor_tables
from analysis.sections.power import assumptions, power_table
from analysis.sections.replication import replication_table
from analysis.sections.seeds import seed_tables
from analysis.summary import Summary

__all__ = [
    "assumptions",
    "efficiency_table",
    "factor_tables",
    "power_table",
    "replication_table",
    "seed_tables",
    "tables",
]


def tables(summary: Summary) -> list[Table]:
    """Tables that the spec asks for or the trials allow, in the order of a report.

    Replication if the spec has `expected`, costs if trials were timed, factors if it has `factors`,
    training runs if a row has at least two seeds, power if a row was tested against the baseline.
    """
    found = (
        replication_table(summary),
        efficiency_table(summary),
        *factor_tables(summary),
        *seed_tables(summary),
        power_table(summary),
    )
    return [table for table in found if table is not None]
