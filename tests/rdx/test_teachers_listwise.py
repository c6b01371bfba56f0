"""The listwise teacher through a real HTTP server that misbehaves, killed and resumed."""

import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from faulty_server import (
    FaultyServer,
    answer,
    best_first,
    cut,
    error,
    garbage,
    hang,
    limited,
    merit,
    mixed,
    no_choices,
    per_body,
    ranking,
    shown,
    wrong_kind,
)

from rdx import config, rankings
from rdx.collection import Collection
from rdx.teachers import Caps, Endpoint, Fatal, Listwise, Prices, Stopped
from rdx.teachers.ledger import Ledger
from rdx.teachers.parsing import VERSION
from tests.rdx.configured import configured

WORDS = "river engine garden planet violin market stone reed kelp onyx".split()


def passage(i: int) -> str:
    return f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} number {i} of the collection"


def toy(queries: int, depth: int) -> tuple[Collection, pd.DataFrame]:
    """A collection, and candidates of which no two lists share a passage."""
    texts = {f"d{i}": passage(i) for i in range(queries * depth)}
    questions = {f"q{i}": f"{WORDS[i % 10]} question {i}" for i in range(queries)}
    none = pd.DataFrame(columns=["query_id", "doc_id", "relevance"])
    rows = [(f"q{i}", f"d{i * depth + j}", -float(j)) for i in range(queries) for j in range(depth)]
    return Collection("toy", questions, texts, none), rankings.rank(*zip(*rows, strict=True))


@pytest.fixture
def teacher(tmp_path):
    """A teacher that asks a server, small waits, one ledger per test."""

    def make(server, **settings):
        backend = {"timeout": 20.0, "tries": 4, "backoff": 0.01, "max_wait": 0.05}
        backend |= settings.pop("backend", {})
        return Listwise(
            **{
                "backend": Endpoint(model="toy", base_url=server.url, **backend),
                "prompt": "single_turn",
                "window": 4,
                "stride": 2,
                "ledger": str(tmp_path / "ledger"),
                **settings,
            }
        )

    return make


@pytest.fixture
def rank(tmp_path):
    def run(teacher, queries=3, depth=10, folder="teach"):
        work = tmp_path / folder
        work.mkdir(exist_ok=True)
        collection, candidates = toy(queries, depth)
        return teacher.rank(candidates, collection, work)

    return run


def slid(doc_ids, texts, window, stride, passes=1):
    """A sliding window that a perfect answer sorts: the naive loop."""
    order = list(doc_ids)
    for _ in range(passes):
        end = len(order)
        while True:
            start = max(0, end - window)
            part = order[start:end]
            order[start:end] = [part[i] for i in best_first([texts[d] for d in part])]
            if start == 0:
                break
            end -= stride
    return order


def expected(queries, depth, window=4, stride=2, passes=1):
    collection, candidates = toy(queries, depth)
    return {
        q: slid(rows.doc_id, collection.passages, window, stride, passes)
        for q, rows in candidates.groupby("query_id", sort=False)
    }


def orders(taught):
    return {
        q: list(rows.sort_values("teacher_rank").doc_id)
        for q, rows in taught.groupby("query_id", sort=False)
    }


def states(taught):
    return dict(taught.groupby("query_id", sort=False).state.first())


# --- windows ---


@pytest.mark.parametrize("prompt", ["single_turn", "multi_turn"])
def test_the_ranking_is_that_of_a_naive_sliding_window(teacher, rank, prompt, tmp_path):
    with FaultyServer() as server:
        taught = rank(teacher(server, prompt=prompt))
    assert orders(taught) == expected(3, 10)
    assert set(taught.state) == {"ok"} and taught.score.isna().all()
    # 10 passages, window 4, stride 2: windows end at 10, 8, 6, 4
    assert len(server.asked) == 3 * 4
    table = rankings.read_parquet(tmp_path / "teach" / "windows.parquet")
    assert list(table[table.query_id == "q0"].end) == [10, 8, 6, 4]


