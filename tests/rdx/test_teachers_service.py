"""A service that fails single requests, or all, or counts nothing: through real HTTP."""

import asyncio
import json
from dataclasses import replace
from fractions import Fraction

import pandas as pd
import pytest
from faulty_server import (
    FaultyServer,
    Reply,
    answer,
    cut,
    error,
    garbage,
    per_body,
    ranked_answer,
    ranking,
    raw,
    shown,
)
from test_teachers_listwise import expected, only, orders, query_of, states, toy

from rdx import rankings
from rdx.teachers import Caps, Endpoint, Fatal, Listwise, Prices, Stopped
from rdx.teachers.audit import audit
from rdx.teachers.budget import MARGIN, Meter
from rdx.teachers.ledger import Ledger
from rdx.teachers.messages import Answer
from rdx.teachers.tokens import of_chat


@pytest.fixture
def taught(tmp_path):
    """Run a teacher against a server: the teacher ranking, and the table of windows."""

    def run(server, queries=3, depth=10, words=0, **settings):
        backend = {"timeout": 20.0, "tries": 2, "backoff": 0.01, "max_wait": 0.02}
        backend |= settings.pop("backend", {})
        teacher = Listwise(
            Endpoint("toy", base_url=server.url, **backend),
            "single_turn",
            **{"window": 4, "stride": 2, "ledger": str(tmp_path / "ledger"), **settings},
        )
        collection, candidates = toy(queries, depth)
        texts = {d: text + " end" * words for d, text in collection.passages.items()}
        work = tmp_path / "teach"
        work.mkdir(exist_ok=True)
        ranking = teacher.rank(candidates, replace(collection, passages=texts), work)
        return ranking, rankings.read_parquet(work / "windows.parquet")

    return run


def entries(tmp_path):
    return list(Ledger(tmp_path / "ledger").entries())


def said(status, words):
    """An error as TGI and others write it."""
    return Reply(f"error {status}", json.dumps({"error": words}).encode(), status)


# --- a fault of one request ---

REFUSALS = {
    "400": error(400, "your request is not acceptable"),
    "400 filter": error(400, "the response was filtered", "content_filter"),
    "401": error(401, "no"),
    "402": error(402, "this one is too dear"),
    "403": error(403, "violates our usage policy"),
    "403 moderation": error(403, "your input was flagged"),
    "404": error(404, "no provider for this request"),
    "405": error(405, "not so"),
    "413": error(413, "payload too large"),
    "418": error(418, "a teapot"),
    "422": said(422, "validation"),
    "429 quota": error(429, "no quota for this", "insufficient_quota"),
    "451": error(451, "unavailable for legal reasons"),
    "500": error(500, "always"),
    "cut": cut(),
    "200": raw(b'{"error": {"message": "the provider returned an error", "code": 400}}'),
    "200 null": raw(b'{"choices": null, "error": {"message": "overloaded"}}'),
    "200 no text": answer(None),
}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_of_one_query_costs_its_list(taught, tmp_path, reply, concurrency):
    with FaultyServer(only(16, then=reply)) as server:
        labels, windows = taught(server, concurrency=concurrency)
        first = len(server.asked)
        kept = [entry for entry in entries(tmp_path) if entry.query_id == "q1"]
        assert kept and all(entry.error and entry.answer is None for entry in kept)
        server.behave = per_body()
        mended, _ = taught(server)
    filtered = reply in (REFUSALS["400 filter"], REFUSALS["403 moderation"], REFUSALS["451"])
    state = "refused" if filtered else "failed"
    assert states(labels) == {"q0": "ok", "q1": state, "q2": "ok"}
    assert orders(labels) == expected(3, 10) | {"q1": [f"d{i}" for i in range(10, 20)]}
    assert len(server.asked) - first == 4 and orders(mended) == expected(3, 10)
    assert len(windows[windows.query_id == "q1"]) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_first_query_that_is_refused_does_not_stop_the_others(taught, status):
    """The others are in flight, and are answered later."""

    def behave(asked):
        return error(status, "no") if query_of(asked) == 0 else ranking(delay=0.1)

    with FaultyServer(behave) as server:
        labels, _ = taught(server, concurrency=3)
    assert states(labels) == {"q0": "failed", "q1": "ok", "q2": "ok"}


def test_what_was_denied_while_others_were_answered_is_no_reason_to_stop_later(taught):
    """A run that was stopped goes on, though the one list that is left is denied again."""
    with FaultyServer(only(16, then=error(404, "no"))) as server:
        assert states(taught(server)[0])["q1"] == "failed"
        assert states(taught(server, concurrency=1)[0]) == {"q0": "ok", "q1": "failed", "q2": "ok"}


# --- a fault of the service ---


