"""One library trains or scores one model: a process of its own, started by the other benchmarks.

    PYTHON benchmarks/peers.py task.json

Prints its figures as one line of JSON. Each library runs in the environment of PYTHON, so this file
imports a library only where it is measured. A task is a JSON object:

- "library": rdx, sentence_transformers, lightning_ir, and for training sentence_transformers_loop,
  plain; "mode": train, score, prepare
- "model": folder of an encoder with a classification head; "precision": bf16 or fp32; "attention":
  as Transformers names it, null = the library's default; "device": cpu or cuda
- "query_length", "passage_length": tokens
- "lists": [query, passages, ranks] each; "batch": lists per step
- "options": of the library (see the functions)

The clock runs from the end of one step (or group of lists that are scored together) to the end of
the next, so tokenising counts (a step's share of it, where all texts are tokenised beforehand), and
loading the model and the first step do not. Tokens are counted in the same time, where they enter
the encoder: twice, where a gradient cache runs a forward pass twice. Preparing runs no model: spans
are seconds of processor time, and tokens are those of the last step.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Times and tokens of a run, taken from outside, alike for all libraries."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.cuda = task["device"] == "cuda"
        self.times: list[float] = []
        self.real: Any = 0
        self.padded = 0
        self.passes = 0
        self.beforehand = 0.0
        self.memory_before = self._peak()

    def watch(self, model: torch.nn.Module) -> None:
        """Count the tokens that enter a model, from the first tick on."""
        tables = [m for name, m in model.named_modules() if name.endswith("word_embeddings")]
        [table] = tables
        table.register_forward_pre_hook(self._count)

    def _count(self, table: Any, args: Any) -> None:
        (ids,) = args
        self.real = self.real + (ids != table.padding_idx).sum()
        self.padded += ids.numel()
        self.passes += 1

    @contextmanager
    def once(self) -> Iterator[None]:
        """Around work for all steps that is done before the first."""
        start = time.perf_counter()
        yield
        self.beforehand += time.perf_counter() - start

    def tick(self) -> None:
        """A step is over."""
        if self.cuda:
            torch.cuda.synchronize()
        if not self.times:
            self.real = self.padded = self.passes = 0
        self.times.append(time.perf_counter())

    def _peak(self) -> float:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def facts(self) -> dict[str, Any]:
        """Seconds per interval, tokens, memory in MB: beyond the loaded model, and in all."""
        share = self.beforehand / len(self.times)
        spans = [end - start + share for start, end in pairwise(self.times)]
        peak = self._peak()
        return {
            "spans": spans,
            "real": int(self.real),
            "padded": self.padded,
            "passes": self.passes,
            "memory": peak - self.memory_before,
            "memory_in_all": peak,
        }


def rdx_trains(task: dict[str, Any]) -> dict[str, Any]:
    """`rdx.trainer.fit`; options: those of `rdx.trainer.Trainer`."""
    from rdx import losses, trainer
    from rdx.trainer.budgets import computing

    student, collection = of_rdx(task)
    lists = rdx_lists(task, collection)
    settings = trainer.Trainer(
        learning_rate=1e-5,
        batch=task["batch"],
        precision=task["precision"],
        device=task["device"],
        **task["options"],
    )
    clock = Clock(task)
    clock.watch(student)
    with clock.once():
        tokens = student.pairs.tokens(collection.queries, collection.passages)
    with tempfile.TemporaryDirectory() as work:
        facts = trainer.fit(
            student,
            losses.RankNet(),
            lambda epoch: lists,
            tokens,
            trainer.Epochs(1),
            settings,
            0,
            Path(work),
            on_step=lambda step, metrics: clock.tick(),
        )
    # 6 operations per parameter and token, padding counted, or 8 with the gradient cache
    padded = facts.tokens / (1 - facts.padding)
    cached = facts.flops > 7 * computing(student) * padded
    return clock.facts() | {
        "cached": cached,
        "max_tokens": facts.max_tokens,
        "flops_per_token": 6 * computing(student),
    }


def sentence_transformers_trains(task: dict[str, Any]) -> dict[str, Any]:
    """`CrossEncoderTrainer`; options: mini_batch_size of its RankNetLoss."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    model = _sentence_transformers(task)
    clock = Clock(task)
    clock.watch(model)
    columns = list(zip(*task["lists"], strict=True))
    labels = [[float(len(ranks) - r) for r in ranks] for ranks in columns[2]]
    data = Dataset.from_dict({"query": columns[0], "docs": columns[1], "labels": labels})

    class Ticking(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as work:
        arguments = CrossEncoderTrainingArguments(
            output_dir=work,
            num_train_epochs=1,
            per_device_train_batch_size=task["batch"],
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            bf16=task["precision"] == "bf16",
            use_cpu=task["device"] == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=losses.RankNetLoss(model, **task["options"]),
            callbacks=[Ticking()],
        ).train()
    return clock.facts()


def sentence_transformers_loop_trains(task: dict[str, Any]) -> dict[str, Any]:
    """Its model and RankNetLoss without its trainer, which needs `datasets`; options: as above."""
    from sentence_transformers.cross_encoder import losses

    model = _sentence_transformers(task).train()
    loss = losses.RankNetLoss(model, **task["options"])

    def loss_of(group: list[Any]) -> torch.Tensor:
        queries, passages, ranks = zip(*group, strict=True)
        labels = [torch.tensor([float(len(one) - r) for r in one]) for one in ranks]
        return loss([list(queries), list(passages)], labels)

    return _loop(task, model, loss_of)


def plain_trains(task: dict[str, Any]) -> dict[str, Any]:
    """A model of Transformers, and batches as sentence-transformers' losses make them.

    Lists in their order, `mini_batch_size` pairs (an option) at a time, padded to the longest of
    them; one graph for a step.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rdx.losses import RankNet

    options = {"attn_implementation": task["attention"]} if task["attention"] else {}
    model = AutoModelForSequenceClassification.from_pretrained(task["model"], **options)
    model.train().to(task["device"])
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    longest = task["query_length"] + task["passage_length"] + 3
    size = task["options"]["mini_batch_size"]

    def loss_of(group: list[Any]) -> torch.Tensor:
        pairs = [(query, one) for query, passages, _ in group for one in passages]
        scores = []
        for start in range(0, len(pairs), size):
            inputs = tokenizer(
                pairs[start : start + size],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(task["device"])
            scores.append(model(**inputs).logits[:, 0].float())
        ranks = torch.tensor([ranks for _, _, ranks in group], device=task["device"])
        return RankNet()(torch.cat(scores).view(ranks.shape), ranks, ranks > 0)

    return _loop(task, model, loss_of)


def _loop(
    task: dict[str, Any], model: torch.nn.Module, loss_of: Callable[[list[Any]], torch.Tensor]
) -> dict[str, Any]:
    """The least that trains a model."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=task["device"] == "cuda")
    clock = Clock(task)
    clock.watch(model)
    for group in _groups(task):
        with _autocast(task):
            loss = loss_of(group)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        clock.tick()
    return clock.facts()


def lightning_ir_trains(task: dict[str, Any]) -> dict[str, Any]:
    """`CrossEncoderModule` under Lightning's trainer; no options."""
    import lightning
    from lightning_ir import RankNet
    from lightning_ir.data import TrainBatch

    module = _lightning_ir(task, loss_functions=[RankNet()])
    module.set_optimizer(torch.optim.AdamW, lr=1e-5)
    clock = Clock(task)
    clock.watch(module)

    class Ticking(lightning.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick()

    made = []
    for start in range(0, len(task["lists"]), task["batch"]):
        queries, passages, ranks = zip(*task["lists"][start : start + task["batch"]], strict=True)
        names = [str(start + i) for i in range(len(queries))]
        targets = torch.tensor([[float(len(one) - r) for r in one] for one in ranks])
        made.append(TrainBatch(queries, passages, names, None, None, targets.flatten()))
    loader = torch.utils.data.DataLoader(made, batch_size=1, collate_fn=lambda one: one[0])
    lightning.Trainer(
        max_epochs=1,
        accelerator="gpu" if task["device"] == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if task["precision"] == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Ticking()],
    ).fit(module, loader)
    return clock.facts()


def rdx_scores(task: dict[str, Any]) -> dict[str, Any]:
    """`rdx.evaluation.rerank`; options: max_tokens."""
    import pandas as pd

    from rdx import evaluation, trainer

    student, _ = of_rdx(task)
    clock = Clock(task)
    clock.watch(student)
    settings = trainer.Trainer(precision=task["precision"], device=task["device"])
    found: list[list[float]] = []
    groups = _groups(task)
    clock.tick()
    for group in groups:
        rows, texts = [], {}
        for i, (_, passages, _) in enumerate(group):
            names = [f"{i}-{j}" for j in range(len(passages))]
            texts.update(zip(names, passages, strict=True))
            rows += [(str(i), name) for name in names]
        first = pd.DataFrame(rows, columns=["query_id", "doc_id"])
        tokens = student.pairs.tokens({str(i): one[0] for i, one in enumerate(group)}, texts)
        ranking, _ = evaluation.rerank(
            student, first, tokens, settings, task["options"]["max_tokens"]
        )
        clock.tick()
        scored = ranking.set_index("doc_id").score
        found.append([float(scored[name]) for _, name in rows])
    return clock.facts() | {"scores": [one for some in found for one in some]}


def sentence_transformers_scores(task: dict[str, Any]) -> dict[str, Any]:
    """`CrossEncoder.predict`; options: batch_size."""
    model = _sentence_transformers(task)
    clock = Clock(task)
    clock.watch(model)
    found: list[float] = []
    groups = _groups(task)
    clock.tick()
    for group in groups:
        pairs = [(query, one) for query, passages, _ in group for one in passages]
        with _autocast(task):
            scores = model.predict(
                pairs,
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
                **task["options"],
            )
        clock.tick()
        found += [float(score) for score in scores]
    return clock.facts() | {"scores": found}


def lightning_ir_scores(task: dict[str, Any]) -> dict[str, Any]:
    """`CrossEncoderModule.score`; options: batch_size (lists, as in its data module), default 1."""
    module = _lightning_ir(task).eval().to(task["device"])
    clock = Clock(task)
    clock.watch(module)
    found: list[float] = []
    groups, size = _groups(task), task["options"].get("batch_size", 1)
    clock.tick()
    for group in groups:
        for start in range(0, len(group), size):
            queries, passages, _ = zip(*group[start : start + size], strict=True)
            with _autocast(task):
                output = module.score(queries, passages)
            found += [float(score) for score in output.scores.float().cpu()]
        clock.tick()
    return clock.facts() | {"scores": found}


def rdx_prepares(task: dict[str, Any]) -> dict[str, Any]:
    """`rdx.trainer.preparing`; options: limits (tokens). "first": seconds of tokenising."""
    from rdx import losses
    from rdx.trainer.preparing import Share, prepare

    student, collection = of_rdx(task)
    lists, limits = rdx_lists(task, collection), task["options"]["limits"]
    start = time.process_time()
    tokens = student.pairs.tokens(collection.queries, collection.passages)
    first = time.process_time() - start

    def prepared(step: int) -> list[torch.Tensor]:
        own = lists[step * task["batch"] : (step + 1) * task["batch"]]
        made = prepare(own, tokens, losses.RankNet(), *limits, Share())
        return [micro.inputs["attention_mask"] for group in made.groups for micro in group.micros]

    return _prepared(task, prepared) | {"first": first}


def sentence_transformers_prepares(task: dict[str, Any]) -> dict[str, Any]:
    """Its collator, and what its RankNetLoss prepares; options: mini_batch_size."""
    from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator

    model, size = _sentence_transformers(task), task["options"]["mini_batch_size"]
    collate = CrossEncoderDataCollator(model.preprocess)
    groups = _groups(task)

    def prepare(step: int) -> list[torch.Tensor]:
        names = ("query", "docs", "labels")
        batch: Any = collate([dict(zip(names, one, strict=True)) for one in groups[step]])
        both = zip(batch["query"], batch["docs"], strict=True)
        pairs = [(query, one) for query, passages in both for one in passages]
        parts = [pairs[i : i + size] for i in range(0, len(pairs), size)]
        return [model.preprocess(part)["attention_mask"] for part in parts]

    return _prepared(task, prepare)


def lightning_ir_prepares(task: dict[str, Any]) -> dict[str, Any]:
    """The collator of its data module, and what its module prepares of a batch; no options."""
    from lightning_ir.data import LightningIRDataModule, RankSample

    module, collate = _lightning_ir(task), LightningIRDataModule()._collate_fn
    samples = [
        RankSample(str(i), query, [str(j) for j in ranks], passages, torch.tensor(ranks))
        for i, (query, passages, ranks) in enumerate(task["lists"])
    ]

    def prepare(step: int) -> list[torch.Tensor]:
        batch = collate(samples[step * task["batch"] : (step + 1) * task["batch"]])
        docs = [one for own in batch.docs for one in own]
        made = module.prepare_input(batch.queries, docs, [len(own) for own in batch.docs])
        return [made["encoding"]["attention_mask"]]

    return _prepared(task, prepare)


def _prepared(task: dict[str, Any], prepare: Callable[[int], list[torch.Tensor]]) -> dict[str, Any]:
    """Prepare all steps; `prepare` gives the attention masks of a step."""
    clock = Clock(task)
    masks: list[torch.Tensor] = []
    for step in range(len(task["lists"]) // task["batch"]):
        clock.times.append(time.process_time())
        masks = prepare(step)
    clock.times.append(time.process_time())
    clock.real = sum(int(mask.sum()) for mask in masks)
    clock.padded = sum(mask.numel() for mask in masks)
    return clock.facts()


def _groups(task: dict[str, Any]) -> list[list[Any]]:
    """Lists that are given to a library together; the first group warms up."""
    lists, batch = task["lists"], task["batch"]
    return [lists[i : i + batch] for i in range(0, len(lists), batch)]


def _autocast(task: dict[str, Any]) -> Any:
    wanted = task["precision"] == "bf16"
    return torch.autocast(task["device"], dtype=torch.bfloat16, enabled=wanted)


def of_rdx(task: dict[str, Any]) -> tuple[Any, Any]:
    """The student of a task, and a collection without texts."""
    from types import SimpleNamespace

    from rdx.students import Student

    student = Student(
        task["model"],
        query_length=task["query_length"],
        passage_length=task["passage_length"],
        attention_implementation=task["attention"],
    ).create(0)
    return student, SimpleNamespace(queries={}, passages={})


def rdx_lists(task: dict[str, Any], collection: Any) -> list[Any]:
    """The lists of a task; their texts go into the collection."""
    from rdx.lists import TrainingList

    lists, known = [], {}
    for query, passages, ranks in task["lists"]:
        query_id = known.setdefault(query, str(len(known)))
        collection.queries[query_id] = query
        names = tuple(known.setdefault(one, str(len(known))) for one in passages)
        collection.passages.update(zip(names, passages, strict=True))
        lists.append(TrainingList(query_id, names, tuple(ranks)))
    return lists


def _sentence_transformers(task: dict[str, Any]) -> Any:
    from sentence_transformers.cross_encoder import CrossEncoder

    return CrossEncoder(
        task["model"],
        num_labels=1,
        max_length=task["query_length"] + task["passage_length"] + 3,
        device=task["device"],
        model_kwargs={"attn_implementation": task["attention"]} if task["attention"] else {},
    )


def _lightning_ir(task: dict[str, Any], **others: Any) -> Any:
    from lightning_ir import CrossEncoderModule
    from lightning_ir.models import MonoConfig

    lengths = {"query_length": task["query_length"], "doc_length": task["passage_length"]}
    options = {"attn_implementation": task["attention"]} if task["attention"] else {}
    return CrossEncoderModule(
        model_name_or_path=task["model"],
        config=MonoConfig(**lengths),
        model_kwargs=options,
        **others,
    )


def main() -> None:
    """Do what the task file says."""
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    doing = {"train": "trains", "score": "scores", "prepare": "prepares"}[task["mode"]]
    facts = globals()[f"{task['library']}_{doing}"](task)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