@pytest.mark.parametrize(
    ("settings", "depth"),
    [
        ({"window": 5, "stride": 5}, 10),
        ({"window": 4, "stride": 1}, 10),
        ({"window": 4, "stride": 2, "passes": 3}, 10),
        ({"window": 20, "stride": 10}, 7),
        ({"window": 20, "stride": 10}, 1),
    ],
)
def test_window_stride_and_passes(teacher, rank, settings, depth):
    with FaultyServer() as server:
        taught = rank(teacher(server, **settings), depth=depth)
    assert orders(taught) == expected(3, depth, **settings)


def test_enough_passes_sort_the_whole_list(teacher, rank):
    with FaultyServer() as server:
        taught = rank(teacher(server, passes=5), queries=1)
    collection, _ = toy(1, 10)
    best = sorted(collection.passages, key=lambda d: merit(collection.passages[d]))
    assert orders(taught)["q0"] == best


def test_a_shuffled_order_is_a_function_of_seed_and_query(teacher, rank, tmp_path):
    def firsts(folder, **settings):
        with FaultyServer() as server:
            teach = teacher(server, ledger=str(tmp_path / folder), **settings)
            rank(teach, folder=folder)
        table = rankings.read_parquet(tmp_path / folder / "windows.parquet")
        return [tuple(shown) for shown in table[table.end == 10].shown]

    plain = firsts("a")
    assert plain[0] == ("d6", "d7", "d8", "d9")
    shuffled = firsts("b", order="shuffled")
    assert shuffled != plain and shuffled == firsts("c", order="shuffled")
    assert shuffled != firsts("d", order="shuffled", seed=1)


def test_several_input_orders_are_merged(teacher, rank):
    # a perfect teacher in one window: all orders agree
    with FaultyServer() as server:
        taught = rank(teacher(server, window=10, stride=5, shuffles=3))
        assert len(server.asked) == 3 * 3
    assert orders(taught) == expected(3, 10, window=10, stride=5)


def test_orders_that_differ_are_merged_by_the_mean_place_or_by_kemeny(teacher, rank, tmp_path):
    # a teacher that keeps what it is shown
    keep = answer(" > ".join(f"[{i + 1}]" for i in range(5)))
    merged = {}
    with FaultyServer(per_body(then=keep)) as server:
        settings = {"window": 5, "stride": 5, "shuffles": 4, "order": "shuffled"}
        for merge in ("borda", "kemeny"):
            ranked = rank(teacher(server, merge=merge, **settings), 40, depth=5, folder=merge)
            merged[merge] = orders(ranked)
    table = rankings.read_parquet(tmp_path / "borda" / "windows.parquet")
    for query_id, rows in table.groupby("query_id"):
        mean = {d: sum(list(shown).index(d) for shown in rows.shown) for d in rows.shown.iloc[0]}
        assert [mean[d] for d in merged["borda"][query_id]] == sorted(mean.values())
    assert merged["borda"] != merged["kemeny"]


def lengthened(queries, depth, words):
    """A toy whose passages go on for some more words."""
    collection, candidates = toy(queries, depth)
    texts = {d: text + " end" * words for d, text in collection.passages.items()}
    return replace(collection, passages=texts), candidates


def test_passages_are_cut_to_words(teacher, tmp_path):
    collection, candidates = lengthened(1, 4, 50)
    with FaultyServer() as server:
        for words in (16, 40):
            teacher(server, passage_words=words).rank(candidates, collection, tmp_path)
        texts = [
            text for request in server.asked for text in shown(request.body["messages"]).values()
        ]
    assert sorted({len(text.split()) for text in texts}) == [16, 40]


def test_a_window_that_does_not_fit_is_shown_with_shorter_passages(teacher, tmp_path):
    collection, candidates = lengthened(2, 4, 90)

    def limited_context(asked):
        words = sum(len(m["content"].split()) for m in asked.body["messages"])
        message = "This model's maximum context length is 300 tokens"
        return error(400, message, "context_length_exceeded") if words > 300 else ranking()

    with FaultyServer(limited_context) as server:
        teach = teacher(server, passage_words=90)
        taught = teach.rank(candidates, collection, tmp_path)
        asked = len(server.asked)
        again = teach.rank(candidates, collection, tmp_path)
        assert len(server.asked) == asked  # what was too long is not tried again either
    assert set(taught.state) == {"ok"}
    pd.testing.assert_frame_equal(taught, again)
    words = rankings.read_parquet(tmp_path / "windows.parquet").words
    assert (words == 50).all()  # 90, 67, 50


