"""Finished lists of a killed labelling: read again, and damaged lines passed over."""

import pandas as pd
import pytest

from rdx import rankings
from rdx.collection import Collection
from rdx.parts import WINDOWS
from rdx.teachers import Endpoint, Listwise
from rdx.teachers.finished import NAME, Finished
from rdx.teachers.session import Session
from rdx.teachers.window_table import Outcome
from tests.rdx.faulty_server import FaultyServer


def outcome(*order):
    return Outcome(order, "ok", 1, 300, "ab" * 32, False, 0, 3, 5)


def test_what_is_added_is_there_for_the_next_process_only(tmp_path):
    with pytest.raises(KeyboardInterrupt), Finished(tmp_path) as first:
        first.add(0, 1, [outcome(1, 0), outcome(0, 2, 1)])
        first.add(3, 0, [outcome(0, 1)])
        assert not first.outcomes(0, 1)  # nobody asks twice for what is in memory
        raise KeyboardInterrupt
    with Finished(tmp_path) as second:
        assert len(second) == 2
        assert second.outcomes(3, 0) == [outcome(0, 1)]
        assert second.outcomes(0, 1) == [outcome(1, 0), outcome(0, 2, 1)]
        assert second.outcomes(0, 0) == []
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("cut", [1, 30, 90])
def test_torn_and_damaged_lines_are_passed_over(tmp_path, cut):
    with pytest.raises(KeyboardInterrupt), Finished(tmp_path) as first:
        for place in range(3):
            first.add(place, 0, [outcome(place, 5)])
        raise KeyboardInterrupt
    path = tmp_path / NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\0" * len(lines[0][:-1]) + b"\n" + lines[1] + lines[2][:-cut])
    with pytest.raises(KeyboardInterrupt), Finished(tmp_path) as second:
        second.add(2, 0, [outcome(7, 8)])
        assert [second.outcomes(place, 0) for place in range(2)] == [[], [outcome(1, 5)]]
        raise KeyboardInterrupt
    with Finished(tmp_path) as third:
        assert third.outcomes(1, 0) == [outcome(1, 5)]
        assert third.outcomes(2, 0) == [outcome(7, 8)]


@pytest.mark.parametrize("shuffles", [1, 3])
def test_a_killed_labelling_goes_on_without_the_ledger(tmp_path, monkeypatch, shuffles):
    """Its ranking and table of windows are those of one that was not killed; nothing is asked."""
    texts = {f"d{i}": f"text number {i}" for i in range(27)}
    queries = {f"q{i}": f"question {i}" for i in range(3)}
    none = pd.DataFrame(columns=["query_id", "doc_id", "relevance"])
    rows = [(f"q{i % 3}", f"d{i}", -float(i)) for i in range(27)]
    collection, candidates = (
        Collection("toy", queries, texts, none),
        rankings.rank(*zip(*rows, strict=True)),
    )

    def rank(folder, ledger, server):
        (tmp_path / folder).mkdir(exist_ok=True)
        teacher = Listwise(
            Endpoint("toy", base_url=server.url),
            "single_turn",
            *(4, 2, 1, "shuffled", shuffles),
            ledger=str(tmp_path / ledger),
        )
        return teacher.rank(candidates, collection, tmp_path / folder)

    def killed(self):
        raise KeyboardInterrupt

    with FaultyServer() as server:
        whole = rank("whole", "one", server)
        asked = len(server.asked)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Session, "ranking", killed)
            rank("killed", "two", server)
        assert len(server.asked) == 2 * asked
        again = rank("killed", "none", server)
        assert len(server.asked) == 2 * asked
    pd.testing.assert_frame_equal(again, whole)
    tables = [pd.read_parquet(tmp_path / folder / WINDOWS) for folder in ("whole", "killed")]
    pd.testing.assert_frame_equal(*tables)
