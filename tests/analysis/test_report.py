import csv
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import notes, report
from analysis.spec import parse
from analysis.summary import summarise
from analysis.tables import MISSING
from analysis.trials import LEVELS, Trials
from rdx.config import Cell

SPEC = {
    "name": "x",
    "claim": "A & B beat the first stage.",
    "grid": {"a": [], "b": [], "none": []},
    "measures": ["nDCG@10", "RR@10"],
    "baseline": "First",
    "rows": [
        {"name": "First", "system": "first_stage"},
        {"name": "Teacher", "system": "teacher", "grid": "a"},
        {"name": "Oracle", "system": "oracle"},
        {"name": "Stage_1 only", "grid": "none"},
        {"name": "A", "grid": "a"},
        {"name": "B", "grid": "b"},
    ],
    "comparisons": [["A", "B"], ["A", "Stage_1 only"]],
}
QUERIES = [f"q{i:02}" for i in range(40)]
COLLECTION = {
    "queries": 40,
    "k": 20,
    "digest": "0123456789abcdef0123",
    "judged@10": 0.5,
    "first_stage": {"engine": "bm25s", "version": "0.3", "k1": 0.9, "stem": "english"},
}


def systems(shift, generator):
    first = np.linspace(0.2, 0.6, 40)
    return {
        "first_stage": first,
        "oracle": np.full(40, 0.9),
        "teacher": first[:10] + 0.05,
        "student": first + shift + generator.normal(0, 0.05, 40),
    }


def build(health="ok", missing=()):
    generator = np.random.default_rng(0)
    cells, facts, frames, lost = [], {}, [], []
    for grid, seed, shift in (("a", 1, 0.1), ("a", 2, 0.1), ("b", 1, 0.0), ("none", 1, -0.1)):
        signature = f"{grid}{seed}" + "0" * 30
        overrides = (f"loss={grid}", f"seed={seed}", "+experiments=x")
        cells.append(Cell(overrides, grid, {}, {}, signature))
        values = systems(shift, generator)
        if grid in missing:
            lost.append(cells[-1])
            continue
        facts[signature] = {
            "signature": signature,
            "seed": seed,
            "health": health if grid == "b" else "ok",
            "collections": {"docs": {**COLLECTION, "judged@10": 0.5 + 0.1 * (grid == "b")}},
        }
        frames += [
            pd.DataFrame({"query_id": QUERIES[: len(v)], "value": v}).assign(
                grid=grid,
                signature=signature,
                **dict.fromkeys(LEVELS, "x"),
                seed=seed,
                collection="docs",
                system=system,
                measure=measure,
            )
            for measure in SPEC["measures"]
            for system, v in values.items()
        ]
    frame = pd.concat(frames, ignore_index=True)
    found = Trials(frame=frame, cells=tuple(cells), missing=tuple(lost), facts=facts, runs={})
    return summarise(parse(SPEC), found)


@pytest.fixture(scope="module")
def summary():
    return build()


def cell(table, row, column):
    names = [f"{c.group} {c.name}".strip() for c in table.columns]
    (line,) = [entries for entries in table.rows if entries[0].text == row]
    return line[names.index(column)]


def test_main_table(summary):
    table = report.main_table(summary)
    a = cell(table, "A", "docs nDCG@10")
    mean = summary.scores["A", "docs", "nDCG@10"].mean
    assert (a.text, a.best, a.significant) == (f"{mean:.3f}", True, True)
    assert cell(table, "B", "docs nDCG@10").second
    assert cell(table, "First", "docs nDCG@10").text == "0.400"
    oracle = cell(table, "Oracle", "docs RR@10")
    assert (oracle.text, oracle.best, oracle.significant) == ("0.900", False, False)
    assert [cell(table, row, "Queries").text for row in ("A", "Teacher")] == ["40", "10"]
    assert [cell(table, row, "Seeds").text for row in ("A", "B", "First")] == ["2", "1 seed", "–"]


def test_notes_say_what_the_numbers_rest_on(summary):
    said = "\n".join(notes.footer(summary))
    for part in (
        "baseline, First: two-sided paired t-test over queries, Holm within each collection and "
        "measure (family of 4), α = 0.05",
        "rows that compete: Stage_1 only; A; B.",
        "A: 1, 2; B: 1",
        "1 seed = a single training run (Stage_1 only; B)",
        "Teacher: 10 of the 40 queries of docs",
        "docs: 40 queries, top 20 re-ranked, first stage bm25s 0.3 (k1=0.9, stem=english), "
        "Judged@10 of the trials 0.500 to 0.600, data 0123456789abcdef.",
        "trec_eval",
        "A: a1000000 a2000000; B: b1000000",
    ):
        assert part in said
    assert "Missing" not in said and "Health" not in said


def test_comparison_table(summary):
    table = report.comparison_table(summary)
    assert len(table.rows) == 4  # two pairs x two measures, all in one family
    assert "over all 4 tests" in table.notes[0]
    first = table.rows[0]
    assert first[0].text == "A − B"
    assert first[2].text.startswith("+0.") and first[2].significant
    assert first[4].text == "< 0.001"
    assert first[6].text == "2 vs 1 (1 seed)"
    assert (
        report.comparison_table(summarise(parse({**SPEC, "comparisons": []}), summary.trials))
        is None
    )