def test_a_context_too_small_for_any_window_fails_the_list(teacher, rank):
    message = "This model's maximum context length is 300 tokens"
    with FaultyServer(per_body(then=error(400, message, "context_length_exceeded"))) as server:
        taught = rank(teacher(server), queries=2)
    assert states(taught) == {"q0": "failed", "q1": "failed"}


# --- answers that are no permutation ---


def first_words(asked):
    return next(iter(shown(asked.body["messages"]).values()))


def only(number, *replies, then=None):
    """Another behaviour for windows whose first passage has a number; all others are answered."""
    special = per_body(*replies, then=then)

    def behave(asked):
        return special(asked) if f"number {number} of" in first_words(asked) else ranking()

    return behave


def test_a_malformed_answer_is_asked_again(teacher, rank):
    with FaultyServer(only(16, answer("I like passage 3 most of all 4."))) as server:
        taught = rank(teacher(server))
        assert len(server.asked) == 3 * 4 + 1
    assert orders(taught) == expected(3, 10) and set(taught.state) == {"ok"}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("passage 3 is about 20 stones and {n} engines", "malformed"),
        ("I'm sorry, but I cannot rank these passages. ({n})", "refused"),
        ("", "malformed"),
    ],
)
def test_a_list_without_a_usable_answer_keeps_its_order_and_its_state(teacher, rank, text, state):
    replies = [answer(text.format(n=n)) for n in range(9)]
    with FaultyServer(only(16, *replies)) as server:
        taught = rank(teacher(server, tries=3))
        # q1 is given up at its first window: 3 tries, or 2 when the same text comes back
        assert len(server.asked) == 2 * 4 + (3 if "{n}" in text else 2)
    assert states(taught) == {"q0": "ok", "q1": state, "q2": "ok"}
    kept = orders(taught)
    assert kept["q1"] == [f"d{i}" for i in range(10, 20)]
    assert kept["q0"] == expected(3, 10)["q0"]


def test_tries(teacher, rank):
    replies = [answer(f"none of the {n} will do") for n in range(9)]
    with FaultyServer(only(6, *replies)) as server:
        asked = []
        for tries in (1, 2, 5):  # what an earlier teacher was answered is not asked again
            rank(teacher(server, tries=tries), queries=1, folder=f"t{tries}")
            asked.append(len(server.asked))
    assert asked == [1, 2, 5]


def test_a_repaired_answer_is_used_and_said_so(teacher, rank):
    with FaultyServer(only(6, answer("[2] > [1] > [1]"))) as server:
        taught = rank(teacher(server), queries=2)
    assert states(taught) == {"q0": "repaired", "q1": "ok"}
    assert sorted(taught[taught.query_id == "q0"].teacher_rank) == list(range(1, 11))


def test_the_lenient_rule_takes_what_the_strict_one_refuses(teacher, rank, tmp_path):
    reply = answer("passage 4 is about 2 engines")
    with FaultyServer(per_body(then=reply)) as server:
        strict = rank(teacher(server), queries=1, depth=4)
        lenient = rank(teacher(server, parse="lenient"), queries=1, depth=4, folder="b")
        assert len(server.asked) == 2  # the same ledger: the strict rule's second try, no more
    assert states(strict) == {"q0": "malformed"} and states(lenient) == {"q0": "repaired"}
    assert orders(lenient)["q0"] == ["d3", "d1", "d0", "d2"]


@pytest.mark.parametrize(
    ("text", "finish", "state"),
    [
        ("[2] > [1]", "length", "malformed"),
        ("[2] > [1]", None, "malformed"),
        ("[2] > [1]", "a word of tomorrow", "malformed"),
        ("[2] > [1]", "content_filter", "refused"),
        ("", "content_filter", "refused"),
        ("[2] > [1]", "eos_token", "repaired"),
        ("[2] > [1] > [4] > [3]", "length", "ok"),
        ("2] > [1] > [4] > [3]", "stop", "repaired"),
        ("[2] > [1]", "stop", "repaired"),
        ("[2] > [1]<think>and", "stop", "malformed"),
        ("[2, 1] > [4] > [3]", "stop", "malformed"),
        ("<think>[2] > [1] > [4] > [3]", "length", "malformed"),
        ("<think>[1] > [2]</think>[2] > [1] > [4] > [3]", "stop", "ok"),
    ],
)
def test_the_end_of_an_answer_decides_whether_it_is_a_label(teacher, rank, text, finish, state):
    with FaultyServer(per_body(then=answer(text, finish))) as server:
        taught = rank(teacher(server, tries=1), queries=1, depth=4)
    assert states(taught) == {"q0": state}
    usable = state in ("ok", "repaired")
    last = (3, 2) if "[4]" in text else (2, 3)
    assert orders(taught)["q0"] == [f"d{i}" for i in ((1, 0, *last) if usable else range(4))]


