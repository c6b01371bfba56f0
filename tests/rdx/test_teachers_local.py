"""The in-process backend: answers depend on the request alone, and end with the permutation."""

import asyncio
import shutil
import time

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, processors
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    PreTrainedTokenizerFast,
)

from rdx import memory
from rdx.teachers import engine
from rdx.teachers.engine import cached_values, complete, of_like_length
from rdx.teachers.local import Local
from rdx.teachers.messages import Answer, Failed, Fatal, TooLong
from rdx.teachers.parsing import read
from rdx.teachers.revisions import which
from tests.rdx.configured import configured

LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
WORDS = "river engine garden planet violin market stone reed kelp onyx rank these done".split()
SPECIAL = ["[PAD]", "[UNK]", "<s>", "</s>"]
ROLES = ["<user>", "<bot>", "system:"]
THOUGHTS = ["<think>", "</think>", "[C]>", "[B]>", "[A]"]
NUMBERS = [f"[{i}]" for i in range(1, 8)] + [f"[{i}]>" for i in range(1, 8)]
VOCABULARY = [*SPECIAL, *ROLES, *THOUGHTS, *NUMBERS, *LETTERS, *WORDS, "[", ">"]
VOCABULARY += ["even"] * (len(VOCABULARY) % 2)
CONTEXT = 96
CHAT = (
    "{% for m in messages %}{% if m.role == 'system' %}system: {% elif m.role == 'user' %}<user> "
    "{% else %}<bot> {% endif %}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<bot> {{ mood }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT
RANDOM = np.random.default_rng(0)


def save_tokenizer(folder, chat=None) -> None:
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $0", special_tokens=[("<s>", 2)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = chat
    fast.save_pretrained(folder)


def make_llama(**settings) -> LlamaForCausalLM:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": CONTEXT, "eos_token_id": 3}
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(VOCABULARY), initializer_range=0.5, **(sizes | settings))
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    """A random model, whose generation config is for conversations."""
    folder = tmp_path_factory.mktemp("llama")
    model = make_llama()
    chatty = {"do_sample": True, "temperature": 0.9, "top_k": 3, "repetition_penalty": 2.0}
    model.generation_config = GenerationConfig(eos_token_id=3, **chatty)
    model.save_pretrained(folder)
    save_tokenizer(folder, CHAT)
    return str(folder)


