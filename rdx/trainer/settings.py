"""Train a student on lists: a loop on Accelerate that resumes exactly where it was stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from tqdm import tqdm

from rdx.batches import Lists, Schedule, contrastive, micro_batches, pairs_of, positions_of, targets
from rdx.draws import seed as draw_seed
from rdx.students import CrossEncoder

OnStep = Callable[[int, dict[str, float]], None]
PRECISIONS = {"bf16": "bf16", "fp32": "no"}


class Diverged(RuntimeError):
    """The loss is not finite any more."""


@dataclass(frozen=True)
class Epochs:
    """A budget of passes over the training lists."""

    epochs: int

    def __post_init__(self) -> None:
        """Check the value."""
        _at_least("budget.epochs", self.epochs, 1)

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""
        return self.epochs * schedule.steps_per_epoch


@dataclass(frozen=True)
class Steps:
    """A budget of optimiser steps."""

    steps: int

    def __post_init__(self) -> None:
        """Check the value."""
        _at_least("budget.steps", self.steps, 1)

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""
        return self.steps


@dataclass(frozen=True)
class Pairs:
    """A budget of (query, passage) pairs, to the next whole optimiser step."""

    pairs: int

    def __post_init__(self) -> None:
        """Check the value."""
        _at_least("budget.pairs", self.pairs, 1)

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""
        seen = step = 0
        while seen < self.pairs:
            seen += sum(len(one.doc_ids) for one in schedule.step(step))
            step += 1
        return step


@dataclass(frozen=True)
class Trainer:
    """How a student is optimised: AdamW.

    Parameters
    ----------
    learning_rate
        Peak learning rate.
    batch
        Queries per optimiser step.
    warmup
        Share of the steps in which the rate rises linearly from 0.
    schedule
        After the warm-up: "constant", or "linear" to zero.
    weight_decay
        Of AdamW, on matrices (not on biases and norms).
    clip
        Largest gradient norm; 0 = no clipping.
    precision
        "bf16" or "fp32" for the encoder; scores, losses and weights are float32.
    max_tokens
        A micro-batch holds at most this many tokens, padding counted. Not part of the identity.
    checkpoint_seconds
        Seconds between checkpoints. Not part of the identity.
    device
        "auto", "cpu" or "cuda". Not part of the identity.
    """

    learning_rate: float = 1e-5
    batch: int = 32
    warmup: float = 0.0
    schedule: str = "constant"
    weight_decay: float = 0.01
    clip: float = 0.0
    precision: str = "bf16"
    max_tokens: int = 4096
    checkpoint_seconds: float = 30.0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check values."""
        if self.learning_rate <= 0:
            raise ValueError(f"trainer.learning_rate={self.learning_rate}: must be above 0")
        _at_least("trainer.batch", self.batch, 1)
        _at_least("trainer.max_tokens", self.max_tokens, 1)
        for name in ("weight_decay", "clip", "checkpoint_seconds"):
            _at_least(f"trainer.{name}", getattr(self, name), 0)
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"trainer.warmup={self.warmup}: must be in [0, 1]")
        if self.schedule not in ("constant", "linear"):
            raise ValueError(f"trainer.schedule={self.schedule!r}: must be 'constant' or 'linear'")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision={self.precision!r}: must be one of {list(PRECISIONS)}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"trainer.device={self.device!r}: must be 'auto', 'cpu' or 'cuda'")

    def accelerator(self) -> Accelerator:
        """An Accelerator of this precision and device, whatever ran before in this process."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("trainer.device='cuda': torch finds no CUDA device here")
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(mixed_precision=PRECISIONS[self.precision], cpu=self.device == "cpu")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        if self.schedule == "linear":
            return self.learning_rate * (steps - step) / max(steps - rising, 1)
        return self.learning_rate


@dataclass(frozen=True)
class Prefinetune:
    """Stage 1: a contrastive loss on labels, with hard negatives of a sampler.

    Parameters
    ----------
    loss
        Usually `rdx.losses.LCE`.
    sampler, depth
        Negatives are drawn from this sampler's top `depth` passages that are not relevant.
    negatives
        Per query and epoch.
    queries
        Number of training queries with a relevant passage; None = all.
    epochs, batch, learning_rate, warmup
        As in `Trainer`; its other settings hold here too.
    seed
        Of this stage alone, so that all cells of a grid share its checkpoint.
    """

    loss: Any
    sampler: Any
    depth: int
    negatives: int
    queries: int | None
    epochs: int
    batch: int
    learning_rate: float
    warmup: float
    seed: int

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("depth", "negatives", "epochs", "batch"):
            _at_least(f"prefinetune.{name}", getattr(self, name), 1)

    def trainer(self, trainer: Trainer) -> Trainer:
        """The trainer of this stage."""
        return replace(
            trainer, learning_rate=self.learning_rate, batch=self.batch, warmup=self.warmup
        )

    def lists(self, collection: Any) -> Lists:
        """Training lists of a collection whose queries all have a relevant passage."""
        candidates = self.sampler.candidates(collection, self.depth)
        # qrels may name passages that the collection has no text of
        relevant = {
            query_id: {d: grade for d, grade in grades.items() if d in collection.passages}
            for query_id, grades in collection.relevant().items()
        }
        return contrastive(candidates, relevant, self.negatives, self.seed)


def fit(
    student: CrossEncoder,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    lists: Lists,
    collection: Any,
    budget: Any,
    trainer: Trainer,
    seed: int,
    work: Path,
    on_step: OnStep = lambda step, metrics: None,
    name: str = "training",
) -> dict[str, float]:
    """Train in place; resume from `work` when a killed process left a checkpoint there.

    Everything random is a function of (seed, step), so that an interrupted training gives the same
    weights as an undisturbed one, bit for bit on one machine.

    Returns
    -------
    dict
        steps, pairs, truncated texts, the last loss, and how much the weights changed.

    Raises
    ------
    Diverged
        If the loss is not finite.
    """
    schedule = Schedule(lists, trainer.batch, seed)
    steps = budget.count(schedule)
    accelerator = trainer.accelerator()
    optimiser = torch.optim.AdamW(_groups(student, trainer.weight_decay), lr=trainer.learning_rate)
    model, optimiser = accelerator.prepare(student, optimiser)
    before = {n: p.detach().clone() for n, p in _probe(student).items()}
    start, pairs, curve = _resume(work, student, optimiser)
    saved = time.monotonic()
    model.train()
    bar = tqdm(range(start, steps), desc=name, unit="step", initial=start, total=steps)
    for step in bar:
        with _seeded(draw_seed(seed, step, "dropout")):
            batch = schedule.step(step)
            value = _step(model, loss, batch, collection, accelerator, optimiser, trainer, student)
            if not math.isfinite(value):
                raise Diverged(f"{name}: the loss is {value} at step {step}")
            if trainer.clip:
                accelerator.clip_grad_norm_(model.parameters(), trainer.clip)
            for group in optimiser.param_groups:
                group["lr"] = trainer.rate(step, steps)
            optimiser.step()
            optimiser.zero_grad()
        pairs += sum(len(one.doc_ids) for one in batch)
        curve.append(value)
        bar.set_postfix(loss=f"{value:.3f}")
        on_step(step, {"loss": value, "lr": trainer.rate(step, steps)})
        if time.monotonic() - saved >= trainer.checkpoint_seconds and step + 1 < steps:
            _checkpoint(work, student, optimiser, step + 1, pairs, curve)
            saved = time.monotonic()
    change = max((p.detach() - before[n]).abs().max().item() for n, p in _probe(student).items())
    (work / "curve.json").write_text(json.dumps(curve) + "\n")
    (work / "checkpoint.pt").unlink(missing_ok=True)
    student.eval()
    return {
        "steps": steps,
        "pairs": pairs,
        "lists": schedule.size,
        "truncated_texts": len(student.pairs.truncated),
        "last_loss": curve[-1],
        "weight_change": change,
    }


def _step(
    model: Any,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    batch: list[Any],
    collection: Any,
    accelerator: Accelerator,
    optimiser: Any,
    trainer: Trainer,
    student: CrossEncoder,
) -> float:
    """Forward all micro-batches, scatter the scores to [B, N], and run backward once."""
    ranks, mask = (tensor.to(accelerator.device) for tensor in targets(batch))
    flat = torch.zeros(ranks.numel(), device=accelerator.device)
    texts, positions = pairs_of(batch, collection), positions_of(batch)
    for micro in micro_batches(texts, positions, student.pairs, trainer.max_tokens):
        inputs = {key: value.to(accelerator.device) for key, value in micro.inputs.items()}
        scores = model(inputs, micro.parts.to(accelerator.device)).float()
        flat = flat.index_put((micro.positions.to(accelerator.device),), scores)
    value = loss(flat.view(ranks.shape), ranks, mask)
    accelerator.backward(value)
    return value.item()


def _groups(student: CrossEncoder, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def _probe(student: CrossEncoder) -> dict[str, Tensor]:
    """A few parameters by which a training that changes nothing is noticed."""
    named = [(n, p) for n, p in student.named_parameters() if p.requires_grad]
    return dict(named[-8:])


def _checkpoint(
    work: Path, student: CrossEncoder, optimiser: Any, step: int, pairs: int, curve: list[float]
) -> None:
    state = {
        "student": student.state_dict(),
        "optimiser": optimiser.state_dict(),
        "position": {"step": step, "pairs": pairs, "curve": curve},
        "truncated": sorted(student.pairs.truncated),
    }
    temporary = work / "checkpoint.tmp"
    torch.save(state, temporary)
    temporary.replace(work / "checkpoint.pt")


def _resume(work: Path, student: CrossEncoder, optimiser: Any) -> tuple[int, int, list[float]]:
    path = work / "checkpoint.pt"
    (work / "checkpoint.tmp").unlink(missing_ok=True)
    if not path.exists():
        return 0, 0, []
    state = torch.load(path, map_location="cpu", weights_only=True)
    student.load_state_dict(state["student"])
    optimiser.load_state_dict(state["optimiser"])
    student.pairs.truncated.update(state.get("truncated", ()))
    position = state["position"]
    return position["step"], position["pairs"], position["curve"]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Dropout of a step depends on the step alone; the process's own random state is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ValueError(f"{name}={value}: must be at least {least}")