def test_stored_answers_are_read_by_the_rule_of_now(teacher, rank, tmp_path):
    """A ledger of an older rule, which took a chain without its first passage as repaired."""
    with FaultyServer(per_body(then=answer("[8] = [7] > [6] > [5] > [4] > [3] > [2] > [1]"))) as s:
        rank(teacher(s, tries=1, window=8), queries=1, depth=8)
        [file] = (tmp_path / "ledger").iterdir()
        file.write_text(file.read_text().replace('"state":"malformed"', '"state":"repaired"'))
        taught = rank(teacher(s, tries=1, window=8), queries=1, depth=8, folder="b")
        assert len(s.asked) == 1
    assert states(taught) == {"q0": "malformed"}


def test_thoughts_are_counted(teacher, rank, tmp_path):
    with FaultyServer(
        per_body(then=answer("<think>a b c</think> [2] > [1] > [4] > [3]"))
    ) as server:
        rank(teacher(server), queries=1, depth=4)
    [entry] = Ledger(tmp_path / "ledger").entries()
    # 20 of 42 characters, of 10 tokens (the server counts words)
    assert (entry.output_tokens, entry.thinking_tokens) == (10, round(10 * 20 / 42))


def test_the_version_of_the_rule_is_part_of_the_labels_identity(teacher, monkeypatch):
    with FaultyServer() as server:
        before = config.identity(teacher(server))
        assert before != config.identity(teacher(server, parse="lenient"))
        monkeypatch.setattr("rdx.teachers.listwise.VERSION", VERSION + 1)
        after = config.identity(teacher(server))
    assert {name for name in before if before[name] != after[name]} == {"parse"}


# --- faults of the service ---

FAULTS = (
    *(error(500), limited(0.01), garbage(), no_choices(), wrong_kind(), cut(0.0), cut(0.7)),
    *(answer(""), answer(None), answer("I prefer number 3.")),
)


@pytest.mark.slow
def test_a_thousand_requests_with_mixed_faults(teacher, rank, tmp_path):
    """No list is lost, none is asked twice that was answered, each state is the right one."""
    queries, depth = 170, 12
    faults = (*FAULTS, hang())
    with FaultyServer(mixed(1, 0.25, faults)) as server:
        teach = teacher(server, concurrency=16, tries=6, backend={"tries": 12, "timeout": 3.0})
        taught = rank(teach, queries, depth)
    assert len(server.asked) > 1000 and server.peak <= 16
    # windows of a list are sequential: it is given up on its last reply, or ends with a good one
    last = {f"q{query_of(asked)}": asked.reply.name for asked in server.asked}
    right = {q: "ok" if name == "ranking" else "malformed" for q, name in last.items()}
    assert states(taught) == right
    assert sum(state == "ok" for state in right.values()) > 0.9 * queries
    collection, candidates = toy(queries, depth)
    given = {q: list(rows.doc_id) for q, rows in candidates.groupby("query_id", sort=False)}
    truth = expected(queries, depth)
    assert orders(taught) == {q: truth[q] if right[q] == "ok" else given[q] for q in right}
    # nothing was asked again once it was answered, and every answer is in the ledger
    good = [asked.digest for asked in server.asked if asked.reply.name == "ranking"]
    assert len(good) == len(set(good))
    entries = Ledger(tmp_path / "ledger").entries()
    usable = [entry.key for entry in entries if entry.state == "ok"]
    assert len(usable) == len(set(usable)) == len(good)


def query_of(asked) -> int:
    """Number of the query of a request."""
    return int(re.search(r"question (\d+)", asked.body["messages"][-1]["content"])[1])


