"""Students and teachers on one GPU, in less than eight minutes: python -m benchmarks.gpu.

Needs torch, Transformers, Accelerate, NumPy and pandas, and no network: models have random weights,
and texts are random words of one token each, as long as those of BM25's lists for TREC DL 2019.
sentence-transformers, pytest and pydantic are used where they are installed. Prints a line per
measurement and writes all of them as JSON (--out, else gpu.json in $OUT or here) after each one, so
that a call that is ended loses nothing. What there is no time for is left out with a line, what
fails says so, and the exit status is 1 if a number of "correctness" is not as it should be.

Without a GPU, or with --device cpu, everything is tiny and takes as long as it takes: a test of the
script.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForSequenceClassification, ElectraConfig, PreTrainedTokenizerFast

import benchmarks.stand_ins  # noqa: F401  before rdx
from benchmarks import peers, side_by_side, teacher_throughput
from rdx import losses, trainer
from rdx.batches import rows_of, scores
from rdx.facts import TrainingFacts
from rdx.lists import TrainingList
from rdx.parts import Loss, OnStep
from rdx.students import CrossEncoder, Pairs, Student, is_compiled
from rdx.teachers import prompts
from rdx.teachers.local import Local
from rdx.tokens import Tokens
from rdx.trainer.budgets import computing
from rdx.trainer.preparing import MICROS
from rdx.trainer.step import Engine

ROOT = Path(__file__).parents[1]
LIMIT = 445.0  # seconds of the whole call, after its imports
QUERY_LENGTH, PASSAGE_LENGTH = 32, 256
# Tokens (WordPiece) of the queries of TREC DL 2019, and of the first 100 passages that BM25 finds
# for each: the quantiles 0, .05, .10 to 1.
QUERY_TOKENS = (4, 4, 4, 4, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8, 9, 10, 10, 12, 13)
PASSAGE_TOKENS = (
    *(19, 42, 49, 53, 56, 59, 62, 65, 68, 71),
    *(75, 79, 85, 92, 100, 108, 116, 125, 136, 152, 258),
)
LOSSES = {  # those that run backward per group of lists, and those that need the whole step
    "RankNet": losses.RankNet(),
    "ADR-MSE": losses.ADRMSE(),
    "LCE": losses.LCE(),
    "ListNet": losses.ListNet(),
    "LambdaRank": losses.LambdaRank(),
    "ApproxNDCG": losses.ApproxNDCG(),
}
# Largest error of a gradient's entry, of the largest entry; and of a bfloat16 gradient's length.
FP32_ERROR, BF16_ERROR = 1e-4, 0.1

MEANINGS = {0: "passed", 1: "failed"}  # of the exit status of pytest

Found = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Size:
    """How large everything is.

    Attributes
    ----------
    shapes
        Of students, as `ElectraConfig` names them; the first is measured in every way.
    words
        Of the vocabulary.
    teacher
        One of `teacher_throughput.SHAPES`.
    lists, depth, steps
        Of a training: lists in a step, their passages, steps that are measured.
    depths
        Of the lists when memory is measured.
    mini_batches
        Pairs that other libraries run at a time; sentence-transformers' default is `lists`.
    queries
        That are re-ranked.
    windows, batch, answer
        That the teacher answers one by one, and those that it answers together; tokens of an
        answer, None: as many as the permutation may have.
    """

    shapes: Mapping[str, Mapping[str, float]]
    words: int
    teacher: str
    lists: int
    depth: int
    steps: int
    depths: tuple[int, ...]
    mini_batches: tuple[int, ...]
    queries: int
    windows: int
    batch: int
    answer: int | None


WHOLE = Size(
    shapes=side_by_side.SHAPES,
    words=30522,
    teacher="mistral-7b",
    lists=32,
    depth=100,
    steps=5,
    depths=(50, 100, 400),
    mini_batches=(32, 256),
    queries=43,
    windows=3,
    batch=32,
    answer=None,
)
SMALL = {
    "initializer_range": 0.3,  # so that scores differ by more than their rounding
    "embedding_size": 32,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TINY = Size(
    shapes={"tiny": SMALL},
    words=200,
    teacher="tiny",
    lists=2,
    depth=4,
    steps=2,
    depths=(2, 4),
    mini_batches=(2,),
    queries=4,
    windows=1,
    batch=2,
    answer=8,
)


class Report:
    """What was measured: lines on the screen, and JSON in a file that is whole at any time."""

    def __init__(self, out: Path, seconds: float, about: Found) -> None:
        self.out, self.end = out, time.monotonic() + seconds
        self.found: dict[str, Found] = {"machine": about}

    def measure(self, section: str, name: str, seconds: float, work: Callable[[], Found]) -> Found:
        """What `work` finds, within so many seconds; what prevents it is found in its place."""
        start = time.monotonic()
        left = self.end - start
        if left < seconds:
            found: Found = {"left out": f"{left:.0f} s are left, {seconds:.0f} are needed"}
        else:
            try:
                with within(seconds if math.isfinite(left) else 0):
                    found = work()
            except Exception as error:  # whatever it is, the other measurements go on
                found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        forget()
        found = found | {"took (s)": short(time.monotonic() - start)}
        self.found.setdefault(section, {})[name] = found
        print(
            f"{section} | {name} | " + ", ".join(f"{k} {v}" for k, v in found.items()), flush=True
        )
        self.write()
        return found

    def write(self) -> None:
        """Write what has been found so far."""
        self.out.write_text(json.dumps(self.found, indent=1) + "\n")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer; 0: nothing does."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Texts:
    """A collection of random words, and training lists of it."""

    queries: dict[str, str]
    passages: dict[str, str]
    lists: list[TrainingList]


@lru_cache(maxsize=4)
def texts(lists: int, depth: int, words: int) -> Texts:
    """Lists of as many passages, and their queries."""
    draw = np.random.default_rng(0)

    def text(quantiles: tuple[int, ...]) -> str:
        length = np.interp(draw.random(), np.linspace(0, 1, len(quantiles)), quantiles)
        return " ".join(f"w{i}" for i in draw.integers(words, size=round(length)))

    queries = {str(i): text(QUERY_TOKENS) for i in range(lists)}
    names = {query: [f"{query}-{i}" for i in range(depth)] for query in queries}
    passages = {name: text(PASSAGE_TOKENS) for some in names.values() for name in some}
    ranks = tuple(range(1, depth + 1))
    return Texts(queries, passages, [TrainingList(q, tuple(names[q]), ranks) for q in queries])


def tokeniser(words: int) -> PreTrainedTokenizerFast:
    """One token for each of the words of `texts`."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *(f"w{i}" for i in range(words))]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in zip(names, special, strict=True)},
    )


