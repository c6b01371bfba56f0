from rdx import scored
from rdx.config import Cell
from rdx.tracking import Row


def grid(*lines):
    """Cells and rows of lines of (overrides, score or None, state, health)."""
    cells = [Cell(tuple(o.split()), "", {}, {}, str(i)) for i, (o, *_) in enumerate(lines)]
    rows = [
        Row(signature=str(i), overrides=o, state=state, health=health,
            means={} if value is None else {"a/student/nDCG@10": value, "a/student/RR@10": 1.0})
        for i, (o, value, state, health) in enumerate(lines)
    ]  # fmt: skip
    return cells, rows


def test_seeds_are_averaged_and_what_all_have_is_left_out():
    lines = [
        ("loss=lce depth.k=10 seed=1", 0.25, "finished", "ok"),
        ("loss=lce depth.k=10 seed=2", 0.5, "finished", "ok"),
        ("loss=bce depth.k=10 seed=1", 0.125, "finished", "below_first_stage"),
        ("loss=bce depth.k=10 seed=2", None, "failed", None),
    ]
    head, lce, bce = (line.split() for line in scored.table(*grid(*lines), "nDCG@10").splitlines())
    assert head[0] == "setting" and "nDCG@10" in head
    assert lce == ["loss=lce", "2", "0.375", "0.250", "to", "0.500"]
    assert bce == ["loss=bce", "1", "0.125", "0.125", "below_first_stage,", "failed"]


def test_without_a_score_there_is_no_table():
    assert scored.table(*grid(("loss=lce", None, "failed", None)), "nDCG@10") == ""


def test_long_grids_are_cut():
    lines = [(f"depth.k={k}", 0.5, "finished", "ok") for k in range(scored.MOST + 2)]
    shown = scored.table(*grid(*lines), "nDCG@10").splitlines()
    assert len(shown) == 1 + scored.MOST + 1
