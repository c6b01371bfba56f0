import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import footer, report
from analysis.comparability import collection_facts
from analysis.means import why_left_out
from analysis.render.csv import lines as csv_lines
from analysis.render.entry import ABSENT, DASH, Flag
from analysis.spec import parse
from analysis.summary import summarise
from analysis.tables import comparison_table, main_table
from analysis.trials import Trials
from rdx.facts import CheckpointFacts, Count
from tests.analysis import facts as records

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
COLLECTION = records.collection(
    queries=40,
    k=20,
    digest="0123456789abcdef0123",
    first_stage={"engine": "bm25s", "version": "0.3", "k1": 0.9, "stem": "english"},
)


def systems(shift, generator):
    first = np.linspace(0.2, 0.6, 40)
    noise = generator.normal(0, 0.05, 40)
    noise -= noise.mean()  # the runs of a row have one mean: they count as 0 in its error
    return {
        "first_stage": first,
        "oracle": np.full(40, 0.9),
        "teacher": first[:10] + 0.05,
        "student": first + shift + noise,
    }


def build(health="ok", missing=()):
    generator = np.random.default_rng(0)
    cells, facts, frames, lost = [], {}, [], []
    for grid, seed, shift in (("a", 1, 0.1), ("a", 2, 0.1), ("b", 1, 0.0), ("none", 1, -0.1)):
        signature = f"{grid}{seed}" + "0" * 30
        overrides = (f"loss={grid}", f"seed={seed}", "+experiments=x")
        cells.append(records.cell(overrides, grid, signature))
        values = systems(shift, generator)
        if grid in missing:
            lost.append(cells[-1])
            continue
        here = dataclasses.replace(COLLECTION, judged_at_10=0.5 + 0.1 * (grid == "b"))
        state = health if grid == "b" else "ok"
        facts[signature] = records.trial(signature, seed, {"docs": here}, state)
        frames += [
            pd.DataFrame({"query_id": QUERIES[: len(v)], "value": v}).assign(
                grid=grid,
                signature=signature,
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
    table = main_table(summary)
    a = cell(table, "A", "docs nDCG@10")
    mean = summary.scores["A", "docs", "nDCG@10"].mean
    assert (a.text, a.value, a.flags) == (f"{mean:.3f}", mean, {Flag.BEST, Flag.SIGNIFICANT})
    assert Flag.SECOND in cell(table, "B", "docs nDCG@10").flags
    assert cell(table, "First", "docs nDCG@10").text == "0.400"
    oracle = cell(table, "Oracle", "docs RR@10")
    assert (oracle.text, oracle.flags) == ("0.900", set())
    assert [cell(table, row, "Queries").text for row in ("A", "Teacher")] == ["40", "10"]
    assert [cell(table, row, "Seeds").text for row in ("A", "B", "First")] == ["2", "1 seed", "–"]


def test_the_footer_says_what_the_numbers_rest_on(summary):
    sentences = "\n".join(footer.sentences(summary))
    for part in (
        "Holm within each collection and measure (family of 4)",
        "Claims are about the choice",
        "Stage_1 only; A; B.",
        "A: 1, 2; B: 1",
        "(Stage_1 only; B)",
        "Teacher: 10 of the 40 queries of docs",
        "docs: 40 queries, top 20 re-ranked, first stage bm25s 0.3 (k1=0.9, stem=english), "
        "Judged@10 of the trials 0.500 to 0.600, best possible order 0.900, data 0123456789abcdef.",
        "trec_eval",
        "A: a1000000 a2000000; B: b1000000",
    ):
        assert part in sentences
    assert not footer.alarms(summary)


def test_comparison_table(summary):
    table = comparison_table(summary)
    assert len(table.rows) == 4  # two pairs x two measures, all in one family
    assert "all 4 tests" in table.notes[0]
    pair, _, difference, low, p, queries, seeds = table.rows[0]
    assert (pair.text, pair.rows) == ("A − B", ("A", "B"))
    tested = summary.comparisons[0]
    assert difference.value == tested.comparison.difference > 0
    assert Flag.SIGNIFICANT in difference.flags
    assert low.value == tested.comparison.low and p.value == tested.p_corrected < 0.001
    assert (queries.value, seeds.text) == (40, "2 vs 1 (1 seed)")
    assert comparison_table(summarise(parse({**SPEC, "comparisons": []}), summary.trials)) is None


def test_comparisons_not_run_are_a_line_of_the_footer():
    summary = build(missing=("none",))
    assert footer.comparisons_not_run(summary) == [("A", "Stage_1 only")]
    assert [row[0].text for row in comparison_table(summary).rows] == ["A − B"] * 2
    assert any("not run: A − Stage_1 only." in note for note in main_table(summary).notes)
    assert comparison_table(build(missing=("b", "none"))) is None


def test_missing_cells_are_dashes_and_listed():
    summary = build(missing=("b", "none"))
    table = main_table(summary)
    rows = {name.text: others for name, *others in table.rows}
    assert rows["B"] == [ABSENT] * 4
    [alarm] = footer.alarms(summary)
    assert "(2 of 4): loss=b seed=1 (b); loss=none seed=1 (none)" in alarm
    assert alarm in table.notes and alarm in report.terminal(summary).replace("\n  ", " ")
    lines = [line for line in csv_lines(summary) if line.row == "B"]
    assert lines and all(line.mean is None for line in lines)


def test_an_alarm_names_some_of_many_missing_cells_and_the_notes_all():
    summary = build(missing=("b",))
    [lost] = summary.trials.missing
    cells = tuple(dataclasses.replace(lost, grid=f"g{i}") for i in range(9))
    trials = dataclasses.replace(summary.trials, missing=cells)
    many = dataclasses.replace(summary, trials=trials)
    [alarm], notes = footer.alarms(many), " ".join(footer.sentences(many))
    assert [f"(g{i})" in alarm for i in range(9)] == [i < footer.MOST_NAMED for i in range(9)]
    assert all(f"(g{i})" in notes for i in range(9))


def test_the_terminal_shows_the_main_table_and_one_sentence(summary):
    short, full = report.terminal(summary), report.terminal(summary, full=True)
    told = [str(sentence) for sentence in report.answer_of(summary)]
    plain, every = (" ".join(shown.split()) for shown in (short, full))
    assert [sentence in plain for sentence in told] == [i == 0 for i in range(len(told))]
    assert all(sentence in every for sentence in told)
    second = report.tables_of(summary)[1]
    head = second.columns[0].name
    assert head in full and head not in short


def test_a_sick_trial_is_flagged():
    summary = build(health="below_first_stage")
    names = [row[0] for row in main_table(summary).rows]
    assert [name.text for name in names if Flag.ALARM in name.flags] == ["B"]
    [alarm] = footer.alarms(summary)
    assert "B (seed 1)" in alarm
    assert alarm.count("below_first_stage") == 1


def test_lists_without_a_usable_label_are_counted():
    found = build().trials
    for signature, facts in found.facts.items():
        lost = Count(5 if signature.startswith("a") else 0, 50)
        checkpoint = CheckpointFacts(dropped={"lists_left_out": lost})
        found.facts[signature] = dataclasses.replace(facts, checkpoint=checkpoint)
    summary = summarise(parse(SPEC), found)
    [alarm] = footer.alarms(summary)
    assert "A: 5 of 50 training lists" in alarm
    assert alarm in report.terminal(summary).replace("\n  ", " ")


def test_a_system_that_no_trial_holds_is_said():
    rows = [*SPEC["rows"], {"name": "Mix", "grid": "a", "system": "student+first_stage"}]
    summary = summarise(parse({**SPEC, "rows": rows}), build().trials)
    assert footer.alarms(summary)[0].startswith("Mix:")


def test_the_weight_of_an_interpolation_is_said():
    found = build().trials
    for facts in found.facts.values():
        facts.collections["docs"] = dataclasses.replace(COLLECTION, weight=0.4)
    mixed = found.frame[found.frame["system"] == "student"].assign(system="student+first_stage")
    frame = pd.concat([found.frame, mixed], ignore_index=True)
    rows = [*SPEC["rows"], {"name": "Mix", "grid": "a", "system": "student+first_stage"}]
    both = Trials(frame, found.cells, found.missing, found.facts, found.runs)
    summary = summarise(parse({**SPEC, "rows": rows}), both)
    assert any("Mix: docs 0.4." in note for note in footer.sentences(summary))


def test_files(summary, tmp_path):
    paths = report.write(summary, tmp_path / "deep" / "x")
    mask = (tmp_path / "deep").stat().st_mode & 0o666  # as the umask has it
    assert {path.stat().st_mode & 0o777 for path in paths} == {mask}
    names = ["table.md", "table.tex", "table.csv", "report.html"]
    assert [path.name for path in paths[:4]] == names
    drawn = {path.name for path in paths[4:]}
    assert {f"figure-differences{suffix}" for suffix in (".pdf", ".svg", ".png")} <= drawn
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
    assert float(a["p_corrected"]) >= float(a["p"])
    assert (a["n"], a["seeds"], a["baseline"], a["family"]) == ("40", "1 2", "First", "4")
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in report.write(summary, tmp_path / "deep" / "x")] == before


def test_without_a_baseline_nothing_is_tested(summary, tmp_path):
    bare = summarise(parse({**SPEC, "baseline": None, "comparisons": []}), summary.trials)
    names = [path.name for path in report.write(bare, tmp_path)]
    assert "table.md" in names and not any("differences" in name for name in names)
    sentences = " ".join(footer.sentences(bare))
    assert "†" not in sentences and "intervals" not in sentences
    assert {line.p for line in csv_lines(bare)} == {None}


def test_before_the_first_trial_the_table_has_its_rows():
    found = build().trials
    empty = Trials(found.frame.iloc[:0], found.cells, found.cells, {}, {})
    table = main_table(summarise(parse(SPEC), empty))
    assert [column.name for column in table.columns] == [
        "System",
        "nDCG@10",
        "RR@10",
        "Queries",
        "Seeds",
    ]
    assert {entry.text for row in table.rows for entry in row[1:]} == {DASH}


def again(summary, **changes):
    return summarise(parse({**SPEC, **changes}), summary.trials)


def test_each_baseline_has_its_mark(summary):
    both = again(summary, baseline=["First", "Stage_1 only"])
    table = main_table(both)
    a = cell(table, "A", "docs nDCG@10")
    assert (a.marks, a.suffix) == ("‡", "†‡") and Flag.SIGNIFICANT in a.flags
    b = cell(table, "B", "docs nDCG@10")  # near the first stage, far from stage 1
    assert b.suffix == "‡"
    assert cell(table, "Stage_1 only", "docs nDCG@10").suffix == "†"  # once, not from both sides
    assert cell(table, "First", "docs nDCG@10").suffix == ""
    (note,) = [n for n in table.notes if n.startswith("Differs significantly")]
    assert "from First (†), Stage_1 only (‡): two-sided t-test" in note
    assert "(family of 7)" in note
    lines = [line for line in csv_lines(both) if line.table == "baselines"]
    assert {line.baseline for line in lines} == {"Stage_1 only"} and len(lines) == 3 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": "wilcoxon"}, "two-sided Wilcoxon signed-rank test over queries, Holm within"),
        ({"test": "randomisation"}, "randomisation test over queries (10,000 assignments of signs"),
        ({"correction": "bh"}, "Benjamini-Hochberg within each collection and measure (family of"),
        ({"family": "all"}, "Holm within the whole table (family of 8)"),
        ({"family": "grid"}, "Holm over every test of this spec (family of 12)"),
        ({"interval": "bca"}, "bootstrap intervals (BCa, 10,000 samples of queries, seed 0)"),
    ],
)
def test_the_footer_names_what_the_spec_chose(summary, changes, words):
    chosen = again(summary, **changes)
    sentences = " ".join(footer.sentences(chosen))
    assert words in sentences and words not in " ".join(footer.sentences(summary))
    table = comparison_table(chosen)
    if "correction" in changes:
        assert table.columns[4].name == "p (Benjamini-Hochberg)"
    if changes.get("family") == "grid":
        assert "over all 12 tests of this spec" in table.notes[0]
    assert {line.test for line in csv_lines(chosen) if line.test} == {changes.get("test", "t")}


