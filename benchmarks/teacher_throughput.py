"""Windows per second of teachers in this process: python -m benchmarks.teacher_throughput [...].

With --windows 8 --words 60, SmolLM2 takes minutes on two CPU cores; for RankZephyr's shape on a
GPU: --random mistral-7b --windows 64 --batch 8 16 32.

Answers windows of 20 passages in three ways: the simple loop (one window after the other, until the
end token or the limit), the batched backend, and the backend by first token. Then scores single
passages by query likelihood. Prints Markdown. Windows are those of BM25's lists for TREC DL 2019
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from tqdm import tqdm
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast

import rdx.teachers.engine
from benchmarks.texts import TEXTS, ranked_lists, source
from rdx import precision
from rdx.teachers import likelihood, local, prompts, windows
from rdx.teachers.likelihood import QueryLikelihood
from rdx.teachers.local import Local
from rdx.teachers.messages import Answer, Message, TooLong
from rdx.teachers.models import load_causal
from rdx.teachers.parsing import parse

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
def simple(engine: local._Engine, asked: list[local.Chat]) -> list[Any]:
    """One window after the other, as long as the model speaks."""
    made = []
    for messages, size in asked:
        row = engine._row(messages, size)
        ids = torch.tensor([row.ids], device=engine.model.device)
        said = engine.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=row.limit,
            eos_token_id=sorted(engine.ends) or None,
            pad_token_id=0,
        )[0, len(row.ids) :]
        text = engine.tokenizer.decode(said, skip_special_tokens=True)
        made.append(Answer(text, len(row.ids), len(said), 0.0, ""))
    return made


def batched(settings: Local, asked: list[local.Chat]) -> list[Any]:
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


def fitting(engine: local._Engine, given: list[Window], count: int) -> list[Window]:
    """The first windows that fit into the model's context."""
    prompt, found = prompts.load("single_turn"), []
    for one in given:
        try:
            engine._row(prompt.messages(one[1], one[2]), len(one[2]))
        except TooLong:
            continue
        found.append(one)
        if len(found) == count:
            break
    return found


def shared_prefix(engine: local._Engine, chats: list[list[Message]]) -> float:
    """Share of a prompt's tokens that it begins with as the one before it did."""
    rows = [engine._row(chat, WINDOW).ids for chat in chats]
    shares = []
    for one, two in zip(rows, rows[1:], strict=False):
        same = [a == b for a, b in zip(one, two, strict=False)] + [False]
        shares.append(same.index(False) / len(two))
    return float(np.mean(shares)) if shares else 0.0


def share_model(loaded: tuple[Any, Any]) -> None:
    """Have all ways use one model in memory."""
    rdx.teachers.engine.load_causal = likelihood.load_causal = lambda *_: loaded


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
    parser.add_argument("--pairs", type=int, default=256, help="scored by query likelihood")
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
    engine = local._Engine(settings)
    chosen = fitting(engine, every, given.windows)
    if not chosen:
        raise SystemExit(f"no window fits into {engine.context} tokens; lower --words")
    asked, lettered = (
        [(prompts.load(name).messages(q, p), len(p)) for _, q, p in chosen]
        for name in ("single_turn", "first_token")
    )

    shared = shared_prefix(engine, [messages for messages, _ in asked])
    where = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    print(
        f"{name}, {given.precision}, {where}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, transformers {transformers.__version__}; "
        f"{source(given.texts)}; {len(chosen)} windows of {WINDOW} passages, "
        f"at most {given.words} words each; "
        f"two prompts in a row share the first {shared:.1%} of their tokens\n"
    )
    results = [measured("simple loop", lambda some: simple(engine, some), asked)]
    for batch in given.batch:
        one = replace(settings, batch=batch)
        results.append(
            measured(f"batch of {batch}", lambda some, one=one: batched(one, some), asked)
        )
    for batch in given.batch:
        one = replace(settings, batch=batch, score="first_token")
        way = f"first token, batch of {batch}"
        results.append(measured(way, lambda some, one=one: batched(one, some), lettered))
    report(results, len(chosen))

    # The simple loop does not stop at the permutation.
    for one in results[: 1 + len(given.batch)]:
        made = list(zip(one["made"], results[0]["made"], asked, strict=True))
        states = Counter(parse(mine.text, size).state for mine, _, (_, size) in made)
        same = np.mean([other.text.startswith(mine.text) for mine, other, _ in made])
        print(f"\n{one['way']}: {dict(states)}; {same:.0%} say what the simple loop says", end="")
    print()

    pairs = [(query, passage) for _, query, passages in every for passage in passages][
        : given.pairs
    ]
    scorer = likelihood._Scorer(
        QueryLikelihood(given.model, precision=given.precision, device=device)
    )
    quiet = tqdm(disable=True)
    one = measured("query likelihood", lambda some: scorer.scores(some, quiet), pairs)
    print(
        f"\nquery likelihood: {len(pairs) / one['seconds']:.2f} pairs/s "
        f"({len(pairs)} pairs), peak memory {one['memory']:.2f} GB"
    )


if __name__ == "__main__":
    main()
