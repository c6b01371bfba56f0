"""The endpoint backend against a misbehaving server on loopback, and a real one (slow)."""

import asyncio
import itertools
import json
import logging
import time
import traceback
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from faulty_server import (
    FaultyServer,
    Reply,
    always,
    answer,
    cut,
    drip,
    error,
    garbage,
    hang,
    limited,
    merit,
    mixed,
    no_choices,
    per_body,
    ranked_answer,
    ranking,
    raw,
    scripted,
    shown,
    wrong_kind,
)  # fmt: skip
from served_model import free_port, saved_smollm2, transformers_serve

from rdx.teachers.endpoint import Endpoint
from rdx.teachers.messages import Denied, Failed, Fatal, MaybeTooLong, Refused, Rejected, TooLong
from rdx.teachers.replies import code_and_message, retry_after
from rdx.teachers.tokens import of_text
from tests.rdx.configured import configured

KEY = "sk-very-secret-0123456789"
VARIABLE = "RDX_TEST_KEY"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("NO_PROXY", "*")


def prompt(*passages, query="what is a heron"):
    lines = "\n".join(f"[{i}] {text}" for i, text in enumerate(passages, 1))
    return [
        {"role": "system", "content": "You rank passages."},
        {"role": "user", "content": f"Query: {query}\n{lines}\nAnswer like this:\n[4] > [2] > ..."},
    ]


MESSAGES = prompt("a wading bird", "a kind of cake", "a river in the north")


def quick(server, **settings):
    """An endpoint that loses no time: half a second a try, three tries."""
    fast = {"timeout": 1.0, "tries": 3, "backoff": 0.01, "max_wait": 0.02}
    url = server if isinstance(server, str) else server.url
    return Endpoint("toy", base_url=url, key_variable=VARIABLE, **(fast | settings))


def ask(endpoint, messages=MESSAGES):
    async def go():
        backend = endpoint.backend()
        try:
            return await backend.ask(messages, len(shown(messages)))
        finally:
            await backend.close()

    return asyncio.run(go())


# --- what is asked and answered ---


def test_a_good_answer():
    with FaultyServer(always(ranking(delay=0.1))) as server:
        reply = ask(quick(server))
    texts = shown(MESSAGES)
    assert texts == {"1": "a wading bird", "2": "a kind of cake", "3": "a river in the north"}
    by_hand = sorted(texts, key=lambda name: merit(texts[name]))
    assert reply.text == " > ".join(f"[{name}]" for name in by_hand)
    words = sum(len(message["content"].split()) for message in MESSAGES)
    assert (reply.finish, reply.input_tokens, reply.output_tokens) == ("stop", words, 5)
    assert 0.1 <= reply.latency < 0.5


def test_the_request_holds_what_was_set_and_no_more():
    with FaultyServer() as server:
        ask(quick(server))
        ask(quick(server, temperature=0.7, seed=4, max_output_tokens=99, extra={"top_p": 0.5}))
        none = {"max_tokens": None, "temperature": None, "max_completion_tokens": 4000}
        ask(quick(server, extra=none))
    plain = {"model": "toy", "messages": MESSAGES}
    assert [asked.body for asked in server.asked] == [
        plain | {"temperature": 0, "max_tokens": 3 * 8 + 16},
        plain | {"temperature": 0.7, "seed": 4, "max_tokens": 99, "top_p": 0.5},
        plain | {"max_completion_tokens": 4000},
    ]
    assert {asked.authorization for asked in server.asked} == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (answer(""), "", "stop"),
        (answer(None, "content_filter"), "", "content_filter"),
        (answer(None, refusal="I cannot do that."), "I cannot do that.", "refusal"),
        (answer("[1]", refusal="not the other"), "[1]", "stop"),
        (answer(None, "length"), "", "length"),
        (answer("[1] > [2", "length"), "[1] > [2", "length"),
        (answer("[1]", None), "[1]", "unknown"),
        (answer([{"type": "text", "text": "[2"}, {"type": "text", "text": "]"}]), "[2]", "stop"),
        (answer("passage 3 is about 20 cats"), "passage 3 is about 20 cats", "stop"),
        (answer("half a pair: \ud800"), "half a pair: ?", "stop"),
    ],
)  # fmt: skip
def test_answers_that_are_the_parsers_business_are_passed_on(reply, text, finish):
    with FaultyServer(always(reply)) as server:
        passed_on = ask(quick(server))
        assert (passed_on.text, passed_on.finish, len(server.asked)) == (text, finish, 1)