def test_equivalence_within_the_margin(summary):
    wide = again(summary, margin=0.05)
    b = cell(main_table(wide), "B", "docs nDCG@10")
    assert b.suffix == "≈"
    assert cell(main_table(wide), "A", "docs nDCG@10").suffix == "†"
    (note,) = [n for n in footer.sentences(wide) if n.startswith("≈")]
    assert "within ±0.05" in note and note.endswith("(non-inferior): none.")  # A is better
    strict = again(summary, margin=0.05, alpha=1e-9)
    (note,) = [n for n in footer.sentences(strict) if n.startswith("≈")]
    assert note.endswith("none.")
    narrow = again(summary, margin=0.001)
    assert cell(main_table(narrow), "B", "docs nDCG@10").suffix == ""
    two = again(summary, margin=0.05, baseline=["Teacher", "First"])
    assert "≈‡" in cell(main_table(two), "B", "docs nDCG@10").suffix
    (line,) = [
        line
        for line in csv_lines(wide)
        if (line.table, line.row, line.measure) == ("main", "B", "nDCG@10")
    ]
    assert (line.equivalent, line.margin) == (True, 0.05)


def test_all_pairs_have_letters_in_a_column(summary):
    lettered = again(summary, all_pairs=True)
    table = main_table(lettered)
    names = [column.name for column in table.columns]
    assert names == ["System", "nDCG@10", "all pairs", "RR@10", "all pairs", "Queries", "Seeds"]
    letters = {row[0].text: row[2].text for row in table.rows}
    assert letters["A"] == "a" and letters["Stage_1 only"] == "c"
    assert letters["B"] == letters["First"] == "b"
    assert letters["Oracle"] == letters["Teacher"] == DASH  # not tested; other queries
    (note,) = [n for n in table.notes if n.startswith("All pairs")]
    assert "(family of 6)" in note and "not among them: Teacher; Oracle." in note
    lines = [line for line in csv_lines(lettered) if line.table == "pairs"]
    assert len(lines) == 6 * 2


