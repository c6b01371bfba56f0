"""Group commit: an answer is used once it is on the disk, many answers by one sync."""

import asyncio
import os
import time

import pandas as pd
import pytest
from faulty_server import FaultyServer, ranking
from test_teachers_listwise import expected, orders, query_of, toy

from rdx import rankings
from rdx.teachers import Endpoint, Listwise
from rdx.teachers.commits import Commits
from rdx.teachers.ledger import Entry, Ledger, parse
from rdx.teachers.window_table import Outcome, Window, WindowTable


class Disk:
    """Real syncs that take their time; what of each file is then on the disk, in bytes."""

    def __init__(self, delay):
        self.delay, self.synced, self.durable = delay, 0, {}
        self._fsync = os.fsync

    def fsync(self, file):
        written = os.fstat(file)
        time.sleep(self.delay)
        self._fsync(file)
        self.synced += 1
        self.durable[written.st_ino] = written.st_size

    def entries(self, folder):
        """Entries that are on the disk."""
        for path in folder.glob("*.jsonl"):
            content = path.read_bytes()[: self.durable.get(path.stat().st_ino, 0)]
            yield from map(parse, content.splitlines())


@pytest.fixture
def disk(monkeypatch):
    slow = Disk(0.05)
    monkeypatch.setattr("rdx.teachers.ledger.os.fsync", slow.fsync)
    return slow


def test_an_add_returns_when_its_entry_is_on_the_disk(tmp_path, disk):
    ledger = Ledger(tmp_path)

    async def one(commits, number):
        await asyncio.sleep(number % 10 * 0.01)
        await commits.add(Entry(str(number), 0, answer="[1]", state="ok"))
        assert str(number) in {entry.key for entry in disk.entries(tmp_path)}
        assert ledger.find(str(number), 0).answer == "[1]"

    async def go():
        commits = Commits(ledger)
        await asyncio.gather(*(one(commits, number) for number in range(100)))

    asyncio.run(go())
    assert [entry.key for entry in ledger.entries()] == [
        entry.key for entry in disk.entries(tmp_path)
    ]
    assert 2 <= disk.synced <= 12  # one is of the folder


def test_what_is_written_is_not_found_before_it_is_synced(tmp_path, disk):
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)

    async def go():
        commits = Commits(ledger)
        await commits.add(Entry("a", 0, state="ok"))
        adding = asyncio.create_task(commits.add(Entry("b", 0, state="ok")))
        while other.find("b", 0) is None:  # another process, so to speak, reads what it can
            await asyncio.sleep(0.001)
        assert not adding.done() and ledger.find("b", 0) is None
        assert [entry.key for entry in ledger.entries()] == ["a", "b"]
        assert ledger.find("b", 0) is None and ledger.find("a", 0) is not None
        await adding
        assert ledger.find("b", 0) == Entry("b", 0, state="ok")

    asyncio.run(go())


def test_an_answer_whose_caller_is_gone_is_kept(tmp_path, disk):
    async def go():
        commits = Commits(Ledger(tmp_path))
        for key in "ab":
            adding = asyncio.create_task(commits.add(Entry(key, 0, state="ok")))
            await asyncio.sleep(0.03)  # with the second one, the first one is being synced
            adding.cancel()
        await commits.end()
        await commits.end()

    asyncio.run(go())
    assert sorted(entry.key for entry in disk.entries(tmp_path)) == ["a", "b"]


def test_a_disk_that_fails_fails_those_who_wait_and_the_next_file_is_whole(tmp_path, monkeypatch):
    faults = iter([OSError("full"), None, None])
    fsync = os.fsync

    def full_once(file):
        if not os.path.isdir(f"/proc/self/fd/{file}") and (fault := next(faults)):
            raise fault
        fsync(file)

    monkeypatch.setattr("rdx.teachers.ledger.os.fsync", full_once)
    ledger = Ledger(tmp_path)

    async def go():
        commits = Commits(ledger)
        adding = [commits.add(Entry(key, 0, state="ok")) for key in "abc"]
        results = await asyncio.gather(*adding, return_exceptions=True)
        await commits.add(Entry("d", 0, state="ok"))
        return results

    assert [type(result) for result in asyncio.run(go())] == [OSError] * 3
    assert ledger.find("d", 0) is not None and len(list(tmp_path.iterdir())) == 2


def test_no_window_is_shown_before_the_answer_it_follows_from_is_on_the_disk(tmp_path, disk):
    """By the requests that reach the server: the n-th of a list needs n answers on the disk."""
    early, asked = [], {}

    def behave(request):
        query = query_of(request)
        on_disk = [e for e in disk.entries(tmp_path / "ledger") if e.query_id == f"q{query}"]
        early.append(len(on_disk) < asked.get(query, 0))
        asked[query] = asked.get(query, 0) + 1
        return ranking()

    with FaultyServer(behave) as server:
        backend = Endpoint("toy", base_url=server.url)
        teacher = Listwise(
            *(backend, "single_turn"),
            **{"window": 4, "stride": 2, "concurrency": 16, "ledger": str(tmp_path / "ledger")},
        )
        collection, candidates = toy(24, 10)
        taught = teacher.rank(candidates, collection, tmp_path)
    assert orders(taught) == expected(24, 10)
    assert len(early) == 24 * 4 and not any(early)
    assert disk.synced < 24 * 4 / 3  # lists that wait at the same time share a sync


# --- the table of windows ---


def window(query, shuffle, start, permutation, state="ok"):
    shown = [f"d{i}" for i in range(start, start + 3)]
    outcome = Outcome(permutation, state, 1, 300, f"k{query}{start}", False, 7, 0, 0)
    return Window(f"q{query}", shuffle, 0, start, start + 3, shown, outcome)


LISTS = [
    [window(0, 0, 2, (2, 0, 1)), window(0, 0, 0, (0, 1, 2))],
    [],
    [window(0, 1, 0, None, "failed")],
    [window(1, 0, 0, (1, 0, 2), "repaired")],
]


@pytest.mark.parametrize("ended", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize("rows", [1, 2, 4096])
def test_windows_are_in_the_order_of_their_lists_whichever_ends_first(
    tmp_path, monkeypatch, ended, rows
):
    monkeypatch.setattr("rdx.teachers.window_table.GROUP_ROWS", rows)
    with WindowTable(tmp_path / "windows.parquet") as table:
        for number in ended:
            table.add(number, LISTS[number])
    assert [path.name for path in tmp_path.iterdir()] == ["windows.parquet"]
    frame = rankings.read_parquet(tmp_path / "windows.parquet")
    assert list(frame.key) == ["k02", "k00", "k00", "k10"]
    assert list(frame.shuffle) == [0, 0, 1, 0] and list(frame.end) == [5, 3, 3, 3]
    assert [list(given) for given in frame.given] == [
        *(["d4", "d2", "d3"], ["d0", "d1", "d2"], [], ["d1", "d0", "d2"])
    ]
    whole = [one.row() for windows in LISTS for one in windows]
    naive = pd.DataFrame(whole, columns=frame.columns)
    for column in frame.columns[:-2]:
        assert list(frame[column]) == list(naive[column]), column


def test_without_windows_the_table_is_empty_and_after_an_error_there_is_none(tmp_path):
    path = tmp_path / "windows.parquet"
    with pytest.raises(InterruptedError), WindowTable(path) as table:
        table.add(0, LISTS[0])
        raise InterruptedError
    assert list(tmp_path.iterdir()) == []
    with WindowTable(path):
        pass
    assert rankings.read_parquet(path).shape == (0, 15)