def replied(message, finish="stop", kind="application/json", **more):
    content = {"choices": [{"message": message, "finish_reason": finish}], **more}
    return raw(json.dumps(content).encode(), kind)


THOUGHTS = "so the first is the best"


@pytest.mark.parametrize(
    "message",
    [
        {"content": "[2]", "reasoning_content": THOUGHTS},
        {"content": "[2]", "reasoning": THOUGHTS, "reasoning_content": THOUGHTS},
        {"content": "[2]", "thinking": [{"text": "so the first"}, {"text": " is the best"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHTS}]},
                {"type": "text", "text": "[2]"},
            ]
        },
        {"content": [{"type": "reasoning", "text": THOUGHTS}, {"type": "text", "text": "[2]"}]},
    ],
)
def test_thoughts_are_apart_from_the_text(message):
    with FaultyServer(always(replied(message))) as server:
        reply = ask(quick(server))
    assert (reply.text, reply.thoughts, reply.finish) == ("[2]", THOUGHTS, "stop")


def test_an_answer_of_thoughts_alone_is_empty():
    with FaultyServer(always(replied({"content": None, "reasoning": THOUGHTS}))) as server:
        reply = ask(quick(server))
    assert (reply.text, reply.thoughts, len(server.asked)) == ("", THOUGHTS, 1)


# --- tokens ---


