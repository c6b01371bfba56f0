"""The labelling benchmark: both clients send the same requests, and a session later sends none."""

import pytest

from benchmarks.labelling import PER_LIST, Task, lists, measure, served


def test_lists_are_of_their_own_and_share_their_passages():
    collection, candidates = lists(50)
    assert len(set(collection.queries.values())) == 50
    assert set(candidates.groupby("query_id").doc_id.nunique()) == {100}
    assert len(collection.passages) == 43 * 100


@pytest.mark.slow
@pytest.mark.parametrize("client", ["rdx", "openai"])
def test_a_client_in_a_process_of_its_own(client, tmp_path):
    pytest.importorskip(client)
    with served(0.0) as url:
        task = Task(client, "multi_turn", 2 * PER_LIST, 2, url, str(tmp_path))
        row = measure(task)
        assert row["windows"] == 2 * PER_LIST and row["own"] > 0 and row["clock"] > 0
    if client == "rdx":  # the service is gone: all answers are in the ledger
        assert measure(task)["windows"] == 2 * PER_LIST
