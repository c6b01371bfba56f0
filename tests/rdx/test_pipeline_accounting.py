"""What a whole cell counts, shows, stores and refuses."""

import pytest

from rdx.accounting import TooMany
from rdx.facts import Count
from rdx.stages import STAGES


def stored(store, summary, stage):
    """The artifact of a stage."""
    return STAGES[stage].artifact(store / stage / summary.facts.signatures[stage])


def test_a_limit_stops_a_cell_before_it_trains(world, tmp_path, capsys):
    """The toy collection has no test split: every training query is a test query."""
    drawn = ("depth/lists=single_relevant", "depth.pool=8", "prefinetune=none")
    drawn += ("student.passage_length=3",)
    with pytest.raises(TooMany, match="train_queries_tested: 8 of 8 "):
        world.run(tmp_path, *drawn, "limits.train_queries_tested=0.5")
    assert not (tmp_path / "prefinetune").exists()
    capsys.readouterr()
    summary = world.run(tmp_path, *drawn)
    said = capsys.readouterr().out
    assert summary.stages[f"teach/{summary.facts.signatures['teach']}"] == "stored"
    assert "train_queries_tested: 8 of 8 (100.0%)" in said

    sample = stored(tmp_path, summary, "candidates").sample
    selection = stored(tmp_path, summary, "select").selection
    checkpoint = stored(tmp_path, summary, "distill")
    assert sample.collection == selection.collection == "files"
    assert tuple(selection.fates) == sample.queries and len(sample.queries) == 8
    used = sum(fate == "used" for fate in selection.fates.values())
    dropped = checkpoint.facts.dropped
    assert checkpoint.facts.training.lists == used
    assert dropped["lists_left_out"] == Count(8 - used, 8)
    assert dropped["train_queries_tested"] == Count(8, 8)
    assert dropped["queries_truncated"].of == used

    texts = summary.facts.timing["files"]
    assert 0 < texts.texts_truncated < texts.texts
    assert f"files/texts_truncated: {texts.texts_truncated}" in said

    # a limit is no part of a result: nothing is computed again
    again = world.run(tmp_path, *drawn, "limits.lists_left_out=0")
    assert "computed" not in again.stages.values()


def test_passages_of_a_run_without_text_are_counted(world, tmp_path, capsys):
    queries = [f"q{i}" for i in range(30) if i % 5 != 4]
    docs = ("d1", "gone", "d2", "d3")
    file = tmp_path / "recorded.run"
    lines = [f"{q} Q0 {d} {n} {9 - n} x\n" for q in queries for n, d in enumerate(docs, 1)]
    file.write_text("".join(lines))
    recorded = ("sampler=recorded", f"sampler.run={file}", "sampler.missing=drop", "depth.k=3")
    with pytest.raises(TooMany, match=r"passages_missing: 8 of 32 \(25\.0%\)"):
        world.run(tmp_path, *recorded, "prefinetune=none", "limits.passages_missing=0.1")
    assert "passages_missing: 8 of 32 (25.0%)" in capsys.readouterr().out


def test_samples_are_nested_as_stored(world, tmp_path):
    cells = [world.run(tmp_path, f"depth.queries={n}", "prefinetune=none") for n in (3, 6)]
    three, six = (stored(tmp_path, cell, "candidates").sample.queries for cell in cells)
    assert len(three) == 3 and six[:3] == three and len(set(six)) == 6
