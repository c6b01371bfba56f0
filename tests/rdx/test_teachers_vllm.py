"""The backend of vLLM, on a stand-in with the interface that its documentation gives."""

import asyncio
import importlib
import importlib.util
import sys
from collections import Counter

import pandas as pd
import pytest
from faulty_server import best_first, ranked_answer
from test_teachers_local import CHAT, TALK, WORDS, save_tokenizer, texts, user
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from rdx import config, declared, rankings
from rdx.collection import Collection
from rdx.config import MissingFile
from rdx.teachers import VLLM, Fatal, Listwise, Local
from rdx.teachers.ledger import Ledger
from rdx.teachers.messages import Answer, TooLong
from tests.rdx.configured import check_refused

VERSION = "0.99.0"
# As in vLLM 0.33: what is positional, what must be named, and the names; other names are refused.
STAND_IN = """
from dataclasses import dataclass, field

made, asked = [], []  # engines; (prompts, sampling parameters) of every call


class SamplingParams:
    def __init__(self, *, n=1, temperature=1.0, top_p=1.0, top_k=0, seed=None, stop=None,
                 stop_token_ids=None, max_tokens=16, min_tokens=0, detokenize=True,
                 skip_special_tokens=True):
        self.given = {name: value for name, value in locals().items() if name != "self"}


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list
    cumulative_logprob: float | None
    logprobs: list | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list
    prompt_logprobs: list | None
    outputs: list
    finished: bool


class LLM:
    says = None  # (prompt's tokens, limit) -> tokens and reason

    def __init__(self, model, *, tokenizer=None, trust_remote_code=False, tensor_parallel_size=1,
                 dtype="auto", revision=None, seed=0, gpu_memory_utilization=0.92,
                 enforce_eager=False, max_model_len=None):
        made.append({k: v for k, v in locals().items() if k not in ("self", "__class__")})

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        assert len(prompts) == len(sampling_params)
        asked.append([(p["prompt_token_ids"], s.given) for p, s in zip(prompts, sampling_params)])
        outputs = []
        for i, (ids, given) in enumerate(asked[-1]):
            tokens, reason = LLM.says(ids, given["max_tokens"])
            said = CompletionOutput(0, "", tuple(tokens), None, None, reason)
            outputs.append(RequestOutput(str(i), None, ids, None, [said], True))
        return outputs
"""
CHAT_BYTES = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ mood }}{% endif %}"
)
POSITIONS = 4096


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """The stand-in, installed."""
    site = tmp_path / "site"
    (site / "vllm").mkdir(parents=True)
    (site / "vllm" / "__init__.py").write_text(STAND_IN)
    (site / f"vllm-{VERSION}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n"
    (site / f"vllm-{VERSION}.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    declared.version.cache_clear()
    yield importlib.import_module("vllm")
    sys.modules.pop("vllm", None)
    declared.version.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model without weights, whose tokens are bytes, with marks of thoughts of its own."""
    folder = tmp_path_factory.mktemp("zephyr")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    marks = [AddedToken(mark, special=True) for mark in ("<think>", "</think>", "<turn>")]
    fast.add_tokens(marks, special_tokens=True)
    fast.chat_template = CHAT_BYTES
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = [fast.eos_token_id, fast.convert_tokens_to_ids("<turn>")]
    LlamaConfig(vocab_size=len(fast), max_position_embeddings=POSITIONS, **sizes).save_pretrained(
        folder
    )
    GenerationConfig(eos_token_id=ends, do_sample=True, temperature=0.9).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture
def says(vllm, tokenizer):
    """Have the stand-in answer a prompt's text with a text, cut at the limit of the request."""

    def install(answer):
        def tokens(ids, limit):
            said = tokenizer(answer(tokenizer.decode(ids)), add_special_tokens=False)["input_ids"]
            said = [*said, tokenizer.eos_token_id]
            return (said, "stop") if len(said) <= limit else (said[:limit], "length")

        vllm.LLM.says = staticmethod(tokens)

    return install


def ask(settings, requests):
    async def together():
        backend = settings.backend()
        pending = [backend.ask(*request) for request in requests]
        answers = await asyncio.gather(*pending, return_exceptions=True)
        await backend.close()
        return answers

    return asyncio.run(together())


def toy(queries, depth):
    passages = {f"d{i}": f"{WORDS[i % 10]} number {i}" for i in range(queries * depth)}
    none = pd.DataFrame(columns=["query_id", "doc_id", "relevance"])
    rows = [(f"q{i}", f"d{i * depth + j}", -float(j)) for i in range(queries) for j in range(depth)]
    collection = Collection("toy", {f"q{i}": f"reed {i}" for i in range(queries)}, passages, none)
    return collection, rankings.rank(*zip(*rows, strict=True))


def ranked(prompt):
    return ranked_answer([{"role": "user", "content": prompt}])


# --- what vLLM is given ---


def test_the_engine_is_made_as_configured(vllm, says, folder):
    says(lambda prompt: "[1]")
    ask(VLLM(str(folder)), [(user("river"), 1)])
    ask(
        VLLM(
            str(folder), precision="fp32", seed=7, context=512, tensor_parallel_size=2,
            gpu_memory_utilization=0.5, enforce_eager=True,
        ),
        [(user("river"), 1)],
    )  # fmt: skip
    same = {"model": str(folder), "tokenizer": None, "revision": None, "trust_remote_code": False}
    assert vllm.made == [
        same | {"dtype": "bfloat16", "seed": 0, "max_model_len": POSITIONS, "enforce_eager": False,
                "tensor_parallel_size": 1, "gpu_memory_utilization": 0.9},
        same | {"dtype": "float32", "seed": 7, "max_model_len": 512, "enforce_eager": True,
                "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5},
    ]  # fmt: skip


def test_requests_are_tokens_with_parameters_of_their_own(vllm, says, folder, tokenizer):
    says(lambda prompt: "[2] > [1]")
    requests = [(TALK, 2), (user("reed </s> kelp"), 12)]
    ask(VLLM(str(folder), temperature=0.5, seed=3), requests)
    [batch] = vllm.asked
    assert [tokenizer.decode(ids) for ids, _ in batch] == [
        "<|system|>rank these\n<|user|>river\n<|assistant|>done\n<|user|>reed kelp\n<|assistant|>",
        "<|user|>reed < /s> kelp\n<|assistant|>",
    ]
    bare = " > ".join(f"[{i + 1}]" for i in range(12))
    given = {"n": 1, "temperature": 0.5, "top_p": 1.0, "top_k": 0, "seed": 3, "stop": None,
             "min_tokens": 0, "detokenize": False, "skip_special_tokens": True}  # fmt: skip
    # what the model's own settings call an end, too
    ends = sorted(tokenizer.convert_tokens_to_ids(["</s>", "<turn>"]))
    for (_, parameters), tokens in zip(batch, (len("[1] > [2]"), len(bare)), strict=True):
        assert parameters == given | {"stop_token_ids": ends, "max_tokens": tokens + 16}


def test_prompts_are_those_of_the_other_backend_of_this_process(vllm, tmp_path):
    # whose tests compare them with what the template makes
    save_tokenizer(tmp_path, CHAT)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaConfig(vocab_size=64, max_position_embeddings=96, **sizes).save_pretrained(tmp_path)
    vllm.LLM.says = staticmethod(lambda ids, limit: ([3], "stop"))
    ask(VLLM(str(tmp_path), chat_variables={"mood": "onyx"}), [(TALK, 2)])
    [[(ids, parameters)]] = vllm.asked
    words = PreTrainedTokenizerFast.from_pretrained(tmp_path).convert_ids_to_tokens(ids)
    talk = "<s> system: rank these <user> river <bot> done <user> reed kelp <bot> onyx"
    assert " ".join(words) == talk
    assert parameters["max_tokens"] == len("[1] > [2]".split()) + 16


# --- what it answers ---


def test_answers_are_read_from_their_tokens(vllm, says, folder, tokenizer):
    replies = {
        "whole": "[2] > [1]",
        "talk": "[2] > [1] " + "and so on " * 9,
        "thinks": "<think>[1] > [2]</think>[2] > [1]",
    }
    says(lambda prompt: next(text for word, text in replies.items() if word in prompt))
    got = texts(ask(VLLM(str(folder), max_new_tokens=40), [(user(word), 2) for word in replies]))
    prompt = len("<|user|>\n<|assistant|>")
    assert (
        got
        == [
            (replies["whole"], prompt + 5, 10, "stop"),  # one more for </s>, which is no text
            (replies["talk"][:40], prompt + 4, 40, "length"),
            (replies["thinks"], prompt + 6, len("[1] > [2][2] > [1]") + 3, "stop"),
        ]
    )
    # a thought that the template begins belongs to the answer
    says(lambda prompt: "hm</think>[2] > [1]")
    thinking = {"chat_variables": {"mood": "<think>"}}
    [answer] = ask(VLLM(str(folder), max_new_tokens=40, **thinking), [(user("river"), 2)])
    assert answer.text == "<think>hm</think>[2] > [1]"
    [error] = ask(VLLM(str(folder), **thinking), [(user("river"), 2)])
    assert isinstance(error, Fatal) and "teacher.backend.max_new_tokens" in str(error)


def test_a_prompt_that_does_not_fit_is_never_given_to_the_engine(vllm, says, folder):
    says(lambda prompt: "[1]")
    fits = 200 - len("<|user|>\n<|assistant|>") - 5
    requests = [(user("r" * n), 1) for n in (fits, fits + 1)]
    results = ask(VLLM(str(folder), context=200, max_new_tokens=5), requests)
    assert [type(result) for result in results] == [Answer, TooLong]
    assert [len(batch) for batch in vllm.asked] == [1]


def test_an_engine_that_fails_stops_the_teacher(vllm, folder):
    def dies(ids, limit):
        raise RuntimeError("EngineDeadError")

    vllm.LLM.says = staticmethod(dies)
    errors = ask(VLLM(str(folder)), [(user("river"), 1), (user("reed"), 2)])
    assert all(isinstance(e, Fatal) and "EngineDeadError" in str(e) for e in errors)


def test_requests_in_flight_are_one_call(vllm, says, folder):
    says(lambda prompt: "[1]")
    ask(VLLM(str(folder)), [(user(f"river {i}"), 1) for i in range(40)])
    ask(VLLM(str(folder), batch=16), [(user(f"river {i}"), 1) for i in range(40)])
    assert [len(batch) for batch in vllm.asked] == [40, 16, 16, 8]
    assert [ids for ids, _ in vllm.asked[0]] == [ids for b in vllm.asked[1:] for ids, _ in b]


# --- a whole teacher ---


def teacher(folder, tmp_path, **more):
    settings = {"prompt": "single_turn", "window": 4, "stride": 2, **more}
    return Listwise(backend=VLLM(str(folder)), ledger=str(tmp_path / "ledger"), **settings)


def rank(taught, tmp_path, queries=5, depth=6):
    collection, candidates = toy(queries, depth)
    (tmp_path / "teach").mkdir(exist_ok=True)
    return collection, taught.rank(candidates, collection, tmp_path / "teach")


def test_a_teacher_sorts_lists(vllm, says, folder, tmp_path):
    says(ranked)
    collection, ranking = rank(teacher(folder, tmp_path, passes=3), tmp_path)
    assert set(ranking.state) == {"ok"}
    moved = 0
    for _, rows in ranking.groupby("query_id"):
        found = [collection.passages[d] for d in rows.sort_values("teacher_rank").doc_id]
        moved += best_first([collection.passages[d] for d in sorted(rows.doc_id)]) != list(range(6))
        # three passes of a perfect window of 4 sort six passages
        assert best_first(found) == list(range(6))
    assert moved > 3
    # the lists side by side, the windows of one after the other; nothing is asked twice
    assert len(vllm.asked[0]) == 5 == len(ranking.query_id.unique())
    asked = [tuple(ids) for batch in vllm.asked for ids, _ in batch]
    assert len(set(asked)) == len(asked)
    again = rank(teacher(folder, tmp_path, passes=3), tmp_path)
    assert sum(map(len, vllm.asked)) == len(asked) and again[1].equals(ranking)


def test_a_teacher_reads_answers_by_the_rules_of_all_backends(vllm, says, folder, tmp_path):
    def answer(prompt):
        query = next(i for i in range(5) if f"reed {i}" in prompt)
        good = ranked(prompt)
        return (
            good,
            f"<think>[1] > [2] > [3] > [4]</think>{good}",  # does not fit: a thought, cut off
            f"{good}. {'The first is best. ' * 9}",  # cut off, but it begins with the whole order
            "All 4 passages are of the same worth.",
            good[: good.rindex(" > ")] + " and then nothing" * 3,  # cut off before the last
        )[query]

    says(answer)
    _, ranking = rank(teacher(folder, tmp_path), tmp_path, depth=4)
    states = dict(ranking.groupby("query_id").state.first())
    assert states == {"q0": "ok", "q1": "malformed", "q2": states["q2"], "q3": "malformed",
                      "q4": "malformed"}  # fmt: skip
    assert states["q2"] in ("ok", "repaired")
    # greedy: what came back the same is not asked a third time
    assert Counter(len(batch) for batch in vllm.asked) == {5: 1, 3: 1}
    entries = list(Ledger(tmp_path / "ledger").entries())
    assert {entry.finish for entry in entries} == {"stop", "length"}


# --- configuration ---


def test_identity_holds_what_changes_answers(vllm, folder):
    base = VLLM(str(folder)).backend().identity()
    assert base["engine"] == f"vllm {VERSION}" and base["model"] == folder.name
    local = Local(str(folder), precision="bf16").backend().identity()
    assert {key: base[key] for key in ("model", "revision", "precision", "max_new_tokens")} == {
        key: local[key] for key in ("model", "revision", "precision", "max_new_tokens")
    }
    scheduling = {"batch": 3, "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5,
                  "enforce_eager": True}  # fmt: skip
    assert VLLM(str(folder), **scheduling).backend().identity() == base
    for other in (
        {"precision": "fp16"}, {"temperature": 0.1}, {"seed": 1}, {"max_new_tokens": 9},
        {"context": 99}, {"chat_variables": {"mood": "onyx"}},
    ):  # fmt: skip
        assert VLLM(str(folder), **other).backend().identity() != base
        assert config.identity(VLLM(str(folder), **other)) != config.identity(VLLM(str(folder)))
    signed = config.identity(VLLM(str(folder)))
    assert signed == config.identity(VLLM(str(folder), **scheduling))
    assert signed["versions"] == {"vllm": VERSION}


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_nothing_begins(folder):
    with pytest.raises(MissingFile, match=r"teacher\.backend: .*vllm.*install"):
        config.check_here(VLLM(str(folder)), "teacher.backend")


def test_bad_values_are_refused(vllm):
    model = {"model": "asset:SmolLM2-135M-Instruct"}
    for key, value in (
        ("precision", "auto"), ("temperature", -0.1), ("seed", -1), ("batch", 0), ("context", 0),
        ("gpu_memory_utilization", 1.5), ("gpu_memory_utilization", 0.0), ("max_new_tokens", 0),
    ):  # fmt: skip
        check_refused("teacher.backend", VLLM, **model, **{key: value})