@dataclass(frozen=True)
class Bench:
    """What all measurements share.

    Attributes
    ----------
    folder
        Has a folder of a model for each shape of `size`, and "small".
    peak
        Floating-point operations per second of a matrix product.
    """

    report: Report
    size: Size
    device: str
    precision: str
    folder: Path
    peak: float

    def student(self, shape: str, **options: Any) -> CrossEncoder:
        """A student of a shape, the same whenever it is asked for."""
        return Student(
            str(self.folder / shape),
            query_length=QUERY_LENGTH,
            passage_length=PASSAGE_LENGTH,
            **options,
        ).create(0)

    def settings(self, given: Texts, **options: Any) -> trainer.Trainer:
        """Settings under which all lists make one step."""
        return trainer.Trainer(
            **{"batch": len(given.lists), "precision": self.precision, "max_tokens": "auto"}
            | {"device": self.device, "checkpoint_seconds": 1e9}
            | options
        )

    def engine(self, student: CrossEncoder, given: Texts, **options: Any) -> Engine:
        """What computes the steps of `fit`."""
        tokens = student.pairs.tokens(given.queries, given.passages)
        settings, compiled = self.settings(given, **options), is_compiled(student.encoder)
        return Engine.begin(student.cpu(), LOSSES["RankNet"], settings, compiled, None, tokens)

    def fit(
        self,
        student: CrossEncoder,
        given: Texts,
        steps: int = 1,
        loss: Loss = LOSSES["RankNet"],
        on_step: OnStep = lambda step, metrics: None,
        **options: Any,
    ) -> TrainingFacts:
        """Train on all lists in every step; options are those of `trainer.Trainer`."""
        with tempfile.TemporaryDirectory() as work:
            return trainer.fit(
                student,
                loss,
                lambda epoch: given.lists,
                student.pairs.tokens(given.queries, given.passages),
                trainer.Steps(steps),
                self.settings(given, **options),
                0,
                Path(work),
                on_step=on_step,
            )


