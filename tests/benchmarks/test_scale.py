"""The recipe of the paper on a stand-in of MS MARCO, from the download to the first steps."""

import pytest

from benchmarks.scale import PARTS, Sizes, measured, table
from rdx.rankings import read_parquet

SIZES = Sizes(passages=2_000, queries=300, ranked=40, depth=20)


@pytest.mark.slow
def test_the_recipe_reaches_the_first_steps_of_both_stages(tmp_path, monkeypatch):
    """Small, since the size is an argument: ``python -m benchmarks.scale`` runs the whole."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parts = {part.name: part for part in measured(tmp_path, SIZES)}
    assert list(parts) == ["fetch", *(f"{stage} {role}".rstrip() for stage, role in PARTS)]
    trained = [part for name, part in parts.items() if part.first_step is not None]
    assert {part.name.split()[0] for part in trained} == {"prefinetune", "distill"}
    assert all(0 < part.memory < 2 for name, part in parts.items())
    assert len(table(list(parts.values()))) == 2 + len(parts)

    [candidates] = (tmp_path / "store" / "candidates").glob("*/ranking.parquet")
    found = read_parquet(candidates)
    assert found.query_id.nunique() == SIZES.ranked and len(found) == SIZES.ranked * SIZES.depth
    query, third = found.iloc[0].query_id, found.iloc[2].doc_id
    assert int(third) == (int(query) * 7919 + 2 * 1499) % SIZES.passages  # as the run has it
    [taught] = (tmp_path / "store" / "teach").glob("*/teacher.parquet")
    ranks = read_parquet(taught).groupby("query_id").teacher_rank
    assert (ranks.max() == SIZES.depth).all() and (ranks.nunique() == SIZES.depth).all()
