import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from analysis import factors, power, replication, report, seeds
from analysis.factors import analyse, level_of, tukey
from analysis.figures.grid import conditions
from analysis.render import latex, markdown, text
from analysis.render.entry import DASH, Flag
from analysis.replication import judge
from analysis.significance import correct, paired_t
from analysis.spec import parse
from analysis.summary import summarise
from analysis.trials import Trials
from rdx.power import ASSUMED_SEED_SD, Design
from tests.analysis import facts as records

QUERIES = 40
GRID = {  # sub-grid: (overrides, seeds, effect)
    "net10": (("loss=ranknet", "depth.k=10"), (1, 2, 3), 0.00),
    "net100": (("loss=ranknet", "depth.k=100"), (1, 2, 3), 0.06),
    "adr10": (("loss=adr_mse", "depth.k=10"), (1, 2, 3), 0.01),
    "adr100": (("loss=adr_mse", "depth.k=100"), (1, 2), 0.02),
    "shuffled": (("loss=ranknet", "depth.k=10", "teacher=shuffled"), (1,), -0.1),
}
LEVELS = {"sampler": "bm25", "teacher": "rankzephyr", "depth/lists": "top", "student/lora": "none"}
NAMES = {
    "net10": "RankNet 10",
    "net100": "RankNet 100",
    "adr10": "ADR-MSE 10",
    "adr100": "ADR-MSE 100",
    "shuffled": "Shuffled",
}


def alone():
    """One seed per sub-grid."""
    return trials(grid={name: (o, (1,), e) for name, (o, _, e) in GRID.items()})


def trials(health="ok", grid=GRID):
    generator = np.random.default_rng(0)
    hard = generator.normal(0.5, 0.15, QUERIES)
    names = [f"q{i:02}" for i in range(QUERIES)]
    cells, facts, lines = [], {}, []
    for name, (overrides, run_seeds, effect) in grid.items():
        for seed in run_seeds:
            signature = f"{name}-{seed}"
            own = (*overrides, f"seed={seed}")
            cells.append(records.cell(own, name, signature, LEVELS, student={"layers": 6}))
            collections = {"c": records.collection(queries=QUERIES, k=100)}
            state = health if (name, seed) == ("net10", 1) else "ok"
            facts[signature] = records.trial(signature, seed, collections, state)
            student = hard + effect + generator.normal(0, 0.02) + generator.normal(0, 0.08, QUERIES)
            for system, values in (("first_stage", hard - 0.05), ("student", student)):
                line = (name, signature, seed, "c", system, "nDCG@10")
                lines += [(*line, query, value) for query, value in zip(names, values, strict=True)]
    columns = ["grid", "signature", "seed", "collection", "system", "measure", "query_id", "value"]
    frame = pd.DataFrame(lines, columns=columns)
    return Trials(frame, tuple(cells), (), facts, {})


def summary(stored=None, **spec):
    node = {
        "name": "x",
        "measures": ["nDCG@10"],
        "grid": dict.fromkeys(GRID, []),
        "baseline": "First",
        "rows": [
            {"name": "First", "system": "first_stage"},
            *({"name": NAMES[grid], "grid": grid} for grid in GRID),
        ],
    }
    return summarise(parse({**node, **spec}), stored or trials())


def expected(row, value, **more):
    one = {"row": row, "collection": "c", "measure": "nDCG@10", "value": value, "source": "paper"}
    return {**one, "tolerance": None, **more}


def column(table, name):
    at = [c.name for c in table.columns].index(name)
    return [row[at].text for row in table.rows]


def scores(numbers, row):
    return numbers.scores[row, "c", "nDCG@10"]


def further(numbers):
    """Every table after the main one."""
    return report.tables_of(numbers)[1:]


def test_which_tables():
    plain = [table.label for table in further(summary())]
    assert plain == ["x-seeds", "x-runs", "x-power"]
    full = summary(factors=["loss", "depth.k"], expected=[expected("First", 0.45)])
    labels = ["x-replication", "x-factors", "x-levels", "x-seeds", "x-runs", "x-power"]
    assert [table.label for table in further(full)] == labels
    assert [table.label for table in further(summary(alone()))] == ["x-power"]
    assert [table.label for table in further(summary(baseline=None))] == ["x-seeds"]