def test_imported_runs_recipe_commits_and_impossible_cells_are_said(summary):
    found = summary.trials
    run = records.imported("theirs", file="run.trec", sha256="ab" * 32, source="them")
    imported = records.trial("c" * 32, 0, {"docs": COLLECTION}, imported=run)
    part = found.frame[(found.frame["system"] == "student") & (found.frame["grid"] == "b")]
    part = part.assign(grid="", signature="c" * 32, system="run:theirs", seed=0)
    more = dataclasses.replace(
        found,
        frame=pd.concat([found.frame, part], ignore_index=True),
        facts={**found.facts, "c" * 32: imported},
        left_out=((records.cell(("loss=bce", "+experiments=x"), "b"), "needs labels"),),
        commits={signature: "0123456789abcdef" for signature in found.facts},
        runs={"c" * 32: "run-7"},
    )
    rows = [
        *SPEC["rows"],
        {"name": "Theirs", "system": "run:theirs"},
        {"name": "Nobody's", "system": "run:nobody"},
    ]
    fields = {"epochs": [3, "assumed"], "batch": [16, "paper"]}
    numbers = summarise(parse({**SPEC, "rows": rows, "fields": fields}), more)
    table = main_table(numbers)
    shown = cell(table, "Theirs", "docs nDCG@10").text
    assert shown == cell(table, "B", "docs nDCG@10").text
    assert cell(table, "Theirs", "Seeds").text == DASH
    assert cell(table, "Nobody's", "docs nDCG@10").text == DASH
    for note in (
        "Impossible cells (1): loss=bce (b): needs labels.",
        "Theirs was imported: run.trec, them, sha256 abababababab.",
        "Nobody's: no run has been imported under the name 'nobody'.",
        "Recipe, as in the paper: batch = 16; assumed here: epochs = 3.",
        "Code that ran the trials: commit 0123456789.",
    ):
        assert note in table.notes
    assert "Impossible cells (1)" in report.terminal(numbers)
    (line,) = [
        line for line in csv_lines(numbers) if (line.row, line.measure) == ("Theirs", "RR@10")
    ]
    assert line.runs == ("run-7",)


def test_rows_whose_weights_were_selected_on_a_collection_are_marked():
    summary = build()
    assert not any("selected" in line for line in footer.alarms(summary))
    name = summary.collections[0]
    facts = summary.trials.facts[summary.signatures["B"][0]]
    facts.collections[name] = dataclasses.replace(facts.collections[name], selected_on=True)
    (note,) = [line for line in footer.alarms(summary) if "selected" in line]
    assert note.startswith("B: ") and name in note
    told = collection_facts(summary.trials.facts)  # for all rows, so that means are of the same
    assert [c for c in summary.collections if why_left_out(told[c])] == [name]


def test_rows_that_differ_in_precision_are_marked():
    summary = build()
    for facts in summary.trials.facts.values():
        facts.precision["trainer.precision"] = "bf16"
    assert "Precision: trainer bf16." in footer.sentences(summary)
    summary.trials.facts[summary.signatures["B"][0]].precision["trainer.precision"] = "fp32"
    (note,) = [line for line in footer.sentences(summary) if "trainer.precision" in line]
    before, after = note.split("fp32")
    assert "(B)" in after and "(Stage_1 only, A)" in before
