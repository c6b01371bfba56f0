"""Windows per second of teachers in this process: python -m benchmarks.teacher_throughput [...].

With --windows 8 --words 60, SmolLM2 takes minutes on two CPU cores; for RankZephyr's shape on a
GPU: --random mistral-7b --windows 64 --batch 8 16 32.

Answers windows of 20 passages in three ways: the simple loop (one window after the other, until the
end token or the limit), the batched backend, and the backend by first token; where vLLM is
installed and --model is none of random weights, by its backend too (--vllm). Then scores passages
by query likelihood, for one query and for several, each passage read once and read with every
query. Prints Markdown. Windows are those of BM25's lists for TREC DL 2019
where its files are at hand, and made of random words of the same lengths otherwise. Random weights
never say an end token, so that every answer has the length of the limit, simple loop or not.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from tqdm import tqdm
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast

from benchmarks.texts import TEXTS, ranked_lists, source
from rdx import precision
from rdx.teachers import VLLM, engine, likelihood, prompts, windows
from rdx.teachers.engine import Engine
from rdx.teachers.likelihood import QueryLikelihood
from rdx.teachers.local import Local
from rdx.teachers.messages import Answer, Message, TooLong
from rdx.teachers.models import load_causal
from rdx.teachers.parsing import parse
from rdx.teachers.scorer import Scorer

WINDOW, STRIDE = 20, 10
SHAPES: dict[str, dict[str, int]] = {
    "mistral-7b": {"max_position_embeddings": 32768},  # all else as in MistralConfig
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
}
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

Window = tuple[str, str, list[str]]  # query id, query, passages
Chat = tuple[list[Message], int]  # and the number of passages that it shows


def texts(folder: Path, words: int) -> list[Window]:
    """Sliding windows over BM25's first 100 passages, list after list."""
    return [
        (query_id, query, [prompts.shorten(one, words) for one in passages[start:end]])
        for query_id, query, passages in ranked_lists(folder)
        for start, end in windows.positions(len(passages), WINDOW, STRIDE)
    ]


def random_model(shape: str, given: list[Window], precision: str, device: str) -> tuple[Any, Any]:
    """A model of random weights, with a tokeniser that was trained on the texts."""
    trained = ByteLevelBPETokenizer()
    special = ["<unk>", "<s>", "</s>"]
    sample = [text for _, query, passages in given for text in (query, *passages)]
    trained.train_from_iterator(
        sample, vocab_size=32000, special_tokens=special, show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = CHAT
    config = MistralConfig(vocab_size=32000, bos_token_id=1, eos_token_id=2, **SHAPES[shape])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return tokenizer, model.to(dtype).eval()


@torch.inference_mode()
def simple(loaded: Engine, asked: list[Chat]) -> list[Any]:
    """One window after the other, as long as the model speaks."""
    made = []
    for messages, size in asked:
        row = loaded.row(messages, size)
        ids = torch.tensor([row.ids], device=loaded.model.device)
        said = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=row.limit,
            eos_token_id=sorted(loaded.ends) or None,
            pad_token_id=0,
        )[0, len(row.ids) :]
        text = loaded.chats.tokenizer.decode(said, skip_special_tokens=True)
        made.append(Answer(text, len(row.ids), len(said), 0.0, ""))
    return made


def batched(settings: Local | VLLM, asked: list[Chat]) -> list[Any]:
    """All windows at once through the backend, as a teacher with enough lists in flight asks."""

    async def together() -> list[Any]:
        backend = settings.backend()
        made = await asyncio.gather(*(backend.ask(*one) for one in asked))
        await backend.close()
        return list(made)

    return asyncio.run(together())


def measured(way: str, run: Any, asked: list[Any]) -> dict[str, Any]:
    """Time and peak memory of a run, whose first, unmeasured call warms up."""
    run(asked[:1])
    _clock()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = _clock()
    made = run(asked)
    return {"way": way, "seconds": _clock() - start, "memory": _peak(), "made": made}


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak() -> float:
    """GB on the GPU; without one, the largest the process has been so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def fitting(loaded: Engine, given: list[Window], count: int) -> list[Window]:
    """The first windows that fit into the model's context."""
    prompt, found = prompts.load("single_turn"), []
    for one in given:
        try:
            loaded.row(prompt.messages(one[1], one[2]), len(one[2]))
        except TooLong:
            continue
        found.append(one)
        if len(found) == count:
            break
    return found


def shared_prefix(loaded: Engine, chats: list[list[Message]]) -> float:
    """Share of a prompt's tokens that it begins with as the one before it did."""
    rows = [loaded.row(chat, WINDOW).ids for chat in chats]
    shares = []
    for one, two in zip(rows, rows[1:], strict=False):
        same = [a == b for a, b in zip(one, two, strict=False)] + [False]
        shares.append(same.index(False) / len(two))
    return float(np.mean(shares)) if shares else 0.0