def test_requests_that_are_never_answered_fail_their_lists_only(teacher, rank):
    broken = only(16, then=error(503))
    with FaultyServer(broken) as server:
        taught = rank(teacher(server))
        assert states(taught) == {"q0": "ok", "q1": "failed", "q2": "ok"}
        server.behave = per_body()
        before = len(server.asked)
        mended = rank(teacher(server), folder="again")
        assert len(server.asked) == before + 4  # the windows of q1, nothing else
    assert orders(mended) == expected(3, 10) and set(mended.state) == {"ok"}


def test_a_dead_service_stops_the_teacher_and_nothing_is_lost(teacher, rank):
    with FaultyServer() as server:
        server.behave = lambda asked: ranking() if asked.number < 9 else error(500)
        teach = teacher(server, concurrency=2, backend={"tries": 1})
        with pytest.raises(Stopped, match="^20 requests"):
            rank(teach, queries=60)
        asked = len(server.asked)
        assert asked <= 9 + 20 + 2
        server.behave = per_body()
        taught = rank(teach, queries=60)
    assert len(server.asked) - asked == 60 * 4 - 9
    assert orders(taught) == expected(60, 10)


def test_a_wrong_key_stops_at_once(teacher, rank):
    with FaultyServer(per_body(then=error(401, "wrong key"))) as server:
        with pytest.raises(Fatal):
            rank(teacher(server, concurrency=3), queries=50)
        assert len(server.asked) <= 3


# --- the ledger and the caps ---


def test_more_queries_ask_only_for_the_new_ones(teacher, rank):
    with FaultyServer() as server:
        rank(teacher(server), queries=3)
        taught = rank(teacher(server), queries=5, folder="more")
        assert len(server.asked) == 5 * 4
    assert orders(taught) == expected(5, 10)


def spent(tmp_path, name):
    """Tokens or cost of all answers in the ledger."""
    entries = list(Ledger(tmp_path / "ledger").entries())
    tokens = sum(entry.input_tokens + entry.output_tokens for entry in entries)
    return {"tokens": tokens, "cost": sum(entry.cost for entry in entries)}[name]


@pytest.mark.parametrize("caps", [{"tokens": 1500}, {"cost": 3.0}], ids=str)
def test_a_cap_holds_and_can_be_raised(teacher, rank, tmp_path, caps):
    prices = Prices(input=1000.0, output=3000.0)
    with FaultyServer() as server:
        capped = teacher(server, caps=Caps(**caps), prices=prices)
        with pytest.raises(Stopped, match=f"teacher.caps.{next(iter(caps))}"):
            rank(capped, queries=20)
        asked = len(server.asked)
        assert 0 < asked < 80
        name, cap = next(iter(caps.items()))
        first = spent(tmp_path, name)
        assert 0.3 * cap < first <= cap
        entry = next(Ledger(tmp_path / "ledger").entries())
        assert entry.cost == pytest.approx(entry.input_tokens / 1e3 + entry.output_tokens * 3e-3)
        with pytest.raises(Stopped):  # what was spent before counts
            rank(capped, queries=20)
        assert first <= spent(tmp_path, name) <= cap
        taught = rank(teacher(server, prices=prices), queries=20)
        assert len(server.asked) == 80
    assert orders(taught) == expected(20, 10)


def test_a_cap_of_time(teacher, rank):
    with FaultyServer(per_body(then=ranking(0.05))) as server:
        with pytest.raises(Stopped, match=r"teacher.caps.hours"):
            rank(teacher(server, caps=Caps(hours=0.5 / 3600), concurrency=1), queries=30)
        assert 2 <= len(server.asked) <= 12


def test_the_estimate_comes_first(teacher, rank, capsys):
    with FaultyServer() as server:
        settings = {"prices": Prices(1.0, 1.0), "caps": Caps(cost=1e-9)}
        with pytest.raises(Stopped):
            rank(teacher(server, **settings))
        assert not server.asked
    said = capsys.readouterr().out
    assert "up to 12 requests" in said and "will stop it before the end" in said


CLIENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_teachers_listwise import toy
from rdx import rankings
from rdx.teachers import Endpoint, Listwise
from tests.rdx.configured import configured
backend = Endpoint(model="toy", base_url={url!r}, timeout=5, tries=4, backoff=0.01)
teacher = Listwise(backend, "single_turn", window=4, stride=2, concurrency={concurrency},
                   ledger={ledger!r})