@pytest.mark.parametrize(
    "reply",
    [error(401), error(402), error(404), error(405), error(429, "no", "insufficient_quota")],
    ids=lambda reply: reply.name,
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_denies_the_first_requests_stops_the_teacher(taught, tmp_path, reply, concurrency):
    with FaultyServer(per_body(then=reply)) as server:
        for _ in range(2):
            server.asked.clear()
            with pytest.raises(Fatal):
                taught(server, queries=30, concurrency=concurrency)
            assert len(server.asked) <= concurrency
    assert not entries(tmp_path)


def test_a_wrong_key_stops_a_run_that_goes_on(taught):
    with FaultyServer(lambda asked: ranking() if asked.number < 9 else error(500)) as server:
        with pytest.raises(Stopped):
            taught(server, queries=30, concurrency=1, failures=2)
        server.behave = per_body(then=error(401))
        before = len(server.asked)
        with pytest.raises((Fatal, Stopped)):
            taught(server, queries=30, concurrency=1)
        assert len(server.asked) - before <= 3  # two that had failed, and the next


@pytest.mark.parametrize("status", [401, 403, 422, 500])
@pytest.mark.parametrize("failures", [1, 3])
def test_a_row_of_failures_is_bounded_and_loses_nothing(taught, tmp_path, status, failures):
    with FaultyServer() as server:
        # q2 fails alone, then from q4 on all
        server.behave = lambda asked: (
            ranking() if query_of(asked) in ({0, 1, 3} | ({2} if failures == 1 else set()))
            else error(status, "no")
        )  # fmt: skip
        settings = {"concurrency": 1, "failures": failures, "backend": {"tries": 1}}
        with pytest.raises(Stopped):
            taught(server, queries=30, **settings)
        failed = {query_of(asked) for asked in server.asked if asked.reply.name != "ranking"}
        assert failed == ({4} if failures == 1 else {2, 4, 5, 6})
        answered = len([entry for entry in entries(tmp_path) if entry.answer is not None])
        assert answered == 4 * (4 if failures == 1 else 3)
        before, server.behave = len(server.asked), per_body()
        labels, _ = taught(server, queries=30, **settings)
        assert len(server.asked) - before == 30 * 4 - answered
    assert orders(labels) == expected(30, 10)


def test_a_row_begins_anew_with_each_answer(taught):
    with FaultyServer(lambda a: error(403) if query_of(a) % 3 else ranking()) as server:
        labels, _ = taught(server, queries=12, concurrency=1, failures=3)
    assert list(states(labels).values()) == ["ok", "failed", "failed"] * 4


@pytest.mark.parametrize("reply", [error(400, "bad"), error(403), error(500)])
def test_few_lists_of_which_none_is_answered_are_no_labels(taught, reply):
    with FaultyServer(per_body(then=reply)) as server:
        with pytest.raises(Stopped):
            taught(server, queries=2)


# --- too long ---

OVERFLOWS = {
    "tgi": said(422, "Input validation error: `inputs` must have less than 300 tokens. Given: 480"),
    "vllm": error(400, "The decoder prompt (length 480) is longer than the maximum model length"),
    "llama.cpp": error(400, "the request is too large", "exceed_context_size_error"),
    "openai": error(400, "too many", "context_length_exceeded"),
    "ollama": error(400, "input length exceeds maximum context length"),
    "bedrock": error(400, "Input is too long for requested model."),
    "unknown 400": error(400, "bad request"),
    "unknown 413": Reply("error 413", b"<html>Payload Too Large</html>", 413, kind="text/html"),
    "unknown 422": said(422, "validation"),
}  # fmt: skip


@pytest.mark.parametrize("overflow", OVERFLOWS, ids=str)
def test_a_window_that_does_not_fit_is_asked_with_shorter_passages(taught, tmp_path, overflow):
    """97 words a passage, and room for four of 60: 90, 67, 50 are tried, or 90, 45."""

    def context(asked):
        words = [len(text.split()) for text in shown(asked.body["messages"]).values()]
        return OVERFLOWS[overflow] if max(words) > 60 else ranking()

    with FaultyServer(context) as server:
        labels, windows = taught(server, queries=2, depth=4, words=90, passage_words=90)
        asked = len(server.asked)
        again, _ = taught(server, queries=2, depth=4, words=90, passage_words=90)
        assert len(server.asked) == asked  # what was too long is not tried again
        lengths = [
            max(len(text.split()) for text in shown(a.body["messages"]).values())
            for a in server.asked
            if query_of(a) == 0
        ]
    assert lengths == ([90, 45] if overflow.startswith("unknown") else [90, 67, 50])
    pd.testing.assert_frame_equal(labels, again)
    assert states(labels) == {"q0": "ok", "q1": "ok"}
    assert list(windows.shortened) == [True, True] and set(windows.words) == {lengths[-1]}
    _, candidates = toy(2, 4)
    assert audit(labels, candidates, windows).windows.shortened == 2


def test_how_far_passages_are_shortened(taught):
    with FaultyServer(only(4, then=error(422))) as server:
        labels, windows = taught(server, queries=2, depth=4, words=93, passage_words=300)
        lengths = [
            max(len(text.split()) for text in shown(asked.body["messages"]).values())
            for asked in server.asked
            if query_of(asked) == 1
        ]
    # 100 words of 300; then 150 would change nothing; 75, 37, 18 and the least
    assert lengths == [100, 75, 37, 18, 16]
    assert states(labels) == {"q0": "ok", "q1": "failed"}
    assert list(windows.shortened) == [False, False] and windows.tries.sum() == 2


def test_a_refused_list_is_asked_again_as_it_was(taught, tmp_path):
    with FaultyServer(only(4, then=error(400))) as server:
        taught(server, queries=2, depth=4, words=90)
        server.behave = per_body()
        labels, windows = taught(server, queries=2, depth=4, words=90)
    assert states(labels) == {"q0": "ok", "q1": "ok"} and not windows.shortened.any()


# --- caps ---


def counting(usage, text=ranked_answer):
    """Good answers, with a given usage."""

    def behave(asked):
        message = {"content": text(asked.body["messages"])}
        content = {"choices": [{"message": message, "finish_reason": "stop"}]}
        more = {} if usage is None else {"usage": usage}
        return raw(json.dumps(content | more).encode())

    return behave


def spent(tmp_path):
    """What the ledger says, in a naive sum."""
    total = 0
    for path in (tmp_path / "ledger").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            for name in ("input_tokens", "output_tokens", "lost_input", "lost_output"):
                total += row.get(name, 0)
    return total


def estimates(server):
    """Estimated tokens of the prompts and the good answers of all requests."""
    prompts = [of_chat(asked.body["messages"]) for asked in server.asked]
    return (
        sum(prompts)
        + len(prompts) * of_chat([{"content": "[2] > [1] > [4] > [3]"}])
        - 5 * len(prompts)
    )


USAGES = [
    *(None, {}, [1], {"prompt_tokens": "400", "completion_tokens": "40"}),
    *({"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": -400}),
    *({"prompt_tokens": 220.0, "completion_tokens": 20.0}, {"completion_tokens": 20}),
    *({"prompt_tokens": 220}, {"prompt_tokens": 0, "completion_tokens": 0}),
    {"prompt_tokens": 220.5, "completion_tokens": True},
]


@pytest.mark.parametrize(
    ("usage", "concurrency"), [(None, 1), *((usage, 8) for usage in USAGES)], ids=str
)
def test_a_cap_holds_whatever_the_service_reports(taught, tmp_path, usage, concurrency, capsys):
    with FaultyServer(counting(usage)) as server:
        for _ in range(2):  # what was spent before counts
            with pytest.raises(Stopped):
                taught(server, queries=20, concurrency=concurrency, caps=Caps(tokens=1800))
        total, asked = spent(tmp_path), len(server.asked)
        assert 900 < total <= 1800
        if usage is None:
            assert total == estimates(server)
            assert capsys.readouterr().out.count("estimated") == 1
        taught(server, queries=20, caps=Caps(tokens=200_000))
        assert len(server.asked) == 80 and asked < 10


@pytest.mark.parametrize("cost", [1.0, 2.5])
def test_a_cap_in_money_holds_without_a_count(taught, tmp_path, cost):
    prices = Prices(input=1000.0, output=4000.0)
    with FaultyServer(counting(None)) as server:
        with pytest.raises(Stopped):
            taught(server, queries=20, prices=prices, caps=Caps(cost=cost))
    rows = entries(tmp_path)
    exact = sum(Fraction(e.input_tokens) + 4 * e.output_tokens for e in rows) / 1000
    assert cost / 2 < exact <= Fraction(cost)
    assert sum(entry.cost for entry in rows) == pytest.approx(float(exact), rel=1e-12)


def test_what_was_estimated_is_in_the_audit(taught, tmp_path):
    whole = counting({"prompt_tokens": 400, "completion_tokens": 40})
    half = counting({"prompt_tokens": 400})
    with FaultyServer(lambda asked: (half if query_of(asked) == 1 else whole)(asked)) as server:
        labels, windows = taught(server, queries=3, depth=4)
    _, candidates = toy(3, 4)
    output = of_chat([{"content": "[2] > [1] > [4] > [3]"}]) - 5
    facts = audit(labels, candidates, windows).windows
    assert facts.estimated_tokens == 400 + output and facts.lost_tokens == 0
    assert [entry.estimated for entry in entries(tmp_path)].count(True) == 1


@pytest.mark.parametrize(
    ("fault", "served"),
    [
        *((garbage(), True), (cut(), True), (error(500), True)),
        *((error(429), False), (error(503), False)),
    ],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_tries_that_were_served_in_vain_count(taught, tmp_path, fault, served):
    """Two tries per request of which the first fails; of q1 both do."""

    def behave(asked):
        return fault if asked.repeat == 0 or query_of(asked) == 1 else ranking()

    with FaultyServer(behave) as server:
        labels, windows = taught(server, queries=3, depth=4)
        lost = sum(
            of_chat(asked.body["messages"]) for asked in server.asked if asked.reply is fault
        )
        assert len(server.asked) == 6
    assert states(labels) == {"q0": "ok", "q1": "failed", "q2": "ok"}
    rows = entries(tmp_path)
    assert sum(entry.lost_input for entry in rows) == (lost if served else 0)
    _, candidates = toy(3, 4)
    assert audit(labels, candidates, windows).windows.lost_tokens == (lost if served else 0)


@pytest.mark.parametrize("concurrency", [1, 6])
def test_a_cap_stops_tries_in_vain_and_counts_them_after_a_restart(taught, tmp_path, concurrency):
    settings = {"concurrency": concurrency, "backend": {"tries": 50}, "caps": Caps(tokens=1500)}
    with FaultyServer(per_body(then=garbage())) as server:
        with pytest.raises(Stopped):
            taught(server, queries=20, **settings)
        total = sum(of_chat(request.body["messages"]) for request in server.asked)
        assert spent(tmp_path) == total <= 1500 and total > 700
        server.behave = per_body()
        with pytest.raises(Stopped):
            taught(server, queries=20, **settings)
        assert total <= spent(tmp_path) <= 1500


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("factor", [1, 5])
def test_by_how_much_a_cap_may_be_passed(taught, tmp_path, concurrency, factor):
    """At most by what the requests in flight take beyond what is reserved for them."""

    def behave(asked):
        took = factor * of_chat(asked.body["messages"])
        reply = counting({"prompt_tokens": took, "completion_tokens": 20})(asked)
        return replace(reply, delay=0.02)

    with FaultyServer(behave) as server:
        cap = 12_000
        with pytest.raises(Stopped):
            taught(server, queries=80, concurrency=concurrency, caps=Caps(tokens=cap))
        most = max(of_chat(asked.body["messages"]) for asked in server.asked)
        beyond = max(0, factor * most + 20 - MARGIN * most)
        assert 0.5 * cap < spent(tmp_path) <= cap + (concurrency * beyond if factor > 1 else 0)
        assert server.peak <= concurrency


def test_a_meter_waits_for_room():
    """Of four requests that need 500 each, a cap of 1,100 has room for two at a time."""

    async def go():
        meter = Meter(Caps(tokens=1100), Prices())
        peak, order = [], []

        async def request(number):
            ticket = await meter.admit(375, 1, 50)  # 375 * 1.2 + 50
            peak.append(meter.in_flight)
            await asyncio.sleep(0.01)
            order.append(number)
            meter.settle(ticket, Answer("", 150, 50, 0.0, "stop"))

        results = await asyncio.gather(*map(request, range(4)), return_exceptions=True)
        return meter, max(peak), order, [type(result) for result in results]

    meter, peak, order, results = asyncio.run(go())
    # after two answers the prompts are known to take 150 for 375: 180 + 50 are reserved
    assert peak == 2 and order == [0, 1, 2, 3] and results == [type(None)] * 4
    assert meter.tokens == 800 and meter.in_flight == 0
    assert meter.expected(375, 1) == (150, 6)


def test_a_meter_reserves_the_longest_answer_so_far_where_none_is_limited():
    async def go():
        meter = Meter(Caps(tokens=5000), Prices())
        first = await meter.admit(100, 1, None)
        meter.settle(first, Answer("", 100, 3000, 0.0, "stop"))
        with pytest.raises(Stopped):  # 3100 + 120 + 1.2 * 3000
            await meter.admit(100, 1, None)
        assert (await meter.admit(100, 1, 1700)).output_tokens == 1700

    asyncio.run(go())


def test_an_estimated_count_does_not_correct_the_estimate():
    async def go():
        meter = Meter(Caps(), Prices())
        for estimated in (True, False):
            ticket = await meter.admit(100, 1, 10)
            answer = Answer("", 300 if estimated else 150, 5, 0.0, "stop", estimated=estimated)
            meter.settle(ticket, answer)
        return meter.expected(100, 1)

    assert asyncio.run(go()) == (150, 6)