def naive(text):
    """The estimate, character by character, in twelfths of a token."""
    twelfths = 0
    for character in text:
        if character.isascii():
            twelfths += 3 if character.isalpha() or character.isspace() else 12
        else:
            twelfths += 8 * len(character.encode())
    return -(-twelfths // 12)


PROMPT = sum(naive(message["content"]) + 5 for message in MESSAGES)
OUTPUT = 8  # "[2] > [1]" has 7 that are no letters or spaces, and 2 spaces
LIMIT = 3 * 8 + 16


def test_an_estimate_by_hand():
    assert [of_text(text) for text in ("heron", "[12] > ", "3.14", "鹭", "é", "\ud800", "")] == [
        *(2, 6, 4, 2, 2, 1, 0)
    ]
    texts = ("a blue heron", "[2] > [1]\n", "Größe: 3 m², 鹭 😀", "x" * 1000)
    assert [of_text(text) for text in texts] == [naive(text) for text in texts]


@pytest.mark.parametrize(
    ("usage", "input_tokens", "output_tokens", "thinking", "estimated"),
    [
        ({"prompt_tokens": 400, "completion_tokens": 40}, 400, 40, 0, False),
        ({"prompt_tokens": 400.0, "completion_tokens": 40.0}, 400, 40, 0, False),
        (None, PROMPT, OUTPUT, 0, True),
        ([1], PROMPT, OUTPUT, 0, True),
        ({}, PROMPT, OUTPUT, 0, True),
        ({"prompt_tokens": "400", "completion_tokens": "40"}, PROMPT, OUTPUT, 0, True),
        ({"prompt_tokens": -400, "completion_tokens": -40}, PROMPT, OUTPUT, 0, True),
        ({"prompt_tokens": True, "completion_tokens": True}, PROMPT, OUTPUT, 0, True),
        ({"prompt_tokens": 400.5, "completion_tokens": float("inf")}, PROMPT, OUTPUT, 0, True),
        ({"prompt_tokens": None, "completion_tokens": 40}, PROMPT, 40, 0, True),
        ({"prompt_tokens": 400, "completion_tokens": None}, 400, OUTPUT, 0, True),
        ({"prompt_tokens": 400, "total_tokens": 440}, 400, 40, 0, True),
        # fewer than any vocabulary makes of the texts
        ({"prompt_tokens": 0, "completion_tokens": 0}, PROMPT, OUTPUT, 0, True),
        ({"prompt_tokens": 6, "completion_tokens": 40}, PROMPT, 40, 0, True),
        # thoughts within the answer, apart from it, and in the total only
        (
            {
                "prompt_tokens": 400,
                "completion_tokens": 40,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            *(400, 40, 30, False),
        ),
        (
            {
                "prompt_tokens": 400,
                "completion_tokens": 7,
                "completion_tokens_details": {"reasoning_tokens": 30.0},
            },
            *(400, 37, 30, False),
        ),
        (
            {"prompt_tokens": 400, "completion_tokens": 7, "total_tokens": 437},
            *(400, 37, 0, False),
        ),
        (
            {"prompt_tokens": 400, "completion_tokens": 40, "reasoning_tokens": "30"},
            *(400, 40, 0, False),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_what_a_service_does_not_count_is_estimated(
    usage, input_tokens, output_tokens, thinking, estimated, kind
):
    reply = replied({"content": "[2] > [1]"}, kind=kind, usage=usage)
    with FaultyServer(always(reply)) as server:
        answer = ask(quick(server))
    counted = (answer.input_tokens, answer.output_tokens, answer.thinking_tokens)
    assert counted == (input_tokens, output_tokens, thinking) and answer.estimated == estimated


def test_without_a_count_thoughts_and_what_was_cut_off_count():
    seen = replied({"content": "[2] > [1]", "reasoning": THOUGHTS})
    unseen = replied({"content": None}, "length")
    with FaultyServer(scripted(seen, unseen)) as server:
        tokens = [ask(quick(server)).output_tokens for _ in range(2)]
    assert tokens == [naive("[2] > [1]" + THOUGHTS), LIMIT]


def test_the_longest_answer():
    assert [Endpoint("toy").longest(size) for size in (1, 20)] == [24, 176]
    reasons = {"max_tokens": None, "max_completion_tokens": 8000}
    assert Endpoint("toy", extra=reasons).longest(20) == 8000
    assert Endpoint("toy", extra={"max_tokens": None}).longest(20) is None


# --- faults that pass ---

PASSING = {
    "500": error(500),
    "503": error(503),
    "408": error(408),
    "409": error(409),
    "429": limited(0),
    "429 without a time": error(429, "slow down"),
    "hang": hang(),
    "drip": drip(),
    "cut at once": cut(0),
    "cut in the header": cut(0.1),
    "cut in the body": cut(0.9),
    "garbage": garbage(),
    "deep garbage": raw(b"[" * 100_000),
    "not UTF-8": raw(b'{"choices": "\xff"}'),
    "nothing": raw(b""),
    "no choices": no_choices(),
    "null": raw(b"null"),
    "no message": raw(b'{"choices": [{}]}'),
    "null message": raw(b'{"choices": [{"message": null}]}'),
    "text that is a number": raw(b'{"choices": [{"message": {"content": 7}}]}'),
    "null choices": raw(b'{"choices": null}'),
    "an error as 200": raw(b'{"error": {"message": "upstream is away", "code": 502}}'),
    "an error beside an answer": replied({"content": "[1] > "}, error={"message": "lost"}),
    "an error in the choice": replied({"content": "[1] > [2] > [3]"}, "error"),
    "no text and no reason": replied({"content": None}),
    "no text, no reason, no finish": replied({"content": None}, None),
    "the end of a stream": raw(b'data: {"error": {"message": "lost"}}\n\n', "text/event-stream"),
    "another content type": wrong_kind(),
    "JSON called HTML": Reply("raw", b"{}", kind="text/html"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_is_tried_again_as_often_as_allowed(fault):
    with FaultyServer(scripted(fault)) as server:
        assert ask(quick(server)).text == ranked_answer(MESSAGES)
    assert [request.body for request in server.asked] == [server.asked[0].body] * 2
    assert server.answered == {server.asked[0].digest: 1}
    with FaultyServer(always(fault)) as server:
        with pytest.raises(Failed):
            ask(quick(server, timeout=0.3))
    assert len(server.asked) == 3
    assert server.answered.total() == 0


# --- faults that stay ---


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        *((status, "", Denied) for status in (401, 402, 404, 405, 410)),
        (429, "insufficient_quota", Denied),
        *((status, "", MaybeTooLong) for status in (400, 413, 414, 422, 431)),
        *((status, "", Rejected) for status in (403, 406, 415, 418)),
        *((400, "content_filter", Refused), (403, "moderation", Refused), (451, "", Refused)),
    ],
)
def test_what_asking_again_will_not_mend_is_asked_once(status, code, kind):
    with FaultyServer(always(error(status, "words of the server", code))) as server:
        with pytest.raises(kind, match=f"HTTP {status}") as caught:
            ask(quick(server, backoff=30, max_wait=30))
        assert len(server.asked) == 1
    assert type(caught.value) is kind
    assert ("words of the server" in str(caught.value)) == (status != 401)
    assert ("$RDX_TEST_KEY" in str(caught.value)) == (
        status in (401, 402, 403, 429) and kind is not Refused
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ('{"error": "the model is away"}', "", "the model is away"),
        ('{"object": "error", "message": "no such field", "code": 400}', "400", "no such field"),
        ('[{"error": {"code": 400, "message": "bad value"}}]', "400", "bad value"),
        ('{"error": {"type": "bad_key", "message": ""}}', "bad_key", None),
        ('{"detail": [{"msg": "field required"}]}', "", None),
        ("plain words", "", None),
        ("", "", None),
    ],
)
def test_code_and_message_are_found_in_any_form_of_error(body, code, message):
    assert code_and_message(body) == (code, body if message is None else message)


@pytest.mark.parametrize(
    "reply",
    [
        error(400, "too many tokens", "context_length_exceeded"),
        error(400, "This model's maximum context length is 4096 tokens."),
        error(400, "the request exceeds the available context size", "exceed_context_size_error"),
        error(400, "prompt is too long: 9000 tokens"),
        error(413, "Please reduce the length of the messages"),
        error(422, "`inputs` tokens + `max_new_tokens` must be <= 4096"),
        error(422, "Input validation error: `inputs` must have less than 300 tokens. Given: 480"),
        error(400, "The decoder prompt (length 480) is longer than the maximum model length"),
        error(400, "Input is too long for requested model."),
        error(400, "Range of input length should be [1, 300]"),
        error(500, "the input length exceeds the context length"),
        error(429, "Request too large: limit 8000 tokens per minute, requested 9000"),
        error(500, "context size exceeded"),
    ],
)
def test_a_prompt_that_does_not_fit_is_told_apart(reply):
    with FaultyServer(always(reply)) as server:
        with pytest.raises(TooLong):
            ask(quick(server))
        assert len(server.asked) == 1


def test_an_address_where_nobody_listens_stops_the_teacher():
    with pytest.raises(Fatal, match="127.0.0.1"):
        ask(quick(f"http://127.0.0.1:{free_port()}/v1"))


def test_a_server_that_went_away_fails_the_request_only():
    async def go():
        with FaultyServer() as server:
            backend = quick(server).backend()
            assert (await backend.ask(MESSAGES, 3)).text
        with pytest.raises(Failed):
            await backend.ask(MESSAGES, 3)
        await backend.close()

    asyncio.run(go())


# Which tries cost their prompt: those that the service took, and gave no answer to.
SERVED = {
    *("500", "hang", "drip", "cut at once", "cut in the header", "cut in the body", "garbage"),
    *("deep garbage", "not UTF-8", "nothing", "no choices", "null choices", "null", "no message"),
    *("null message", "text that is a number", "an error as 200", "an error beside an answer"),
    *("an error in the choice", "no text and no reason", "no text, no reason, no finish"),
    *("the end of a stream", "another content type", "JSON called HTML"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_tries_that_were_served_in_vain_are_told(fault):
    lost = []

    async def go(server):
        backend = quick(server, timeout=0.3).backend()
        with pytest.raises(Failed):
            await backend.ask(MESSAGES, 3, lambda *tokens: lost.append(tokens))
        await backend.close()

    with FaultyServer(always(fault)) as server:
        asyncio.run(go(server))
    name = next(name for name, reply in PASSING.items() if reply is fault)
    assert [took[0] for took in lost] == ([PROMPT] * 3 if name in SERVED else [])


def test_what_a_broken_reply_says_that_it_took_is_told():
    lost = []
    broken = raw(json.dumps({"usage": {"prompt_tokens": 50, "completion_tokens": 9}}).encode())

    async def go(server):
        backend = quick(server).backend()
        await backend.ask(MESSAGES, 3, lambda *tokens: lost.append(tokens))
        await backend.close()

    with FaultyServer(scripted(broken)) as server:
        asyncio.run(go(server))
    assert lost == [(50, 9)]


def test_what_the_told_one_raises_ends_the_request():
    def enough(*tokens):
        raise InterruptedError

    async def go(server):
        backend = quick(server).backend()
        with pytest.raises(InterruptedError):
            await backend.ask(MESSAGES, 3, enough)
        await backend.close()

    with FaultyServer(always(garbage())) as server:
        asyncio.run(go(server))
        assert len(server.asked) == 1


# --- waiting ---


def gaps(server):
    times = [asked.at for asked in server.asked]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_waits_double_up_to_the_longest_one():
    with FaultyServer(always(error(500))) as server:
        with pytest.raises(Failed):
            ask(quick(server, tries=5, backoff=0.1, max_wait=0.3))
    endpoint = Endpoint("toy", backoff=0.1, max_wait=0.3)
    assert [endpoint.longest_wait(n) for n in (1, 2, 3, 4, 9999)] == [0.1, 0.2, 0.3, 0.3, 0.3]
    for gap, longest in zip(gaps(server), [0.1, 0.2, 0.3, 0.3], strict=True):
        assert longest / 2 <= gap < longest + 1


def test_retry_after_is_obeyed():
    headers = {"retry-after-ms": "400", "Retry-After": "60"}
    with FaultyServer(scripted(error(429, headers=headers))) as server:
        ask(quick(server))
        assert 0.4 <= gaps(server)[0] < 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT"}, 60),
        ({"retry-after": "Sun, 06 Nov 1994 09:49:37 +0100"}, 0),
        ({"retry-after": "Sun, 06 Nov 1994 08:48:37 GMT"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "tomorrow"}, 0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert retry_after(headers, datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)) == seconds


def test_a_rate_limit_holds_for_all_requests():
    async def go(server):
        backend = quick(server).backend()
        first = asyncio.create_task(backend.ask(MESSAGES, 3))
        while not server.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await asyncio.gather(first, *(backend.ask(prompt(f"text {i}"), 1) for i in range(3)))
        await backend.close()

    with FaultyServer(scripted(limited(0.6))) as server:
        asyncio.run(go(server))
        start = server.asked[0].at
        assert len(server.asked) == 5
        assert all(asked.at - start >= 0.6 for asked in server.asked[1:])


def test_too_long_a_wait_is_not_waited():
    with FaultyServer(always(limited(30))) as server:
        start = time.monotonic()
        with pytest.raises(Failed, match="teacher.backend.patience is 10 s"):
            ask(quick(server, patience=10))
        assert time.monotonic() - start < 2
        assert len(server.asked) == 1


# --- the key ---

ECHO = f"wrong key {KEY} in Authorization: Bearer {KEY}"


@pytest.mark.parametrize(
    "reply",
    [
        error(401, ECHO),
        error(403, ECHO),
        error(400, "x" * 290 + ECHO),  # a message is shortened after the key is taken out
        error(404, ECHO),
        error(500, ECHO),
        error(400, ECHO, "context_length_exceeded"),
        error(401, "no", KEY),
        raw(ECHO.encode()),
        cut(),
    ],
)
def test_the_key_is_in_no_message_log_or_representation(reply, caplog):
    caplog.set_level(logging.DEBUG)
    with FaultyServer(always(reply)) as server:
        endpoint = quick(server)
        backend = endpoint.backend()
        with pytest.raises((Failed, Fatal, TooLong)) as caught:
            asyncio.run(backend.ask(MESSAGES, 3))
    assert server.asked[0].authorization == f"Bearer {KEY}"
    trace = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    texts = [trace, caplog.text, repr(endpoint), repr(backend), json.dumps(backend.identity())]
    assert not any("very-secret" in text for text in texts)
    assert "sk-v" not in trace
    chain = caught.value
    while chain is not None:  # also what a debugger or an error tracker would walk
        assert "very-secret" not in repr(chain)
        chain = chain.__cause__ or chain.__context__


def test_a_line_break_after_the_key_is_dropped(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY + "\n")
    with FaultyServer() as server:
        ask(quick(server))
    assert server.asked[0].authorization == f"Bearer {KEY}"


@pytest.mark.parametrize("value", ["sk-very secret", "sk-very\nsecret", "sk-verysecr\u00e9t"])
def test_what_can_be_no_key_is_refused_unseen(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(Fatal, match="RDX_TEST_KEY") as caught:
        ask(quick("http://127.0.0.1:1/v1"))
    assert "very" not in "".join(traceback.format_exception(caught.value, chain=True, limit=0))


def test_ones_own_server_needs_no_key(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    with FaultyServer(scripted(ranking(), error(401, "who are you"))) as server:
        assert ask(quick(server)).text == ranked_answer(MESSAGES)
        with pytest.raises(Fatal, match="wants a key.*RDX_TEST_KEY"):
            ask(quick(server))


def test_without_key_and_address_nothing_is_asked(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(Fatal, match="RDX_TEST_KEY"):
        ask(Endpoint("toy", key_variable=VARIABLE))


def test_the_address_may_come_from_the_environment(monkeypatch):
    with FaultyServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert ask(Endpoint("toy", key_variable=VARIABLE)).text == ranked_answer(MESSAGES)


def test_a_proxy_may_come_from_the_environment(monkeypatch):
    endpoint = quick("http://teacher.invalid/v1")
    with FaultyServer() as server:
        proxy = server.url.removesuffix("/v1")
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "other.invalid")
        assert ask(endpoint).text == ranked_answer(MESSAGES)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "teacher.invalid")
        with pytest.raises(Denied, match="teacher.invalid"):
            ask(endpoint)
        assert len(server.asked) == 1


def test_a_proxy_that_does_not_speak_http_stops_the_teacher(monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("ALL_PROXY", f"socks5://me:{KEY}@127.0.0.1:1")
    with pytest.raises(Fatal, match="proxy") as caught:
        ask(quick("http://teacher.invalid/v1"))
    assert KEY not in str(caught.value)


# --- many at once, and the end ---


def test_there_are_as_many_connections_as_requests_in_flight():
    async def go(server):
        backend = quick(server, timeout=30).backend()
        for i in range(9):
            await backend.ask(prompt(f"text {i}"), 1)
        assert server.connections == 1
        for _ in range(2):
            await asyncio.gather(*(backend.ask(prompt(f"more {i}"), 1) for i in range(150)))
        await backend.close()

    with FaultyServer(lambda asked: ranking(delay=1.0 if 9 <= asked.number < 159 else 0)) as server:
        asyncio.run(go(server))
        assert len(server.asked) == 9 + 300
        assert 100 < server.peak <= server.connections <= 150


def test_mixed_faults_lose_nothing_and_ask_nothing_twice():
    faults = [error(500), limited(0.01), cut(0), cut(), garbage(), no_choices(), wrong_kind()]
    faults.append(hang())
    chats = [prompt(f"one {i}", f"two {i}", f"three {i}") for i in range(150)]

    async def go(server):
        backend = quick(server, tries=12, timeout=0.7).backend()
        slots = asyncio.Semaphore(16)

        async def limited_ask(messages):
            async with slots:
                return await backend.ask(messages, 3)

        answers = await asyncio.gather(*map(limited_ask, chats))
        await backend.close()
        return answers

    with FaultyServer(mixed(1, 0.4, faults)) as server:
        answers = asyncio.run(go(server))
        assert [a.text for a in answers] == [ranked_answer(messages) for messages in chats]
        assert len(server.answered) == 150 and set(server.answered.values()) == {1}
        faulty = sum(asked.reply.name != "ranking" for asked in server.asked)
        assert len(server.asked) == 150 + faulty
        assert 60 < faulty < 150  # 150 * .4 / .6 = 100, three standard deviations
        assert {asked.reply.name for asked in server.asked} > {"hang", "cut", "error 500", "raw"}
        assert 8 < server.peak <= 16


def until(condition, seconds=2.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_closing_ends_what_is_under_way():
    async def go(server):
        backend = quick(server, timeout=30).backend()
        asking = [asyncio.create_task(backend.ask(prompt(f"text {i}"), 1)) for i in range(4)]
        while server.busy < 4:
            await asyncio.sleep(0.01)
        start = time.monotonic()
        await backend.close()
        await backend.close()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert time.monotonic() - start < 1
        assert [type(result) for result in results] == [Failed] * 4
        with pytest.raises(Failed):
            await backend.ask(MESSAGES, 3)

    with FaultyServer(always(hang())) as server:
        asyncio.run(go(server))
        assert until(lambda: server.busy == 0)
        assert len(server.asked) == 4


def test_a_cancelled_caller_is_cancelled_and_its_connection_freed():
    async def go(server):
        backend = quick(server, timeout=30).backend()
        task = asyncio.create_task(backend.ask(MESSAGES, 3))
        while not server.busy:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await backend.ask(MESSAGES, 3)).text == ranked_answer(MESSAGES)
        await backend.close()

    with FaultyServer(per_body(hang())) as server:
        asyncio.run(go(server))
        assert until(lambda: server.busy == 0)


# --- settings ---


def test_the_identity_holds_what_changes_answers():
    def identity(**settings):
        return json.dumps(Endpoint("toy", **settings).backend().identity(), sort_keys=True)

    decides = {
        "revision": "abc",
        "engine": "vllm 0.11",
        "temperature": 0.5,
        "seed": 1,
        "max_output_tokens": 50,
        "extra": {"top_p": 0.9},
    }
    schedules = {
        "base_url": "http://127.0.0.1:8000/v1",
        "key_variable": "OTHER",
        "timeout": 5.0,
        "tries": 2,
        "backoff": 0.1,
        "max_wait": 3.0,
        "patience": 1.0,
    }
    assert {"model", *decides, *schedules} == {field.name for field in fields(Endpoint)}
    one_by_one = [identity(**{name: value}) for name, value in decides.items()]
    other_model = json.dumps(Endpoint("other").backend().identity(), sort_keys=True)
    assert len({identity(), other_model, *one_by_one}) == 2 + len(decides)
    assert all(identity(**{name: value}) == identity() for name, value in schedules.items())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", ""),
        ("key_variable", KEY),
        ("base_url", "127.0.0.1:8000/v1"),
        ("base_url", f"http://me:{KEY}@127.0.0.1/v1"),
        ("base_url", f"http://127.0.0.1/v1?key={KEY}"),
        ("temperature", -0.1),
        ("tries", 0),
        ("max_output_tokens", 0),
        ("timeout", 0),
        ("backoff", -1),
        ("max_wait", float("nan")),
        ("patience", -1),
        ("extra", {"stream": True}),
    ],
)
def test_wrong_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=f"^teacher.backend.{key}") as caught:
        configured("teacher.backend", Endpoint, **({"model": "toy"} | {key: value}))
    assert KEY not in str(caught.value)


# --- a real server ---


@pytest.mark.slow
def test_a_real_server_answers_as_the_model_in_process(tmp_path):
    import torch

    folder = tmp_path / "smollm2"
    tokenizer, model = saved_smollm2(folder)
    with transformers_serve(str(folder), tmp_path / "log") as url:
        endpoint = Endpoint(
            str(folder), base_url=url, key_variable=VARIABLE, timeout=120, max_output_tokens=24
        )
        reply = ask(endpoint)
    encoded = tokenizer.apply_chat_template(
        MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = model.generate(**encoded, do_sample=False, max_new_tokens=24)
    answered = tokens[0, encoded["input_ids"].shape[1] :]
    assert reply.text == tokenizer.decode(answered, skip_special_tokens=True)
    assert reply.input_tokens == encoded["input_ids"].shape[1]
    assert reply.output_tokens == len(answered)
    assert reply.finish == ("length" if len(answered) == 24 else "stop")
