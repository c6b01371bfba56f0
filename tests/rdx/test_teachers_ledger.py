"""The ledger: what was acknowledged is found again, whatever happened to the writer."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rdx.teachers.ledger import Entry, Ledger, export, request_key

FOLDER = Path(__file__).parents[2] / "rdx" / "teachers"

# The writers import the module by itself: without torch they start in a fraction of a second.
WRITER = """
import sys
from pathlib import Path
from ledger import Entry, Ledger

name, rows = sys.argv[2], int(sys.argv[3])
ledger = Ledger(Path(sys.argv[1]))
for i in range(rows):
    ledger.add(Entry(f"{name}{i}", 0, answer="x" * (200_000 if i % 3 == 0 else i)))
    print(i, flush=True)
"""

# A disk that is full for a while: the process may not write beyond 1,000 bytes of a file.
FULL = """
import resource, signal, sys
from pathlib import Path
from ledger import Entry, Ledger

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for i in range(30):
    entry = Entry(str(i), 0, answer="x" * 100)
    try:
        ledger.add(entry)
    except OSError:
        ledger.add(entry)
        print(i)
"""


def start(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(FOLDER)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


ANSWER = "[2] > [1]\n\u2028ä\0"


def entry(key, attempt=0, **fields):
    return Entry(key, attempt, **{"answer": ANSWER} | fields)


def written(folder, *entries):
    """A ledger with entries of an earlier writer, which ended."""
    ledger = Ledger(folder)
    for line in entries:
        ledger.add(line)
    ledger.close()
    return Ledger(folder)


def keys(folder):
    """Keys of all entries."""
    return [line.key for line in Ledger(folder).entries()]


# --- one process ---


def test_what_was_added_is_found_by_this_and_by_later_ledgers(tmp_path):
    full = Entry(
        *("a", 1, "owner", "q1", 2, {"model": "m", "prompt": {"version": "1"}}, "[1]", "stop"),
        *(30, 4, 0.5, "m-1", 1e-5, "malformed"),
    )
    entries = [entry("a"), full, Entry("b", 0, size=3, state="failed", error="HTTP 500")]
    first = Ledger(tmp_path / "new")
    assert first.find("a", 0) is None
    for line in entries:
        first.add(line)
    for ledger in (first, Ledger(tmp_path / "new")):
        assert [ledger.find(*place) for place in (("a", 0), ("a", 1), ("b", 0))] == entries
        assert ledger.find("a", 2) is None and ledger.find("c", 0) is None
        assert list(ledger.entries()) == list(ledger.answers()) == entries
    lines = next((tmp_path / "new").iterdir()).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [line.plain() for line in entries]
    assert list(full.plain()) == [
        "key", "attempt", "owner", "query_id", "size", "model", "prompt", "answer", "finish",
        "input_tokens", "output_tokens", "latency", "served", "cost", "state",
    ]  # fmt: skip
    assert list(entries[2].plain()) == ["key", "attempt", "owner", "query_id", "size",
                                        "state", "error"]  # fmt: skip


def test_reading_makes_no_file(tmp_path):
    ledger = Ledger(tmp_path / "new")
    assert ledger.find("a", 0) is None and list(ledger.entries()) == []
    ledger.close()
    assert list(tmp_path.iterdir()) == []


def test_every_writer_has_a_file_of_its_own(tmp_path):
    ledger = written(tmp_path, entry("a"))
    ledger.add(entry("b"))
    ledger.add(entry("c"))
    assert sorted(len(p.read_bytes().splitlines()) for p in tmp_path.iterdir()) == [1, 2]
    ledger.close()
    ledger.add(entry("d"))
    assert len(list(tmp_path.glob(f"*-{os.getpid()}-*.jsonl"))) == 3
    assert keys(tmp_path) == ["a", "b", "c", "d"]


def test_the_first_answer_counts_but_a_failure_only_until_there_is_one(tmp_path):
    def numbered(key, number, state="ok"):
        return entry(key, size=number, state=state)

    written(tmp_path, numbered("a", 1), numbered("b", 1, "failed"), numbered("b", 2, "failed"))
    ledger = Ledger(tmp_path)
    assert ledger.find("b", 0).size == 1
    ledger.add(numbered("a", 2))
    for number, state in ((3, "malformed"), (4, "ok"), (5, "failed")):
        ledger.add(numbered("b", number, state))
    for reader in (ledger, Ledger(tmp_path)):
        assert (reader.find("a", 0).size, reader.find("b", 0).size) == (1, 3)
        assert [line.size for line in reader.answers()] == [1, 3]
        assert [line.size for line in reader.entries()] == [1, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("state", ["failed", "rejected", "refused"])
@pytest.mark.parametrize("later", ["ok", "malformed", "too_long", "unfit"])
def test_what_was_not_answered_gives_way_to_what_comes_later(tmp_path, state, later):
    open_entry = Entry("a", 0, state=state, error="no")
    answered = later in ("ok", "malformed")
    final = Entry("a", 0, answer="[1]" if answered else None, state=later)
    assert open_entry.open and not final.open
    ledger = written(tmp_path, open_entry, open_entry, final, open_entry, entry("a", state="ok"))
    assert ledger.find("a", 0) == final and list(ledger.answers()) == [final]


def test_an_answer_that_refuses_is_final(tmp_path):
    refusal = entry("a", state="refused")
    assert not refusal.open
    assert written(tmp_path, refusal, entry("a", state="ok")).find("a", 0) == refusal


def test_what_an_entry_took_is_kept(tmp_path):
    took = {"thinking_tokens": 3, "estimated": True, "lost_input": 9, "lost_output": 1}
    answered = entry("a", input_tokens=5, output_tokens=4, state="ok", **took)
    failed = Entry("b", 0, state="failed", error="no", cost=0.5, lost_input=9, lost_output=1)
    ledger = written(tmp_path, answered, failed, entry("c", state="ok"))
    assert [ledger.find(key, 0) for key in "ab"] == [answered, failed]
    lines = [json.loads(line) for line in next(tmp_path.iterdir()).read_text().splitlines()]
    assert [set(took) & set(line) for line in lines] == [
        *(set(took), {"lost_input", "lost_output"}, set())
    ]
    assert [line.get("cost") for line in lines] == [0.0, 0.5, 0.0]


def test_an_entry_that_json_cannot_say_is_refused_and_leaves_nothing(tmp_path):
    ledger = Ledger(tmp_path)
    for wrong in (entry("a", cost=float("nan")), entry("a", identity={"model": object()})):
        with pytest.raises((ValueError, TypeError)):
            ledger.add(wrong)
    assert keys(tmp_path) == []


def test_any_text_survives(tmp_path):
    text = "".join(map(chr, [*range(0x500), 0x2028, 0x2029, 0xDFFF, 0xD800, 0x1F600]))
    assert written(tmp_path, entry("a", answer=text)).find("a", 0).answer == text


def test_what_others_append_meanwhile_is_found(tmp_path):
    reader, writer = Ledger(tmp_path), Ledger(tmp_path)
    for i in range(5):
        assert reader.find(str(i), 0) is None
        writer.add(entry(str(i)))
        assert reader.find(str(i), 0) == entry(str(i))


def test_how_often_others_are_looked_at_may_be_limited(tmp_path):
    rare, often, writer = Ledger(tmp_path, fresh=3600), Ledger(tmp_path), Ledger(tmp_path)
    writer.add(entry("a"))
    assert rare.find("a", 0) == often.find("a", 0) == entry("a")
    writer.add(entry("b"), entry("c"))
    assert rare.find("b", 0) is None and often.find("b", 0) == entry("b")
    assert [line.key for line in rare.entries()] == ["a", "b", "c"]
    assert rare.find("c", 0) == entry("c")  # reading all has made it known


def test_threads_share_a_ledger(tmp_path):
    ledger = Ledger(tmp_path)

    def work(name):
        for i in range(20):
            ledger.add(entry(f"{name}{i}"))
            assert ledger.find(f"{name}{i}", 0) == entry(f"{name}{i}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1
    wanted = {f"{name}{i}" for name in "abcd" for i in range(20)}
    assert set(keys(tmp_path)) == wanted


# --- damage ---


def test_a_file_that_ends_at_any_byte_has_all_rows_before(tmp_path):
    entries = [entry(str(i), identity={"model": "m"}) for i in range(4)]
    written(tmp_path / "whole", *entries)
    [file] = (tmp_path / "whole").iterdir()
    content = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for size in range(ends[1], len(content) + 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / file.name).write_bytes(content[:size])
        whole = entries[: sum(end <= size for end in ends)]
        ledger = Ledger(folder)
        assert list(ledger.entries()) == list(ledger.answers()) == whole
        assert [ledger.find(str(i), 0) for i in range(4)] == whole + [None] * (4 - len(whole))
        if size % 10 == 0 or size in ends:
            ledger.add(entry("next"))
            assert (folder / file.name).read_bytes() == content[:size]
            assert list(Ledger(folder).entries()) == [*whole, entry("next")]
        shutil.rmtree(folder)


def test_a_torn_row_that_is_completed_later_is_found(tmp_path):
    """So it looks when another process is just writing."""
    written(tmp_path, entry("a"), entry("b"))
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-9])
    ledger = Ledger(tmp_path)
    assert ledger.find("b", 0) is None and ledger.find("a", 0) == entry("a")
    file.write_bytes(content)
    assert ledger.find("b", 0) == entry("b")


def test_damaged_lines_are_left_out_and_named(tmp_path):
    written(tmp_path, entry("a"), entry("b"), entry("c"))
    [file] = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    rest = [b"\0" * 20 + b"\n", b"[1]\n", b'{"key": "x"}\n', b"\xff\n"]
    file.write_bytes(b"".join([lines[0], *rest, lines[2]]))
    with pytest.warns(UserWarning, match=f"{file.name}: 4 damaged lines"):
        assert keys(tmp_path) == ["a", "c"]
    with pytest.warns(UserWarning, match="4 damaged lines"):
        assert Ledger(tmp_path).find("c", 0) == entry("c")


def test_after_a_write_that_failed_half_way_all_rows_are_whole(tmp_path):
    process = start(FULL, tmp_path)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(output.split()) >= 3  # so often the disk was full
    assert keys(tmp_path) == [str(i) for i in range(30)]
    ends = [path.read_bytes()[-1:] for path in tmp_path.iterdir()]
    assert ends.count(b"\n") == 1  # the others end in half a row


# --- several processes ---


def test_a_killed_writer_loses_no_row_that_it_acknowledged(tmp_path):
    draw = random.Random(0)
    kept = 0
    for turn in range(8):
        process = start(WRITER, tmp_path, f"{turn}-", 1_000_000)
        process.stdout.readline()
        time.sleep(draw.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        done = 1 + len(process.stdout.read().splitlines())
        assert process.wait(30) == -signal.SIGKILL
        ledger = Ledger(tmp_path)
        present = [key for key in keys(tmp_path) if key.startswith(f"{turn}-")]
        assert present == [f"{turn}-{i}" for i in range(len(present))]
        assert done <= len(present) <= done + 1  # one may be written but not yet acknowledged
        assert ledger.find(f"{turn}-{done - 1}", 0) is not None
        kept += len(present)
    assert len(list(Ledger(tmp_path).answers())) == kept


def test_several_processes_write_while_another_reads(tmp_path):
    processes = [start(WRITER, tmp_path, name, 40) for name in "abc"]
    reader = Ledger(tmp_path)
    wanted = {f"{name}{i}" for name in "abc" for i in range(40)}
    missing, deadline = set(wanted), time.monotonic() + 60
    while missing:
        assert time.monotonic() < deadline, sorted(missing)
        for name in sorted(missing):
            line = reader.find(name, 0)
            if line is not None:
                assert set(line.answer) <= {"x"} and line.key == name
                missing.remove(name)
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert len(list(tmp_path.iterdir())) == 3
    assert sorted(keys(tmp_path)) == sorted(wanted)


def test_a_forked_process_writes_to_its_own_file(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add(entry("parent"))
    child = os.fork()
    if child == 0:
        ledger.add(entry("child"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    ledger.add(entry("parent again"))
    assert len(list(tmp_path.iterdir())) == 2
    assert ledger.find("child", 0) == entry("child")


# --- keys ---


def test_the_key_is_the_hash_of_what_is_asked():
    identity, messages = {"seed": 1, "model": "m"}, [{"role": "user", "content": "ä"}]
    text = b'{"identity":{"model":"m","seed":1},"messages":[{"content":"\\u00e4","role":"user"}]}'
    digest = hashlib.sha256(text).hexdigest()[:32]
    assert request_key(identity, messages) == digest
    others = [
        request_key({"seed": 2, "model": "m"}, messages),
        request_key({"seed": 1}, messages),
        request_key(identity, [{"role": "user", "content": "ä "}]),
        request_key(identity, messages * 2),
    ]
    assert len({digest, *others}) == 5


# --- export ---

IDENTITY = {
    "model": "/home/somebody/models/zephyr",
    "base_url": "a.b.c",
    "prompt": {"version": "1", "sha256": "aa"},
    "host": "h",
    "backend": {"device": "cuda:0", "temperature": 0.0},
}


def test_an_export_is_sorted_and_says_nothing_of_the_machine(tmp_path):
    ok = entry("b", identity=IDENTITY, latency=0.5, state="ok")
    written(tmp_path / "x", ok, entry("a", 1, state="refused"))
    failed = Entry("a", 0, state="failed", error="no")
    written(tmp_path / "x", failed, entry("a", state="malformed"))
    manifest = export(tmp_path / "x", None, tmp_path / "out" / "deep")
    content = (tmp_path / "out" / "deep" / "answers.jsonl").read_bytes()
    rest = {"owner": "", "query_id": "", "size": 0, "answer": ANSWER, "finish": ""}
    rest |= {"input_tokens": 0, "output_tokens": 0, "cost": 0.0}
    assert [json.loads(line) for line in content.splitlines()] == [
        {"key": "a", "attempt": 0, "state": "malformed", **rest},
        {"key": "a", "attempt": 1, "state": "refused", **rest},
        {
            "key": "b", "attempt": 0, "state": "ok", **rest, "model": "zephyr",
            "prompt": {"version": "1", "sha256": "aa"}, "backend": {"temperature": 0.0},
        },
    ]  # fmt: skip
    plain = json.loads((tmp_path / "out" / "deep" / "manifest.json").read_text())
    assert plain == asdict(manifest)
    assert plain.pop("date") == time.strftime("%Y-%m-%d", time.gmtime())
    assert plain == {
        "answers": 3,
        "requests": 2,
        "requests_without_answer": 0,
        "states": {"malformed": 1, "ok": 1, "refused": 1},
        "models": {"": 2, "zephyr": 1},
        "prompts": {"": 2, '{"sha256": "aa", "version": "1"}': 1},
        "sha256": {"answers.jsonl": hashlib.sha256(content).hexdigest()},
    }


def test_an_export_of_some_requests(tmp_path):
    written(tmp_path / "x", *(entry(key, state="ok") for key in "abc"))
    manifest = export(tmp_path / "x", iter(["c", "a", "z"]), tmp_path)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "c"]
    assert (manifest.answers, manifest.requests_without_answer) == (2, 1)


def test_the_same_answers_give_the_same_export(tmp_path):
    entries = [entry(key, state="ok", latency=ord(key)) for key in "abc"]
    written(tmp_path / "x", *entries)
    written(tmp_path / "y", entries[2], replace(entries[0], latency=9))
    written(tmp_path / "y", entries[1])
    x, y = (export(tmp_path / name, None, tmp_path / name / "out") for name in "xy")
    assert x.sha256 == y.sha256


# --- size ---


@pytest.mark.slow
def test_a_hundred_thousand_answers_open_in_seconds(tmp_path):
    entries = (entry(f"{i:032x}", answer="[12] > " * 60) for i in range(100_000))
    lines = "".join(json.dumps(line.plain()) + "\n" for line in entries)
    (tmp_path / "host-1-1.jsonl").write_text(lines)
    start = time.perf_counter()
    ledger = Ledger(tmp_path)
    assert ledger.find(f"{99_999:032x}", 0) is not None
    assert sum(1 for _ in ledger.answers()) == 100_000
    assert time.perf_counter() - start < 8