def test_every_table_renders():
    full = summary(
        factors=["loss", "depth.k"], expected=[expected("First", 0.45), expected("Shuffled", 0.7)]
    )
    for table in further(full):
        assert table.caption and table.notes
        for render in (markdown.render, latex.render, text.render):
            assert "nan" not in render(table).lower().replace("significan", "")


def test_nothing_run_yet():
    cells = trials().cells
    empty = Trials(trials().frame.iloc[:0], cells, cells, {}, {})
    numbers = summary(empty, factors=["loss"], expected=[expected("First", 0.5)])
    (table,) = further(numbers)
    assert column(table, "Verdict") == ["not run"]
    assert column(table, "Ours") == [DASH]


def test_replication():
    numbers = summary()
    ours = {row: scores(numbers, row).mean for row in ("First", "RankNet 100", "Shuffled")}
    published = [
        expected("First", round(ours["First"], 3)),
        expected("First", round(ours["First"] + 0.002, 3), source="readme"),
        expected("First", round(ours["First"] + 0.002, 3), source="notebook", tolerance=0.003),
        expected("RankNet 100", round(ours["RankNet 100"] + 0.02, 3)),
        expected("RankNet 100", round(ours["RankNet 100"] + 0.2, 3), source="readme"),
        expected("ADR-MSE 100", 0.5, collection="e"),
    ]
    numbers = summary(expected=published, collections=["c", "e"])
    table = replication.table(numbers)
    words = ["reproduced", "differs", "reproduced", "within noise", "differs", "not run"]
    assert column(table, "Verdict") == words
    assert "2 reproduced, 1 within noise, 2 differs, 1 not run" in table.caption
    assert column(table, "Runs") == ["–", "–", "–", "3", "3", "–"]
    means = [s.seed_means for s in numbers.scores.values() if len(s.seeds) > 1]
    pooled = math.sqrt(sum(len(m) * m.var() for m in means) / 7)
    assert any(f"{pooled:.4f}, pooled over rows with several runs, 7 df" in n for n in table.notes)
    seen = judge(numbers, numbers.spec.expected[3])
    assert seen.noise == pytest.approx(0.0005 + 2.364624 * pooled * math.sqrt(4 / 3), rel=1e-5)


def test_a_single_run_is_stamped_and_the_effect_ratio_shown():
    first = scores(summary(), "First").mean
    published = [expected("First", 0.4), expected("Shuffled", 0.3)]
    published.append(expected("Shuffled", 0.25, source="readme"))  # which has no first stage
    numbers = summary(expected=published)
    table = replication.table(numbers)
    assert column(table, "Runs") == ["–", "1 seed", "1 seed"]
    assert any("A single training run: Shuffled" in note for note in table.notes)
    ratio = (scores(numbers, "Shuffled").mean - first) / (0.3 - 0.4)
    assert column(table, "Effect ratio") == ["–", f"{ratio:.2f}".replace("-", "−"), "–"]


def test_a_collapsed_run_does_not_widen_the_noise():
    one = [expected("RankNet 100", 0.5)]
    whole, sick = summary(expected=one), summary(trials("nan"), expected=one)
    assert "7 df" in " ".join(replication.table(whole).notes)
    assert "5 df" in " ".join(replication.table(sick).notes)
    assumed = replication.table(summary(alone(), expected=one))
    assert f"assumed {ASSUMED_SEED_SD:g}" in " ".join(assumed.notes)


def test_factors_leave_confounded_cells_out():
    numbers = summary(factors=["loss", "depth.k", "sampler"])
    effects, levels = factors.tables(numbers)
    runs = [(n, s) for n, (_, run_seeds, _) in GRID.items() if n != "shuffled" for s in run_seeds]
    table = np.array([scores(numbers, NAMES[n]).values[:, s - 1] for n, s in runs])
    own = {
        "loss": ["ranknet" if n.startswith("net") else "adr_mse" for n, _ in runs],
        "depth.k": [n[3:] for n, _ in runs],
    }
    grid = analyse(table, own)
    shown = [text for text in column(effects, "Effect") if " at " not in text]
    assert shown == ["loss", "depth.k", "loss × depth.k", "query"]
    f = [row[3].text for row in effects.rows if " at " not in row[1].text]
    assert f == [*(f"{effect.f:.2f}" for effect in grid.effects[:3]), "–"]
    notes = " ".join(effects.notes)
    assert (
        "left out: teacher=shuffled" in notes
        and "one level only among these cells: sampler" in notes
    )
    assert "11 runs on 40 queries" in notes
    assert column(levels, "Levels") == ["ranknet − adr_mse", "10 − 100"]
    pairs = [tukey(grid, name)[0] for name in own]
    assert [float(d.replace("−", "-")) for d in column(levels, "Difference")] == pytest.approx(
        [pair.difference for pair in pairs], abs=5e-4
    )