collection, candidates = toy({queries}, {depth})
taught = teacher.rank(candidates, collection, Path({work!r}))
rankings.write_parquet(taught, {out!r})
"""


@pytest.mark.slow
def test_killed_twenty_times_it_asks_no_more_than_what_was_in_flight(tmp_path):
    queries, depth, concurrency, kills = 60, 10, 6, 20
    (tmp_path / "work").mkdir()
    settings = {"ledger": str(tmp_path / "ledger"), "work": str(tmp_path / "work")}
    settings |= {"out": str(tmp_path / "out.parquet"), "tests": str(__file__).rsplit("/", 1)[0]}
    chance = random.Random(5)
    with FaultyServer(per_body(then=ranking(0.15))) as server:
        code = CLIENT.format(
            url=server.url, queries=queries, depth=depth, concurrency=concurrency, **settings
        )
        for _ in range(kills):
            client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
            before = len(server.asked)
            while client.poll() is None and len(server.asked) == before:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.4))
            client.send_signal(signal.SIGKILL)
            client.wait()
            # a list's next window is asked once the answer before it is in the ledger
            kept = Counter(entry.query_id for entry in Ledger(tmp_path / "ledger").entries())
            asked = {asked.digest: query_of(asked) for asked in server.asked}
            for query, windows in Counter(asked.values()).items():
                assert windows <= kept[f"q{query}"] + 1
        assert not (tmp_path / "out.parquet").exists()
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    taught = rankings.read_parquet(tmp_path / "out.parquet")
    assert orders(taught) == expected(queries, depth) and set(taught.state) == {"ok"}
    extra = len(server.asked) - queries * 4
    assert 0 < extra <= kills * concurrency


@pytest.mark.slow
def test_killed_when_all_but_one_are_answered_it_asks_for_that_one(tmp_path):
    queries, depth = 30, 10
    (tmp_path / "work").mkdir()
    settings = {"ledger": str(tmp_path / "ledger"), "work": str(tmp_path / "work")}
    settings |= {"out": str(tmp_path / "out.parquet"), "tests": str(__file__).rsplit("/", 1)[0]}
    last = hang()
    with FaultyServer(lambda asked: last if query_of(asked) == 17 else ranking()) as server:
        code = CLIENT.format(
            url=server.url, queries=queries, depth=depth, concurrency=16, **settings
        ).replace("timeout=5", "timeout=600")
        client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        while len(list(Ledger(tmp_path / "ledger").entries())) < (queries - 1) * 4:
            assert client.poll() is None
            time.sleep(0.05)
        client.send_signal(signal.SIGKILL)
        client.wait()
        asked = len(server.asked)
        assert asked == (queries - 1) * 4 + 1
        server.behave = per_body()
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert len(server.asked) - asked == 4  # the list of which nothing was answered
    assert orders(rankings.read_parquet(tmp_path / "out.parquet")) == expected(queries, depth)


# --- settings ---


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("window", 1), ("stride", 0), ("stride", 5), ("passes", 0), ("order", "random")),
        *(("merge", "mean"), ("parse", "loose"), ("tries", 0), ("shuffles", 0)),
        *(("concurrency", 0), ("passage_words", 3), ("prompt", "no_such_prompt")),
    ],
)
def test_bad_settings(key, value):
    settings = {"backend": Endpoint("toy"), "prompt": "single_turn", "window": 4, "stride": 2}
    with pytest.raises(ValueError, match=f"teacher.{key}"):
        configured("teacher", Listwise, **settings | {key: value})


def test_a_window_has_at_most_26_letters():
    with pytest.raises(ValueError, match="teacher.window=27"):
        configured("teacher", Listwise, Endpoint("toy"), "first_token", window=27, stride=10)


@pytest.mark.parametrize("bad", [{"tokens": 0}, {"cost": -1.0}, {"hours": 0.0}])
def test_bad_caps(bad):
    with pytest.raises(ValueError, match=f"teacher.caps.{next(iter(bad))}"):
        configured("teacher.caps", Caps, **bad)


def test_bad_prices():
    with pytest.raises(ValueError, match="teacher.prices"):
        configured("teacher.prices", Prices, input=-1.0)