# correctness


def correctness(bench: Bench) -> None:
    """The loss and the gradients of a step, as they should be."""
    given = texts(4, 6, bench.size.words)
    measure = partial(bench.report.measure, "correctness")
    for name, loss in LOSSES.items():
        work = partial(against_exact, bench, given, loss)
        measure(f"{name}, fp32 against float64 on a CPU, one graph", 40, work)
    ways = {
        "a backward pass per list": {"max_tokens": 64},
        "gradient cache": {"gradient_cache": "on", "max_tokens": 1024},
    }
    for name, options in ways.items():
        work = partial(against_single_graph, bench, given, options)
        measure(f"RankNet, {name} against one graph", 40, work)
    for attention in (None, "varlen"):
        name = f"RankNet, bf16{', varlen attention' if attention else ''} against fp32"
        measure(name, 40, partial(rounded, bench, given, attention))
    measure("tests marked gpu", 60, marked_tests)


def gradients(
    bench: Bench, given: Texts, attention: str | None = None, **options: Any
) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients of one step of `fit`, without dropout."""
    student = bench.student("small", dropout=0.0, attention_implementation=attention)
    found: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        for name, parameter in student.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.detach().double().cpu()

    hook = register_optimizer_step_pre_hook(keep)
    try:
        facts = bench.fit(student, given, **options)
    finally:
        hook.remove()
    return facts.last_loss, found


def exact_gradients(bench: Bench, given: Texts, loss: Loss) -> tuple[float, dict[str, Tensor]]:
    """The same on a CPU in float64 (scores: float32), all pairs in one padded batch."""
    student = bench.student("small", dropout=0.0, attention_implementation="eager").double()
    tokens = student.pairs.tokens(given.queries, given.passages)
    own = student(*tokens.assemble(rows_of(given.lists, tokens)))
    ranks = torch.tensor([one.teacher_ranks for one in given.lists])
    value = loss(own.view(ranks.shape).double(), ranks, ranks > 0)
    value.backward()
    named = student.named_parameters()
    return value.item(), {name: p.grad for name, p in named if p.grad is not None}


def against_exact(bench: Bench, given: Texts, loss: Loss) -> Found:
    """How far a step in float32 is from one in float64."""
    return compared(
        gradients(bench, given, loss=loss, precision="fp32"), exact_gradients(bench, given, loss)
    )


def against_single_graph(bench: Bench, given: Texts, options: Found) -> Found:
    """How far a step in several parts is from one that keeps the graph of all pairs."""
    whole = gradients(bench, given, precision="fp32", max_tokens=10**9, gradient_cache="off")
    groups = bench.engine(bench.student("small"), given, **options).prepare(given.lists).groups
    parts = {"backward passes": len(groups), "micro-batches": sum(len(g.micros) for g in groups)}
    return parts | compared(gradients(bench, given, precision="fp32", **options), whole)


def compared(one: tuple[float, dict[str, Tensor]], two: tuple[float, dict[str, Tensor]]) -> Found:
    """Largest errors of loss and gradients, each of the largest value of `two`."""
    largest = max(g.abs().max().item() for g in two[1].values())
    both = [(one[1][name], two[1][name]) for name in one[1].keys() & two[1].keys()]
    error = max((a - b).abs().max().item() for a, b in both) / largest
    loss_error = abs(one[0] - two[0]) / abs(two[0])
    alike = one[1].keys() == two[1].keys() and max(error, loss_error) < FP32_ERROR
    return {"ok": alike, "loss error": short(loss_error), "gradient error": short(error)}


def rounded(bench: Bench, given: Texts, attention: str | None) -> Found:
    """How far a gradient in bfloat16 is from one in float32: length of the difference."""
    exact = gradients(bench, given, precision="fp32")
    near = gradients(bench, given, attention, precision="bf16")
    ours, theirs = (torch.cat([g.flatten() for g in one[1].values()]) for one in (near, exact))
    error = ((ours - theirs).norm() / theirs.norm()).item()
    loss_error = abs(near[0] - exact[0]) / abs(exact[0])
    alike = max(error, loss_error) < BF16_ERROR
    return {"ok": alike, "loss error": short(loss_error), "gradient error": short(error)}


def marked_tests() -> Found:
    """What the project's tests that need a GPU say; some need more than is installed."""
    if not torch.cuda.is_available() or importlib.util.find_spec("pytest") is None:
        return {"left out": "needs a GPU and pytest"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "benchmarks.stand_ins"]
    said = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.gpu" in file.read_text():
            done = subprocess.run([*command, str(file)], capture_output=True, text=True, cwd=ROOT)
            said[file.name] = MEANINGS.get(done.returncode, "cannot run here")
    return {"ok": "failed" not in said.values(), **said}