def padding(loaded: Engine, given: list[Window], batch: int, flight: int) -> tuple[float, float]:
    """Share of padding among the tokens that go through the model: like length, and as they come.

    Windows of a list are asked one after the other, `flight` lists at a time; every list thrice.
    """
    prompt = prompts.load("single_turn")
    lengths: dict[str, list[int]] = {}
    for query_id, query, passages in given:
        row = loaded.row(prompt.messages(query, passages), len(passages))
        lengths.setdefault(query_id, []).append(row.length)

    def share(pick: Callable[[list[int]], list[int]]) -> float:
        lists = [list(one) for _ in range(3) for one in lengths.values()]
        waiting, rest = lists[:flight], lists[flight:]
        padded = real = 0
        while waiting:
            chosen = [waiting[i] for i in pick([one[0] for one in waiting])]
            now = [one.pop(0) for one in chosen]
            padded, real = padded + len(now) * max(now), real + sum(now)
            waiting = [one for one in waiting if all(one is not other for other in chosen)]
            waiting += [one for one in chosen if one]
            waiting += [rest.pop(0) for one in chosen if not one and rest]
        return 1 - real / padded

    like = share(lambda waiting: engine.of_like_length(waiting, batch, loaded.tokens))
    return like, share(lambda waiting: list(range(min(batch, len(waiting)))))


def likelihoods(settings: QueryLikelihood, every: list[Window], passages: int) -> None:
    """Print pairs per second: passages with 1, 2 and 8 queries, read once or with each query."""
    scorer = Scorer(settings)
    quiet = tqdm(disable=True)
    queries = list(dict.fromkeys(query for _, query, _ in every))
    texts = list(dict.fromkeys(text for _, _, shown in every for text in shown))[:passages]
    print("\n| queries of a passage | read once, pairs/s | read with each, pairs/s |")
    print("|--:|--:|--:|")
    for count in (1, 2, 8):
        asked = [(text, (queries[i:] + queries)[:count]) for i, text in enumerate(texts)]
        seconds = []
        for scorer._shares in (True, False):
            run = measured("", lambda some: scorer.scores(some, quiet), asked)
            seconds.append(run["seconds"])
        rates = [f"{count * len(texts) / taken:.2f}" for taken in seconds]
        print(f"| {count} | {' | '.join(rates)} |", flush=True)


def share_model(loaded: tuple[Any, Any]) -> None:
    """Have all ways use one model in memory."""
    engine.load_causal = likelihood.load_causal = lambda *_: loaded


def report(results: list[dict[str, Any]], asked: int) -> None:
    """Print one line per way."""
    print("| way | windows/s | s/window | input tokens | output tokens | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    for one in results:
        tokens = [
            np.mean([getattr(m, f"{k}_tokens") for m in one["made"]]) for k in ("input", "output")
        ]
        print(
            f"| {one['way']} | {asked / one['seconds']:.3f} | {one['seconds'] / asked:.3f} "
            f"| {tokens[0]:.0f} | {tokens[1]:.0f} | {one['memory']:.2f} |"
        )


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="asset:SmolLM2-135M-Instruct")
    parser.add_argument("--random", choices=SHAPES, help="random weights of this shape instead")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="one line for each")
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--words", type=int, default=300, help="kept of a passage")
    parser.add_argument("--passages", type=int, default=64, help="scored by query likelihood")
    parser.add_argument("--vllm", action="store_true", help="by vLLM too, which must be installed")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="folder of TREC DL 2019")
    given = parser.parse_args()

    every = texts(given.texts, given.words)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    given.precision = precision.chosen(given.precision, device)
    name = f"{given.random}, random weights" if given.random else given.model
    share_model(
        random_model(given.random, every, given.precision, device)
        if given.random
        else load_causal(given.model, given.precision, device)
    )
    settings = Local(given.model, precision=given.precision, device=device)
    loaded = settings.load()
    chosen = fitting(loaded, every, given.windows)
    if not chosen:
        raise SystemExit(f"no window fits into {loaded.chats.context} tokens; lower --words")
    asked, lettered = (
        [(prompts.load(name).messages(q, p), len(p)) for _, q, p in chosen]
        for name in ("single_turn", "first_token")
    )

    shared = shared_prefix(loaded, [messages for messages, _ in asked])
    where = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    print(
        f"{name}, {given.precision}, {where}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, transformers {transformers.__version__}; "
        f"{source(given.texts)}; {len(chosen)} windows of {WINDOW} passages, "
        f"at most {given.words} words each; "
        f"two prompts in a row share the first {shared:.1%} of their tokens\n"
    )
    results = [measured("simple loop", lambda some: simple(loaded, some), asked)]
    for batch in given.batch:
        one = replace(settings, batch=batch)
        results.append(
            measured(f"batch of {batch}", lambda some, one=one: batched(one, some), asked)
        )
    for batch in given.batch:
        one = replace(settings, batch=batch, score="first_token")
        way = f"first token, batch of {batch}"
        results.append(measured(way, lambda some, one=one: batched(one, some), lettered))
    if given.vllm:
        one = VLLM(given.model, precision=given.precision)
        results.append(measured("vLLM", lambda some: batched(one, some), asked))
    report(results, len(chosen))
    whole = fitting(loaded, every, len(every))
    like, come = padding(loaded, whole, batch=16, flight=64)
    print(f"\npadding, 16 of 64 a batch: {like:.1%} by length, {come:.1%} as they come")

    # The simple loop does not stop at the permutation.
    for one in results[: 1 + len(given.batch)]:
        made = list(zip(one["made"], results[0]["made"], asked, strict=True))
        states = Counter(parse(mine.text, size).state for mine, _, (_, size) in made)
        same = np.mean([other.text.startswith(mine.text) for mine, other, _ in made])
        print(f"\n{one['way']}: {dict(states)}; {same:.0%} say what the simple loop says", end="")
    print()

    likelihoods(
        QueryLikelihood(given.model, precision=given.precision, device=device),
        every,
        given.passages,
    )


if __name__ == "__main__":
    main()