def test_missing_cells_are_dashes_and_listed():
    summary = build(missing=("b", "none"))
    table = report.main_table(summary)
    row = [entry.text for entry in table.rows[-1]]
    assert row == ["B", MISSING, MISSING, MISSING, MISSING]
    assert notes.missing_cells(summary) == ("loss=b seed=1 (b)", "loss=none seed=1 (none)")
    note = "Missing cells (2 of 4): loss=b seed=1 (b); loss=none seed=1 (none)."
    assert note in table.notes and note in report.terminal(summary).replace("\n  ", " ")
    assert [e.text for e in report.comparison_table(summary).rows[0][2:]] == [MISSING] * 5
    lines = [line for line in report.csv_rows(summary) if line["row"] == "B"]
    assert lines and all("mean" not in line for line in lines)


def test_a_sick_trial_is_flagged():
    table = report.main_table(build(health="below_first_stage"))
    assert [entries[0].text for entries in table.rows][-1] == "B (!)"
    assert "(!) Health of B: below_first_stage (seed 1)." in table.notes
    assert "(!) First" not in "".join(table.notes)


def test_lists_without_a_usable_label_are_counted():
    found = build().trials
    for signature, facts in found.facts.items():
        facts["counts"] = {"lists": 45, "lists_left_out": 5 if signature.startswith("a") else 0}
    summary = summarise(parse(SPEC), found)
    said = [note for note in report.main_table(summary).notes if note.startswith("(!) Labels")]
    assert said == [
        "(!) Labels of A: 5 of 50 training lists were left out, since the teacher gave no usable "
        "ranking of them."
    ]
    assert said[0][:40] in report.terminal(summary)


def test_a_system_that_no_trial_holds_is_said():
    rows = [*SPEC["rows"], {"name": "Mix", "grid": "a", "system": "student+first_stage"}]
    summary = summarise(parse({**SPEC, "rows": rows}), build().trials)
    assert any(note.startswith("Mix: its trials hold no") for note in notes.footer(summary))


def test_the_weight_of_an_interpolation_is_said():
    found = build().trials
    for facts in found.facts.values():
        facts["collections"] = {"docs": {**COLLECTION, "weight": 0.4}}
    mixed = found.frame[found.frame["system"] == "student"].assign(system="student+first_stage")
    frame = pd.concat([found.frame, mixed], ignore_index=True)
    rows = [*SPEC["rows"], {"name": "Mix", "grid": "a", "system": "student+first_stage"}]
    both = Trials(frame, found.cells, found.missing, found.facts, found.runs)
    summary = summarise(parse({**SPEC, "rows": rows}), both)
    assert "Weight of the interpolation, chosen on dev: Mix: docs 0.4." in notes.footer(summary)


def test_files(summary, tmp_path):
    paths = report.write(summary, tmp_path / "deep" / "x")
    names = ["table.md", "table.tex", "table.csv", "figure.pdf", "figure.png"]
    assert [path.name for path in paths] == names
    assert paths[0].read_text(encoding="utf-8").startswith("# x\n\nA & B beat the first stage.")
    assert r"Stage\_1 only" in paths[1].read_text(encoding="utf-8")
    with paths[2].open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 * 2 + 2 * 2
    (a,) = [
        line
        for line in lines
        if (line["table"], line["row"], line["measure"]) == ("main", "A", "nDCG@10")
    ]
    scores = summary.scores["A", "docs", "nDCG@10"]
    first = summary.scores["First", "docs", "nDCG@10"].per_query
    assert float(a["mean"]) == scores.mean  # every digit
    expected = stats.ttest_rel(scores.per_query, first)
    assert float(a["p"]) == pytest.approx(expected.pvalue, rel=1e-9)
    assert float(a["p_holm"]) >= float(a["p"])
    assert (a["n"], a["seeds"], a["baseline"], a["family"]) == ("40", "1 2", "First", "4")
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in report.write(summary, tmp_path / "deep" / "x")] == before


def test_without_a_baseline_there_is_no_figure(summary, tmp_path):
    (tmp_path / "figure.pdf").write_text("old")
    bare = summarise(parse({**SPEC, "baseline": None, "comparisons": []}), summary.trials)
    assert [path.name for path in report.write(bare, tmp_path)] == [
        "table.md",
        "table.tex",
        "table.csv",
    ]
    assert not (tmp_path / "figure.pdf").exists()


def test_before_the_first_trial_the_table_has_its_rows():
    found = build().trials
    empty = Trials(found.frame.iloc[:0], found.cells, found.cells, {}, {})
    table = report.main_table(summarise(parse(SPEC), empty))
    assert [column.name for column in table.columns] == [
        "System",
        "nDCG@10",
        "RR@10",
        "Queries",
        "Seeds",
    ]
    assert {entry.text for row in table.rows for entry in row[1:]} == {MISSING}


def test_figure_panels(summary):
    (points,) = report.figure_panels(summary).values()
    assert [point.name for point in points] == ["Teacher", "Stage_1 only", "A", "B"]
    a = points[2]
    assert a.difference == pytest.approx(math.fsum(a.seeds) / 2)
    assert a.low < a.difference < a.high and a.significant
    assert points[0].reference and not a.reference