# training


def training(bench: Bench) -> None:
    """Speed and memory of training, beside other libraries."""
    for shape in bench.size.shapes:
        work = partial(trained, bench, shape)
        bench.report.measure("training", shape, 60, work)
    first = next(iter(bench.size.shapes))
    for depth in bench.size.depths:
        work = partial(memory, bench, first, depth)
        bench.report.measure("memory", f"{first}, depth {depth}", 30, work)


def trained(bench: Bench, shape: str, steps: int | None = None, **options: Any) -> Found:
    """Steps of a training: the first warms up, and does not count.

    "waiting": by how much steps of `fit` are longer than those of one that is prepared beforehand.
    """
    size, student = bench.size, bench.student(shape, **options)
    given = texts(size.lists, size.depth, size.words)
    steps = 1 + (steps or size.steps)
    ticks: list[float] = []
    reset_memory()
    facts = bench.fit(student, given, steps, on_step=lambda step, metrics: ticks.append(now()))
    memory = peak_memory()
    span, alone = float(np.median(np.diff(ticks))), prepared_step(bench, student, given, steps)
    tokens = facts.tokens / facts.steps / span
    return {
        "pairs/s": short(facts.pairs / facts.steps / span),
        "seconds a step": [short(one) for one in np.diff(ticks)],
        "waiting": short(1 - alone / span),
        "real tokens/s": short(tokens),
        "share of peak": short(6 * computing(student) * tokens / bench.peak),
        "padding": short(facts.padding),
        "memory (GB)": short(memory),
        "tokens a micro-batch": facts.max_tokens,
    }


def prepared_step(bench: Bench, student: CrossEncoder, given: Texts, steps: int) -> float:
    """Seconds of a step whose micro-batches are there: the median of all but the first."""
    engine = bench.engine(student, given)
    prepared = engine.prepare(given.lists)
    engine.weigh(prepared)
    ticks = []
    for step in range(steps):
        engine.step(prepared, 1e-5, step)
        ticks.append(now())
    return float(np.median(np.diff(ticks)))


def memory(bench: Bench, shape: str, depth: int) -> Found:
    """Peak memory of a step of deep lists."""
    given, student = texts(bench.size.lists, depth, bench.size.words), bench.student(shape)
    reset_memory()
    facts = bench.fit(student, given)
    return {
        "pairs": facts.pairs,
        "memory (GB)": short(peak_memory()),
        "tokens a micro-batch": facts.max_tokens,
    }


