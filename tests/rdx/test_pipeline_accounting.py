"""What a whole cell counts, shows, stores and refuses."""

import json

import pytest

from rdx import config
from rdx.accounting import TooMany


def run(world, store, *more):
    from rdx import pipeline

    [cell] = config.cells(world.overrides(store, *more))
    config.check(cell)
    return pipeline.run(cell.cfg, cell.levels)


def stored(store, summary, stage, name):
    return json.loads((store / stage / summary["signatures"][stage] / name).read_text())


def test_a_limit_stops_a_cell_before_it_trains(world, tmp_path, capsys):
    """The toy collection has no test split: every training query is a test query."""
    drawn = ("depth/lists=single_relevant", "depth.pool=8", "prefinetune=none")
    drawn += ("student.passage_length=3",)
    with pytest.raises(TooMany, match=r"train_queries_tested: 8 of 8 .*limits\.train_queries_test"):
        run(world, tmp_path, *drawn, "limits.train_queries_tested=0.5")
    assert not [one for one in (tmp_path / "distill").iterdir() if "." not in one.name]
    assert not (tmp_path / "prefinetune").exists()
    capsys.readouterr()
    summary = run(world, tmp_path, *drawn)
    said = capsys.readouterr().out
    assert summary["stages"][f"teach/{summary['signatures']['teach']}"] == "stored"
    assert "train_queries_tested: 8 of 8 (100.0%)" in said

    sample = stored(tmp_path, summary, "candidates", "queries.json")
    fates = stored(tmp_path, summary, "distill", "queries.json")
    assert sample["collection"] == fates["collection"] == "files"
    assert list(fates["queries"]) == sample["queries"] and len(sample["queries"]) == 8
    facts = stored(tmp_path, summary, "distill", "facts.json")
    used = sum(fate == "used" for fate in fates["queries"].values())
    assert facts["lists"] == used and facts["lists_left_out"] == 8 - used
    assert facts["accounting"]["lists_left_out"] == {"n": 8 - used, "of": 8}
    assert facts["accounting"]["train_queries_tested"] == {"n": 8, "of": 8}
    assert facts["accounting"]["queries_truncated"]["of"] == used

    texts = stored(tmp_path, summary, "evaluate", "trial.json")["timing"]["files"]
    assert 0 < texts["texts_truncated"] < texts["texts"]
    assert f"files/texts_truncated: {texts['texts_truncated']}" in said

    # a limit is no part of a result: nothing is computed again
    again = run(world, tmp_path, *drawn, "limits.lists_left_out=0")
    assert "computed" not in again["stages"].values()


def test_passages_of_a_run_without_text_are_counted(world, tmp_path, capsys):
    asked = [f"q{i}" for i in range(30) if i % 5 != 4]
    docs = ("d1", "gone", "d2", "d3")
    file = tmp_path / "given.run"
    lines = [f"{q} Q0 {d} {n} {9 - n} x\n" for q in asked for n, d in enumerate(docs, 1)]
    file.write_text("".join(lines))
    given = ("sampler=recorded", f"sampler.run={file}", "sampler.missing=drop", "depth.k=3")
    with pytest.raises(TooMany, match=r"passages_missing: 8 of 32 \(25\.0%\)"):
        run(world, tmp_path, *given, "prefinetune=none", "limits.passages_missing=0.1")
    said = capsys.readouterr().out
    assert "8 of 32 rows left out" in said and "passages_missing: 8 of 32 (25.0%)" in said


def test_samples_are_nested_as_stored(world, tmp_path):
    kept = []
    for n in (3, 6):
        summary = run(world, tmp_path, f"depth.queries={n}", "prefinetune=none")
        kept.append(stored(tmp_path, summary, "candidates", "queries.json")["queries"])
    assert len(kept[0]) == 3 and kept[1][:3] == kept[0] and len(set(kept[1])) == 6