@pytest.mark.parametrize("names", [["loss", "depth.k"], ["loss", "depth/lists", "student/lora"]])
def test_a_default_and_its_explicit_spelling_are_one_level(names):
    spelling = {"net10": ("depth/lists=top",), "adr10": ("depth/lists=top", "student/lora=none")}
    grid = {name: ((*own, *spelling.get(name, ())), *rest) for name, (own, *rest) in GRID.items()}
    plain, explicit = summary(factors=names), summary(trials(grid=grid), factors=names)
    assert factors.tables(explicit) == factors.tables(plain)
    keys = [[*conditions(numbers, "nDCG@10").levels[0]] for numbers in (plain, explicit)]
    assert keys == [["loss", "depth.k", "teacher"]] * 2


def test_simple_effects_stand_below_a_significant_interaction():
    strong = {**GRID, "net100": (GRID["net100"][0], (1, 2, 3), 0.4)}
    effects, _ = factors.tables(summary(trials(grid=strong), factors=["loss", "depth.k"]))
    assert "loss at depth.k=100" in column(effects, "Effect")
    assert "depth.k at loss=adr_mse" in column(effects, "Effect")


def test_an_incomplete_grid_has_main_effects_only():
    part = {name: GRID[name] for name in ("net10", "net100", "adr10")}
    effects, _ = factors.tables(summary(trials(grid=part), factors=["loss", "depth.k"]))
    assert column(effects, "Effect") == ["loss", "depth.k", "query"]
    assert "only main effects" in " ".join(effects.notes)


def test_what_was_not_distilled_is_no_level_of_a_factor():
    """Trials are drawn in order: those of the grid are the same with one more behind them."""
    more = {**GRID, "shuffled": (("loss=none", "depth.k=10"), (1,), -0.1)}
    names = ["loss", "depth.k"]
    plain, with_it = (factors.tables(summary(trials(grid=g), factors=names)) for g in (GRID, more))
    for without, table in zip(plain, with_it, strict=True):
        assert table.rows == without.rows
    assert "left out: loss=none" in " ".join(with_it[0].notes)


def test_single_seed_grids_are_stamped():
    effects, _ = factors.tables(summary(alone(), factors=["loss", "depth.k"]))
    assert "1 seed per cell" in " ".join(effects.notes)
    df = [float(text) for text in column(effects, "df of error")[:-1] if text != "–"]
    assert df == [QUERIES - 1.0] * len(df)


def test_levels():
    cell = trials().cells[0]
    names = ("loss", "depth.k", "sampler", "student.layers")
    assert [level_of(cell, name) for name in names] == ["ranknet", "10", "bm25", "6"]
    for name in ("budget", "student.heads"):
        with pytest.raises(ValueError, match=f"'{name}' is no config group"):
            level_of(cell, name)
    assert factors.tables(summary(factors=["sampler"])) == ()  # nothing varies


def test_variances_and_differences_of_runs():
    numbers = summary()
    variances, differences = seeds.tables(numbers)
    assert column(variances, "System") == [NAMES[n] for n in GRID if n != "shuffled"]
    parts = seeds.components(scores(numbers, "RankNet 10").values)
    assert column(variances, "SD over seeds")[0] == f"{parts.seed_sd:.4f}"
    assert column(variances, "SD queries")[0] == f"{math.sqrt(parts.query):.4f}"
    found = [
        seeds.difference(
            scores(numbers, NAMES[n]).values,
            scores(numbers, "First").values,
            trained=(True, False),
            others=[scores(numbers, NAMES[o]).values for o in GRID if o not in (n, "shuffled")],
        )
        for n in GRID
    ]
    adjusted, reject = correct([d.p for d in found])
    assert column(differences, "Runs") == [
        "3 vs –",
        "3 vs –",
        "3 vs –",
        "2 vs –",
        "1 vs – (1 seed)",
    ]
    assert [Flag.SIGNIFICANT in row[0].flags for row in differences.rows] == reject.tolist()
    assert column(differences, "SE, both") == [f"{d.error:.4f}" for d in found]
    assert "A single training run: Shuffled" in " ".join(differences.notes)
    assert min(adjusted) < 0.05