def others(bench: Bench) -> None:
    """The same steps as sentence-transformers runs them, and as a plain loop does."""
    shape, libraries = next(iter(bench.size.shapes)), ["plain"]
    if importlib.util.find_spec("sentence_transformers") is not None:
        loop = "" if importlib.util.find_spec("datasets") is not None else "_loop"
        libraries.insert(0, f"sentence_transformers{loop}")
    for library, size in product(libraries, bench.size.mini_batches):
        work = partial(peer_trained, bench, shape, library, size)
        name = f"{shape}, {library}, {size} pairs at a time"
        bench.report.measure("other libraries", name, 40, work)


def peer_trained(bench: Bench, shape: str, library: str, size: int) -> Found:
    """The same steps by another library; of fewer lists where memory does not hold the graph."""
    given = texts(bench.size.lists, bench.size.depth, bench.size.words)
    lists = [
        [given.queries[one.query_id], [given.passages[d] for d in one.doc_ids], one.teacher_ranks]
        for one in given.lists
    ]
    task = {
        "model": str(bench.folder / shape),
        "device": bench.device,
        "precision": bench.precision,
        "attention": None,
        "query_length": QUERY_LENGTH,
        "passage_length": PASSAGE_LENGTH,
        "options": {"mini_batch_size": size},
    }
    for batch in (len(lists) // 2**halved for halved in range(len(lists).bit_length())):
        reset_memory()
        train = getattr(peers, f"{library}_trains")
        try:
            facts = train(task | {"batch": batch, "lists": lists[:batch] * 3})
            break
        except torch.OutOfMemoryError:
            pass  # its frames hold the graph until here
        forget()
    else:
        raise MemoryError("a single list is too large")
    return {
        "pairs/s": short(batch * bench.size.depth / np.median(facts["spans"])),
        "seconds a step": [short(span) for span in facts["spans"]],
        "lists a step": batch,
        "padding": short(1 - facts["real"] / facts["padded"]),
        "memory (GB)": short(peak_memory()),
    }


# re-ranking


def reranking(bench: Bench) -> None:
    """Speed and memory of re-ranking, all queries together and one by one."""
    for shape in bench.size.shapes:
        for attention, (way, work) in product((None, "varlen"), WAYS.items()):
            name = f"{shape}, {way}{', varlen attention' if attention else ''}"
            bench.report.measure("re-ranking", name, 40, partial(work, bench, shape, attention))


@contextmanager
def scoring(
    bench: Bench, shape: str, attention: str | None
) -> Iterator[tuple[Pairs, Callable[[Tokens, Texts], int]]]:
    """A student's tokeniser, and what scores all pairs of texts and gives their number."""
    settings = bench.settings(texts(1, 1, bench.size.words))
    accelerator = settings.accelerator()
    device = accelerator.device
    student = bench.student(shape, attention_implementation=attention).to(device).eval()
    max_tokens = settings.tokens(device.type)

    def score(tokens: Tokens, given: Texts) -> int:
        return len(scores(student, tokens, rows_of(given.lists, tokens), device, max_tokens))

    with torch.inference_mode(), accelerator.autocast():
        yield student.pairs, score


def together(bench: Bench, shape: str, attention: str | None) -> Found:
    """All pairs in one stream, tokenised beforehand, after as many that warm up."""
    given = texts(bench.size.queries, bench.size.depth, bench.size.words)
    with scoring(bench, shape, attention) as (pairs, score):
        tokens = pairs.tokens(given.queries, given.passages)
        score(tokens, given)
        reset_memory()
        start = now()
        scored = score(tokens, given)
        seconds = now() - start
    return {"pairs/s": short(scored / seconds), "memory (GB)": short(peak_memory())}


def one_by_one(bench: Bench, shape: str, attention: str | None) -> Found:
    """Query by query, as a service would, tokenising included; three queries warm up."""
    given = texts(bench.size.queries, bench.size.depth, bench.size.words)
    alone = [
        Texts(
            {one.query_id: given.queries[one.query_id]},
            {doc_id: given.passages[doc_id] for doc_id in one.doc_ids},
            [one],
        )
        for one in given.lists
    ]
    spans = []
    with scoring(bench, shape, attention) as (pairs, score):
        reset_memory()
        for one in [*alone[:3], *alone]:
            start = now()
            score(pairs.tokens(one.queries, one.passages), one)
            spans.append(now() - start)
    spans = spans[3:]
    return {
        "p50 (s)": short(np.quantile(spans, 0.5)),
        "p95 (s)": short(np.quantile(spans, 0.95)),
        "pairs/s": short(bench.size.depth * len(spans) / sum(spans)),
        "memory (GB)": short(peak_memory()),
    }


WAYS = {"together": together, "one by one": one_by_one}


# teachers


def teaching(bench: Bench) -> None:
    """Windows of 20 passages: one by one, together, and by the first token alone."""
    shape, measure = bench.size.teacher, partial(bench.report.measure, "teacher")
    measure(shape, 60, partial(random_teacher, bench))
    alone = measure(f"{shape}, one by one", 90, partial(answered, bench, bench.size.windows, 1))
    for name, options in (("batched", {}), ("first token", {"score": "first_token"})):
        work = partial(answered, bench, bench.size.batch, bench.size.batch, **options)
        measure(f"{shape}, {name}", 60, work)
    for student in bench.size.shapes:
        one = bench.report.found["re-ranking"][f"{student}, one by one"]
        measure(f"{student} against {shape}", 0, partial(against, alone, one))


def random_teacher(bench: Bench) -> Found:
    """Make the model that all backends share from now on."""
    tokenizer, model = teacher_throughput.random_model(
        bench.size.teacher, windows(bench.size), bench.precision, bench.device
    )
    teacher_throughput.share_model((tokenizer, model))
    return {"parameters": short(sum(p.numel() for p in model.parameters()))}


@lru_cache(maxsize=1)
def windows(size: Size) -> list[teacher_throughput.Window]:
    """Of random words, at most 60 a passage."""
    return teacher_throughput.texts(Path("made up"), 60)[: max(size.windows, size.batch)]


def answered(bench: Bench, count: int, batch: int, score: str = "generate") -> Found:
    """Windows answered by the backend, so many at a time; the first one alone warms up.

    Random weights never say that they are done: an answer is as long as one may be.
    """
    settings = Local(
        "random weights",
        precision=bench.precision,
        device=bench.device,
        batch=batch,
        score=score,
        max_new_tokens=bench.size.answer,
    )
    prompt = prompts.load("single_turn" if score == "generate" else score)
    asked = [
        (prompt.messages(query, some), len(some)) for _, query, some in windows(bench.size)[:count]
    ]
    found = teacher_throughput.measured("", partial(teacher_throughput.batched, settings), asked)
    made = found["made"]
    return {
        "windows/s": short(count / found["seconds"]),
        "tokens of a prompt": short(float(np.mean([one.input_tokens for one in made]))),
        "tokens of an answer": short(float(np.mean([one.output_tokens for one in made]))),
        "memory (GB)": short(found["memory"]),
    }


def against(teacher: Found, student: Found) -> Found:
    """How many times the student's are the teacher's time and memory for a list of 100.

    The teacher has nine windows of 20, one after the other, as each needs the one before it.
    """
    return {
        "times the time": short(9 / teacher["windows/s"] / student["p50 (s)"]),
        "times the memory": short(teacher["memory (GB)"] / student["memory (GB)"]),
    }


# all of it


def switches(bench: Bench) -> None:
    """What was chosen by measurement, beside what was not."""
    shape, measure = next(iter(bench.size.shapes)), partial(bench.report.measure, "switches")
    measure(f"{shape}, optimisers", 30, partial(optimisers, bench, shape))
    measure(f"{shape}, casts of weights", 30, partial(casts, bench, shape))
    ways: dict[str, Found] = {
        f"attention {name}": {"attention_implementation": name}
        for name in ("eager", "sdpa", "varlen")
    }
    for name, options in ways.items():
        measure(f"{shape}, {name}", 40, partial(trained, bench, shape, steps=2, **options))
    for micros in (2, 4):
        work = partial(grouped, bench, shape, micros)
        measure(f"{shape}, lists of {micros} micro-batches together", 40, work)
    if bench.device == "cuda":  # elsewhere it needs a C++ compiler
        work = partial(trained, bench, shape, steps=2, compile=True)
        measure(f"{shape}, compiled", 100, work)


def grouped(bench: Bench, shape: str, micros: int) -> Found:
    """Training with larger groups of lists, which have less padding and take more memory."""
    with patch.dict(MICROS, dict.fromkeys(MICROS, micros)):
        return trained(bench, shape, steps=2)


def optimisers(bench: Bench, shape: str) -> Found:
    """Seconds of a step of AdamW by itself."""
    student = bench.student(shape).to(bench.device)
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ways = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}
    return {
        name: short(timed(torch.optim.AdamW(student.parameters(), **way).step))
        for name, way in ways.items()
    }