# What follows a word; "done" follows all others.
FOLLOWS = {
    "river": "[3]>", "[3]>": "[1]>", "[1]>": "[2]", "[2]": "done",
    "violin": "<think>", "<think>": "[C]>", "[C]>": "[B]>", "[B]>": "[A]", "[A]": "</think>",
    "</think>": "[3]>", "engine": "[4]>", "[4]>": "[5]>", "[5]>": "[4]>", "garden": "</s>",
}  # fmt: skip


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> str:
    """A model that continues the last word as FOLLOWS says: no attention, no MLP, no chat."""
    folder = tmp_path_factory.mktemp("scripted")
    size = len(VOCABULARY)
    sizes = {"hidden_size": size, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = make_llama(**sizes, tie_word_embeddings=False)
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for i, word in enumerate(VOCABULARY):
            model.lm_head.weight[VOCABULARY.index(FOLLOWS.get(word, "done")), i] = 1
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def some_text(words: int) -> str:
    return " ".join(RANDOM.choice(WORDS, words))


def settings(model, **more) -> Local:
    return Local(model, **({"precision": "fp32", "device": "cpu"} | more))


def ask(teacher: Local, requests, together=True):
    """Answers (or errors) of (messages, size) requests."""

    async def all_of_them():
        backend = teacher.backend()
        try:
            if together:
                pending = [backend.ask(*request) for request in requests]
                return await asyncio.gather(*pending, return_exceptions=True)
            return [await backend.ask(*request) for request in requests]
        finally:
            await backend.close()

    return asyncio.run(all_of_them())


def texts(answers):
    return [(a.text, a.input_tokens, a.output_tokens, a.finish) for a in answers]


def naive(folder, prompt: list[int], limit: int) -> tuple[list[int], list[float]]:
    """Greedy decoding without cache, padding or batch; and the logits of the first step."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    first, ids = [], list(prompt)
    with torch.inference_mode():
        while len(ids) < len(prompt) + limit and (ids[-1] != 3 or ids == prompt):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].tolist()
            first = first or logits
            ids.append(max(range(len(logits)), key=lambda i: logits[i]))
    return ids[len(prompt) :], first


def tokens(text: str) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()]


# --- the text that ends an answer ---


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("[2] > [1] > [3]", 3, True),
        ("[2]>[1]>[3]", 3, True),
        ("Ranking: [2] > [1] > [3]", 3, True),
        ("[1], [2] and [3] are fine", 3, False),
        ("[1] > [2], but then again: [3] > [1]", 3, False),  # the chain begins anew
        ("[1] > [2], but then again: [3] > [1] > [2]", 3, True),
        ("[2] > [1] > [3", 3, False),
        ("[2] > [1] > [1", 12, False),
        ("[2] > [1] > [2] > [2]", 3, False),
        ("[2] > [1] > [2] > [3]", 3, True),  # a duplicate does not make up for one that is missing
        ("[2] > [1] > [9] > [3]", 3, True),
        ("2 > 1 > 3", 3, False),  # it may become 30
        ("2 > 1 > 3\n", 3, True),
        ("2 > 1 > 3.\n", 3, True),
        ("2 > 1 > 3 degrees", 3, False),
        ("2] > [1] > [3]", 3, True),
        ("[2] > [1] > [3", 3, False),
        ("【2】＞【1】＞【3】", 3, True),
        ("[2], [1]", 2, False),  # the sentence may go on
        ("[3, 2] > [1]", 3, False),
        ("Worst to best: [2] > [1]", 2, False),
        ("<think>[2] > [1]", 2, False),
        ("<think>[2] > [1]</think>", 2, False),
        ("<think>[2] > [1]</think>[1] > [2]", 2, True),
        ("[2] > [1]</think>[1] > [2]", 2, True),
        ("<|channel|>analysis<|message|>[2] > [1]", 2, False),
        ("◁think▷[2] > [1]", 2, False),
        ("[THINK][2] > [1]", 2, False),
        ("[B] > [A]", 2, True),
        ("[B] > [C]", 2, False),
        ("B > A\n", 2, True),
        ("[1]", 1, True),
        ("", 1, False),
        ("", 20, False),
    ],
)
def test_an_answer_is_complete(text, size, expected):
    assert complete(text, size) is expected


def test_a_permutation_is_complete_at_its_last_character_and_not_before():
    for size in (2, 9, 12, 26, 100):
        order = RANDOM.permutation(size) + 1
        for text in [" > ".join(f"[{i}]" for i in order), ">".join(f"[{i}]" for i in order)]:
            assert complete(text, size)
            assert not any(complete(text[:end], size) for end in range(len(text)))


# --- generation ---


def test_answers_end_with_the_permutation_an_end_token_or_their_limit(scripted):
    prompts = [("rank these river", 3), ("engine", 2), ("these garden", 4), ("kelp", 1),
               ("stone reed kelp onyx river", 4)]  # fmt: skip
    requests = [(user(text), n) for text, n in prompts]
    assert texts(ask(settings(scripted, max_new_tokens=9), requests)) == [
        ("[3]> [1]> [2]", 4, 3, "stop"),  # one more for <s>
        ("[4]> [5]> [4]> [5]> [4]> [5]> [4]> [5]> [4]>", 2, 9, "length"),
        ("", 3, 1, "stop"),
        ("done " * 8 + "done", 2, 9, "length"),
        ("[3]> [1]> [2] " + "done " * 5 + "done", 6, 9, "length"),
    ]


TALKATIVE = "<think> [C]> [B]> [A] </think> [3]> [1]> [2]"


@pytest.fixture(params=[False, True], ids=["plain", "special"])
def thinker(request, scripted, tmp_path) -> str:
    """The scripted model with a chat template; marks of thoughts are special tokens, or are not."""
    folder = shutil.copytree(scripted, tmp_path / "thinker")
    save_tokenizer(folder, CHAT)
    if request.param:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        marks = [AddedToken(mark, special=True) for mark in ("<think>", "</think>", "[PAD]")]
        tokenizer.add_tokens(marks, special_tokens=True)
        tokenizer.save_pretrained(folder)
    return str(folder)


def test_no_answer_ends_within_a_thought(thinker):
    # "[C]> [B]> [A]" is complete, but it is a thought
    long, cut = (settings(thinker, max_new_tokens=n, chat_variables={"mood": "violin"})
                 for n in (20, 4))  # fmt: skip
    [whole] = ask(long, [(user("stone"), 3)])
    assert (whole.text, whole.finish, whole.output_tokens) == (TALKATIVE, "stop", 8)
    assert read(whole.text, whole.finish, 3) == ((2, 0, 1), "ok")
    [part] = ask(cut, [(user("stone"), 3)])
    assert (part.finish, part.output_tokens) == ("length", 4)
    assert read(part.text, part.finish, 3, identifiers="letters") == (None, "malformed")


def test_a_thought_that_the_template_begins_is_part_of_the_text(thinker):
    mood = {"mood": "<think>"}
    [whole] = ask(settings(thinker, max_new_tokens=20, chat_variables=mood), [(user("stone"), 3)])
    assert whole.text.replace("<think>", "<think> ") == TALKATIVE
    assert (whole.finish, whole.output_tokens) == ("stop", 7)
    [part] = ask(settings(thinker, max_new_tokens=3, chat_variables=mood), [(user("stone"), 3)])
    assert part.finish == "length"
    assert read(part.text, part.finish, 3, identifiers="letters") == (None, "malformed")
    # no room for thoughts, or letters that would be thought
    for more in ({}, {"score": "first_token"}):
        [error] = ask(settings(thinker, chat_variables=mood, **more), [(user("stone"), 3)])
        assert isinstance(error, Fatal) and "teacher.backend.chat_variables" in str(error)


def test_every_row_has_its_own_limit(scripted):
    together = ask(settings(scripted), [(user("engine"), n) for n in (2, 4, 20)])
    # as many tokens as "[1] > [2] > ..." has (one word each), and some more
    assert [answer.output_tokens for answer in together] == [2 * n - 1 + 16 for n in (2, 4, 20)]


def test_batches_change_nothing(llama):
    requests = [(user(some_text(int(n))), 3) for n in RANDOM.integers(1, 40, 23)]
    teacher = settings(llama, max_new_tokens=12)
    alone = texts(ask(teacher, requests, together=False))
    assert len(set(alone)) > 20
    for batch in (1, 4, 16):
        assert texts(ask(settings(llama, max_new_tokens=12, batch=batch), requests)) == alone
    assert texts(ask(teacher, requests[::-1])) == alone[::-1]


def test_generation_is_greedy_decoding(llama):
    requests = [(user(some_text(int(n))), 5) for n in RANDOM.integers(1, 40, 12)]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    answers = ask(settings(llama, max_new_tokens=15), requests)
    for (messages, _), answer in zip(requests, answers, strict=True):
        prompt = tokens(f"<s> <user> {messages[0]['content']} <bot>")
        expected, _ = naive(llama, prompt, 15)
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert (answer.input_tokens, answer.output_tokens) == (len(prompt), len(expected))
        assert answer.finish == ("stop" if expected[-1] == 3 else "length")
        assert answer.latency > 0


# --- first token ---


@pytest.mark.parametrize("opening", ["", "[ "])
def test_first_token_ranks_by_the_logits_of_the_letters(llama, opening):
    requests = [(user(some_text(int(n))), int(RANDOM.integers(1, 27)))
                for n in RANDOM.integers(1, 40, 15)]  # fmt: skip
    teacher = settings(llama, score="first_token", opening=opening, batch=4)
    different = set()
    for (messages, size), answer in zip(requests, ask(teacher, requests), strict=True):
        prompt = tokens(f"<s> <user> {messages[0]['content']} <bot> {opening}")
        _, logits = naive(llama, prompt, 1)
        best = sorted(LETTERS[:size], key=lambda letter: -logits[VOCABULARY.index(letter)])
        assert answer.text == " > ".join(f"[{letter}]" for letter in best)
        assert (answer.input_tokens, answer.output_tokens) == (len(prompt), 1)
        different.add(answer.text[:20])
    assert len(different) > 8


def test_first_token_keeps_the_input_order_of_ties(scripted):
    [answer] = ask(settings(scripted, score="first_token"), [(user("river"), 4)])
    assert answer.text == "[A] > [B] > [C] > [D]"


def test_first_token_has_26_letters(llama):
    [error] = ask(settings(llama, score="first_token"), [(user("river"), 27)])
    assert isinstance(error, Fatal) and "teacher.window" in str(error)


def test_first_token_needs_single_tokens(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "cut")
    cut = Tokenizer.from_file(str(tmp_path / "cut" / "tokenizer.json"))
    text = cut.to_str().replace('"Q"', '"qq"')
    (tmp_path / "cut" / "tokenizer.json").write_text(text)
    teacher = settings(str(tmp_path / "cut"), score="first_token")
    errors = ask(teacher, [(user("river"), 3), (user("stone"), 3)])
    assert all(isinstance(error, Fatal) and "'Q'" in str(error) for error in errors)
    # this tokeniser does not split "[A"
    [error] = ask(settings(llama, score="first_token", opening="["), [(user("reed"), 2)])
    assert isinstance(error, Fatal) and "opening='['" in str(error)


# --- chats ---


def prompt_of(folder, messages, **more) -> str:
    """The prompt as tokens, as the model sees it."""
    row = settings(str(folder), **more).load().row(messages, 2)
    return " ".join(VOCABULARY[i] for i in row.ids)


TALK = [
    {"role": "system", "content": "rank these"},
    {"role": "user", "content": "river"},
    {"role": "assistant", "content": "done"},
    {"role": "user", "content": "reed kelp"},
]


def test_chats_go_through_the_template(llama, scripted, tmp_path):
    talk = "<s> system: rank these <user> river <bot> done <user> reed kelp <bot>"
    assert prompt_of(llama, TALK) == talk
    assert prompt_of(llama, TALK, chat_variables={"mood": "onyx"}) == talk + " onyx"
    assert prompt_of(llama, TALK[:3]) == "<s> system: rank these <user> river <bot> done"
    assert prompt_of(scripted, TALK) == "<s> rank these river done reed kelp"  # there is none
    begins = shutil.copytree(llama, tmp_path / "begins")
    save_tokenizer(begins, "<s> " + CHAT)
    assert prompt_of(begins, TALK) == talk  # one <s>


def test_a_template_without_system_messages(llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "strict")
    save_tokenizer(folder, NO_SYSTEM)
    assert prompt_of(folder, TALK[:2]) == "<s> <user> rank these river <bot>"
    save_tokenizer(folder, "{{ raise_exception('never') }}")
    [error] = ask(settings(str(folder)), [(TALK, 2)])
    assert isinstance(error, Fatal) and "never" in str(error)


def test_special_tokens_in_a_passage_are_text(llama):
    seen = prompt_of(llama, user("river </s> stone<s>reed"))
    assert seen.count("<s>") == 1 and "</s>" not in seen
    assert seen.startswith("<s> <user> river [UNK] ")


# --- limits, errors, and the event loop ---


def test_a_prompt_that_does_not_fit_is_too_long(scripted):
    fits = CONTEXT - 5 - 1  # answer, <s>
    teacher = settings(scripted, max_new_tokens=5)
    results = ask(teacher, [(user("river " * n), 3) for n in (fits, fits + 1, 2)])
    assert [type(result) for result in results] == [Answer, TooLong, Answer]
    smaller = settings(scripted, max_new_tokens=5, context=10)
    answer, error = ask(smaller, [(user("river " * n), 3) for n in (4, 5)])
    assert answer.text == "[3]> [1]> [2]" and isinstance(error, TooLong)


def test_batches_are_halved_where_memory_does_not_suffice(llama, monkeypatch):
    requests = [(user(some_text(n)), 3) for n in range(1, 21)]
    expected = texts(ask(settings(llama, max_new_tokens=6), requests))
    generate, sizes = LlamaForCausalLM.generate, []

    def small(self, input_ids, **more):
        sizes.append(len(input_ids))
        if len(input_ids) > 5:
            raise torch.OutOfMemoryError("there is no GPU here to fill")
        return generate(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaForCausalLM, "generate", small)
    assert texts(ask(settings(llama, max_new_tokens=6), requests)) == expected
    assert sizes == [16, 8, 4, 4, 4, 4, 4]  # once for all batches


def test_a_request_that_never_fits_into_memory_has_failed(llama, monkeypatch):
    def none(self, **more):
        raise torch.OutOfMemoryError("there is no GPU here to fill")

    monkeypatch.setattr(LlamaForCausalLM, "generate", none)
    errors = ask(settings(llama), [(user("river"), 3), (user("reed"), 2)])
    assert all(isinstance(error, Failed) for error in errors)


def test_a_model_that_is_not_there_is_fatal(tmp_path):
    (tmp_path / "empty").mkdir()
    errors = ask(settings(str(tmp_path / "empty")), [(user("river"), 2), (user("stone"), 2)])
    assert all(isinstance(e, Fatal) and "teacher.backend.model" in str(e) for e in errors)


def test_the_event_loop_lives_while_the_model_works(llama, monkeypatch):
    load = engine.load_causal
    monkeypatch.setattr(engine, "load_causal", lambda *a: (time.sleep(0.3), load(*a))[1])

    async def both():
        backend, ticks = settings(llama, max_new_tokens=30).backend(), 0
        pending = asyncio.gather(*(backend.ask(user(some_text(n)), 9) for n in range(1, 9)))
        while not pending.done():
            await asyncio.sleep(0.005)
            ticks += 1
        await backend.close()
        return ticks

    assert asyncio.run(both()) > 20


def test_callers_in_step_share_their_batches(llama, monkeypatch):
    generate, sizes = LlamaForCausalLM.generate, []

    def counted(self, input_ids, **more):
        sizes.append(len(input_ids))
        return generate(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaForCausalLM, "generate", counted)

    async def several():
        backend = settings(llama, max_new_tokens=4, batch=8).backend()

        async def windows(n):
            for _ in range(5):
                await backend.ask(user(some_text(n)), 3)
                await asyncio.sleep(0.002 * n)  # a caller writes its ledger

        await asyncio.gather(*(windows(n) for n in range(1, 7)))
        await backend.close()

    asyncio.run(several())
    assert sizes == [6] * 5


def test_rows_of_like_length_share_a_batch():
    for _ in range(300):
        lengths = RANDOM.integers(1, 30, RANDOM.integers(1, 25)).tolist()
        most, tokens = int(RANDOM.integers(1, 15)), int(RANDOM.integers(1, 200))
        picked = of_like_length(lengths, most, tokens)

        # naively: every run of the rows in order of length that has the first one
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        runs = [order[i:j] for i in range(len(order)) for j in range(i + 1, len(order) + 1)]
        runs = [run for run in runs if 0 in run and len(run) <= most]
        whole = {tuple(run): len(run) * max(lengths[i] for i in run) for run in runs}
        fitting = [run for run in runs if len(run) == 1 or whole[tuple(run)] <= tokens]
        largest = [run for run in fitting if len(run) == max(map(len, fitting))]
        padding = {tuple(run): whole[tuple(run)] - sum(lengths[i] for i in run) for run in largest}
        assert padding[tuple(picked)] == min(padding.values())


def test_a_batch_fits_into_the_memory_for_keys_and_values(llama, monkeypatch):
    # 2 layers of keys and values with 2 heads of 8 numbers, 4 bytes each: 256 bytes a token
    room = 2 * 256 * 3 * (30 + 4)
    monkeypatch.setattr(memory, "free_bytes", lambda device: room)
    loaded = settings(llama, max_new_tokens=4).load()
    rows = [loaded.row(user(some_text(27)), 3)] * 9  # and 3 of the template
    assert (loaded.tokens, len(loaded.together(rows))) == (3 * 34, 3)
    answers = texts(ask(settings(llama, max_new_tokens=4), [(user("river"), 3)] * 9))
    monkeypatch.undo()
    assert texts(ask(settings(llama, max_new_tokens=4), [(user("river"), 3)])) * 9 == answers
    assert cached_values(GPT2Config(n_embd=32, n_layer=3, n_head=4)) == 2 * 3 * 32
    assert cached_values(MambaConfig()) == 0


def test_closing_ends_what_runs_and_fails_what_waits(scripted, llama):
    async def closed():
        backend = settings(llama, max_new_tokens=50, batch=1).backend()
        first = await backend.ask(user("river"), 3)  # loads the model
        pending = [asyncio.ensure_future(backend.ask(user(some_text(20)), 9)) for _ in range(50)]
        await asyncio.sleep(0.2)
        start = time.perf_counter()
        await backend.close()
        took = time.perf_counter() - start
        rest = await asyncio.gather(*pending, return_exceptions=True)
        again = await backend.ask(user("river"), 3)  # loads it again
        await backend.close()
        return took, rest, first, again

    took, rest, first, again = asyncio.run(closed())
    assert took < 1
    assert sum(isinstance(result, Failed) for result in rest) > 20
    assert first.text == again.text


def test_a_caller_that_gives_up_does_not_stop_the_others(scripted):
    async def some():
        backend = settings(scripted).backend()
        pending = [asyncio.ensure_future(backend.ask(user("river"), 3)) for _ in range(6)]
        await asyncio.sleep(0)
        for task in pending[::2]:
            task.cancel()
        results = await asyncio.gather(*pending, return_exceptions=True)
        await backend.close()
        return results

    results = asyncio.run(some())
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert [answer.text for answer in results[1::2]] == ["[3]> [1]> [2]"] * 3


def test_a_backend_outlives_the_event_loop(scripted):
    backend = settings(scripted).backend()
    for _ in range(2):
        assert asyncio.run(backend.ask(user("river"), 3)).text == "[3]> [1]> [2]"
    asyncio.run(backend.close())


# --- identity ---


def test_identity_follows_the_model_not_its_place(scripted, llama, tmp_path):
    moved = tmp_path / "elsewhere" / "scripted0"
    shutil.copytree(scripted, moved)
    (moved / "notes.md").write_text("not of the model")
    here, there = (settings(str(folder)).backend().identity() for folder in (scripted, moved))
    assert here == there and here["model"] == "scripted0"
    with (moved / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    revisions = [which(str(folder))["revision"] for folder in (moved, scripted, llama)]
    assert len(set(revisions)) == 3
    asset = which("asset:SmolLM2-135M-Instruct")
    assert asset["model"] == "asset:SmolLM2-135M-Instruct" and len(str(asset["revision"])) == 64


def test_identity_holds_what_changes_answers(llama):
    base = settings(llama).backend().identity()
    same = settings(llama, batch=3, device="cuda").backend().identity()
    assert same == base
    others = [{"precision": "bf16"}, {"score": "first_token"}, {"max_new_tokens": 7},
              {"context": 50}, {"chat_variables": {"mood": "onyx"}},
              {"score": "first_token", "opening": "["}]  # fmt: skip
    identities = [settings(llama, **other).backend().identity() for other in others]
    assert base not in identities and identities[1] != identities[5]


@pytest.mark.parametrize(
    ("key", "value"),
    [("precision", "fp16"), ("score", "last"), ("batch", 0), ("max_new_tokens", 0), ("context", 0)],
)
def test_local_refuses_bad_values(key, value):
    with pytest.raises(ValueError, match=rf"teacher\.backend\.{key}='?{value}"):
        configured("teacher.backend", Local, "somewhere", **{key: value})


# --- a real model ---

PASSAGES = [
    "Paris is the capital and the largest city of France.",
    "A recipe for bread needs flour, water, salt and yeast.",
    "The Seine flows through the capital of France.",
]


@pytest.mark.slow
def test_smollm2_answers_alone_as_in_a_batch():
    letters = [
        user("\n".join(f"[{LETTERS[i]}] {PASSAGES[j]}" for i, j in enumerate(order))
             + f"\nRank these by their relevance to: {query}\nAnswer as B > A > C.")
        for query in ("capital of France", "how to bake bread", "which river is in Paris")
        for order in ([0, 1, 2], [2, 1, 0], [1, 0])
    ]  # fmt: skip
    requests = [(chat, chat[0]["content"].count("[")) for chat in letters]

    async def alone_and_together(teacher):
        backend = teacher.backend()
        alone = [await backend.ask(*request) for request in requests]
        together = await asyncio.gather(*(backend.ask(*request) for request in requests))
        await backend.close()
        return texts(alone), texts(together)

    model = "asset:SmolLM2-135M-Instruct"
    alone, together = asyncio.run(alone_and_together(settings(model, max_new_tokens=12)))
    assert together == alone
    assert all(text and length > 40 for text, length, _, _ in alone)
    alone, together = asyncio.run(alone_and_together(settings(model, score="first_token")))
    assert together == alone and len(set(alone)) > 2
    assert all(complete(text[0], size) for text, (_, size) in zip(alone, requests, strict=True))