def test_differences_to_a_trained_baseline():
    numbers = summary(baseline="RankNet 10")
    _, differences = seeds.tables(numbers)
    assert "First" in column(differences, "System")
    assert column(differences, "Runs")[0] == "– vs 3"


def test_power():
    numbers = summary()
    table = power.table(numbers)
    (one,) = power.sensitivities(numbers)
    known = power.assumptions(numbers)["c"]
    spreads = [
        (scores(numbers, NAMES[n]).per_query - scores(numbers, "First").per_query).std(ddof=1)
        for n in GRID
    ]
    assert known.sd == pytest.approx(np.median(spreads))
    assert (one.design.queries, one.design.seeds, one.design.tests) == (QUERIES, 1, 5)
    assert one.detectable == pytest.approx(Design(QUERIES, 1, known, trained=1).detectable())
    assert one.detectable_holm == pytest.approx(
        Design(QUERIES, 1, known, tests=5, trained=1).detectable()
    )
    assert column(table, "First Holm step") == [f"{one.detectable_holm:.3f}"]
    assert column(table, "Seeds") == ["1 seed"]
    assert "median of 5 rows" in " ".join(table.notes)
    (both,) = power.sensitivities(summary(baseline="RankNet 100"))
    other = power.assumptions(summary(baseline="RankNet 100"))["c"]
    assert both.design.tests == 5  # the first stage is tested too, though its spread is not used
    assert both.detectable == pytest.approx(Design(QUERIES, 1, other, trained=2).detectable())
    # One family of every test: the comparisons count, too.
    every = summary(family="grid", comparisons=[["RankNet 100", "RankNet 10"]])
    (own,) = power.sensitivities(every)
    assert own.design.tests == len(every.against) + 1 == 6
    strict = dataclasses.replace(numbers, spec=dataclasses.replace(numbers.spec, alpha=0.001))
    assert power.sensitivities(strict)[0].detectable > one.detectable


def test_the_main_test_and_the_mixed_model_share_the_difference():
    numbers = summary()
    a, b = scores(numbers, "RankNet 100"), scores(numbers, "First")
    mixed = seeds.difference(a.values, b.values, trained=(True, False))
    plain = paired_t(a.per_query, b.per_query)
    assert mixed.difference == pytest.approx(plain.difference)
    assert mixed.error >= mixed.error_queries


def tied(numbers, **ranges):
    """The summary with tie ranges of nDCG@10 in the facts: signature -> system -> [low, high]."""
    facts = dict(numbers.trials.facts)
    for signature, systems in ranges.items():
        own = {name: {"nDCG@10": ends} for name, ends in systems.items()}
        signature = signature.replace("_", "-")
        here = {"c": records.collection(queries=QUERIES, tie_range=own)}
        facts[signature] = dataclasses.replace(facts[signature], collections=here)
    return dataclasses.replace(numbers, trials=dataclasses.replace(numbers.trials, facts=facts))


def test_ties_widen_what_counts_as_reproduced_and_are_printed():
    plain = summary()
    first, student = scores(plain, "First").mean, scores(plain, "RankNet 10")
    published = (round(first + 0.02, 3), round(student.mean + 0.3, 3))
    expected = [
        {"row": row, "collection": "c", "measure": "nDCG@10", "value": value, "source": "paper"}
        for row, value in zip(("First", "RankNet 10"), published, strict=True)
    ]
    numbers = summary(expected=expected)
    table = replication.table(numbers)
    assert column(table, "Verdict")[0] == "differs"
    assert all(one.name != "Tie range" for one in table.columns)
    numbers = tied(
        numbers,
        net10_1={"first_stage": (first - 0.01, published[0] + 0.001), "student": (0.0, 1.0)},
    )
    table = replication.table(numbers)
    assert column(table, "Verdict")[0] == "reproduced"
    # two of the three seeds have no ties and add their own mean to both ends
    rest = sum(student.seed_means[1:])
    ends = f"[{rest / 3:.3f}, {(1 + rest) / 3:.3f}]"
    low, high = f"{first - 0.01:.3f}", f"{published[0] + 0.001:.3f}"
    assert column(table, "Tie range") == [f"[{low}, {high}]", ends]
    assert any("order of the tied passages" in note for note in table.notes)