def casts(bench: Bench, shape: str) -> Found:
    """Seconds of a forward and backward pass of all micro-batches, weights cast once or in each."""
    student = bench.student(shape)
    given = texts(bench.size.lists, bench.size.depth, bench.size.words)
    engine = bench.engine(student, given)
    micros = [
        micro.to(engine.accelerator.device)
        for group in engine.prepare(given.lists).groups
        for micro in group.micros
    ]

    def passes(once: bool) -> None:
        with torch.autocast(bench.device, enabled=False) if once else nullcontext():
            for micro in micros:
                with engine.accelerator.autocast():
                    scores = student(micro.inputs, micro.parts)
                scores.float().sum().backward()

    found = {name: short(timed(partial(passes, name == "once"))) for name in ("once", "each time")}
    return found | {"micro-batches": len(micros)}


def timed(work: Callable[[], object], times: int = 3) -> float:
    """Seconds: the median of a few, after one that warms up."""
    ticks = []
    for _ in range(times + 1):
        work()
        ticks.append(now())
    return float(np.median(np.diff(ticks)))


def short(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def now() -> float:
    """Seconds, once the device has done all it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def forget() -> None:
    """Free the memory of a GPU that nothing needs any more."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def reset_memory() -> None:
    """Begin to watch `peak_memory`."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """GB of the GPU since `reset_memory`; without one, the most that the process ever had."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def save_shapes(size: Size, folder: Path, device: str) -> None:
    """Write a folder of a model for every shape, with one tokeniser."""
    made = tokeniser(size.words)
    for name, shape in {"small": SMALL, **size.shapes}.items():
        config = ElectraConfig(**shape, vocab_size=len(made), num_labels=1)
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(folder / name)
        made.save_pretrained(folder / name)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, help=f"of the whole call: {LIMIT:.0f} on a GPU")
    given = parser.parse_args()
    start, device = time.monotonic(), given.device
    precision = "bf16" if device == "cuda" else "fp32"
    peak = side_by_side.matrix_peak(device, precision)
    about = {
        "name": side_by_side.machine(device),
        "transformers": transformers.__version__,
        "precision": precision,
        "matrix product (FLOP/s)": short(peak),
    }
    out = given.out or Path(os.environ.get("OUT", ".")) / "gpu.json"
    limit = given.seconds or (LIMIT if device == "cuda" else math.inf)
    report = Report(out, limit, about)
    print(about, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        size = WHOLE if device == "cuda" else TINY
        save_shapes(size, Path(folder), device)
        bench = Bench(report, size, device, precision, Path(folder), peak)
        for section in (correctness, training, reranking, others, teaching, switches):
            section(bench)
    about["seconds"] = short(time.monotonic() - start)
    report.write()
    wrong = [
        name
        for name, one in report.found["correctness"].items()
        if one.get("ok") is False or "failed" in one
    ]
    raise SystemExit(f"not as it should be: {wrong}" if wrong else 0)


if __name__ == "__main__":
    main()
