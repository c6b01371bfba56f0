"""How a student is optimised, and its first stage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt, Le, MinLen
from pydantic import AfterValidator, BeforeValidator

from rdx import late
from rdx.collection import Collection
from rdx.declared import (
    PRECISION,
    SCHEDULES,
    Above0,
    Device,
    From0,
    Group,
    Positive,
    Seed,
    Share,
    Texts,
    one_of,
    settings,
)
from rdx.lists import Drawn, Pools, SingleRelevant, drawn, labelled
from rdx.parts import Loss, Sampler
from rdx.precision import AUTO, chosen

if TYPE_CHECKING:
    import accelerate
    import torch
else:
    accelerate, torch = late.module("accelerate"), late.module("torch")

PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}
SCHEDULES_OF_RATES = ("constant", "linear", "cosine")
# Where max_tokens="auto" begins. More tokens at once make no GPU faster; on a CPU, fewer fit its
# caches.
AUTO_TOKENS = {"gpu": 65536, "cpu": 4096}
# What a stage 1 has of a trainer's validations.
_UNVALIDATED: dict[str, Any] = {
    "validate_every": None,
    "validate_on": None,
    "select": "last",
    "patience": None,
}
BLOCK = 20_000  # queries of stage 1 whose candidates are held as a table at once


def kind(device: str) -> str:
    """The kind of a type of device: "cpu" or "gpu"."""
    return "cpu" if device == "cpu" else "gpu"


def _tokens(value: int | str) -> int | str:
    if value != "auto" and (isinstance(value, str) or value < 1):
        raise ValueError("must be a number of tokens, at least 1, or 'auto'")
    return value


def _names(value: object) -> object:
    """One name, as a command line has it, is a list of one."""
    return (value,) if isinstance(value, str) else value


@settings(frozen=True)
class Trainer:
    """How a student is optimised: AdamW.

    Gradients are always accumulated over the micro-batches of a step, so `batch` is the effective
    batch, whatever fits into memory.

    Parameters
    ----------
    learning_rate
        Peak learning rate.
    batch
        Queries per optimiser step, in all processes together.
    warmup
        Share of the steps in which the rate rises linearly from 0.
    schedule
        After the warm-up: "constant"; "linear" to zero; "cosine", half a period down to zero.
    weight_decay
        Of AdamW, on matrices (not on biases and norms).
    clip
        Largest gradient norm; 0 = no clipping.
    precision
        Of the encoder: "bf16", "fp16" (with a gradient scaler; GPUs only), "fp32", or "auto": bf16
        where the device computes it, else fp32. Scores, losses and weights are float32.
    max_tokens
        A micro-batch holds at most this many tokens, padding counted. "auto": begin with 65,536 on
        a GPU and 4,096 on a CPU, and halve whenever a GPU's memory does not suffice. Not part of
        the identity: the gradient is the same to float tolerance. (With dropout it is the same in
        distribution: what is dropped depends on what is together in a micro-batch.)
    checkpoint_seconds
        Seconds between checkpoints. Not part of the identity.
    device
        "auto", "cpu" or "cuda". Not part of the identity.
    gradient_cache
        A step goes through groups of its lists, one after the other.
        "on": score a group without a graph, take the loss's gradient at the scores, and then pass
        it back micro-batch by micro-batch, each run again with the same dropout: memory is that of
        one micro-batch (Gao et al. 2021, "Scaling deep contrastive learning batch size under
        memory limited setup"). "off": keep the graphs of a group, which saves the second forward
        pass, a quarter of the work. "auto": keep them as long as they take no more than a quarter
        of the memory that is free at the start, or than those of one
        micro-batch. Not part of the identity: the gradient is the same, bit for bit.
    tf32
        Multiply float32 matrices in TF32 on GPUs that can.
    layer_decay
        Learning rate of layer l of n: times ``layer_decay ** (n - l)``; 1 = off.
    head_rate
        Factor of the head's learning rate.
    validate_every
        Steps between validations, if the training is given one; null = never. It is then done
        before the first step and after the last, too.
    validate_on
        Names of `evaluation.collections`: a validation is the mean over them of the first measure
        of the student's re-ranking of their first stages, as in the evaluation. None: on the dev
        split of the training data. Collections that decide which weights are kept, by `select` or
        `patience`, are no test of these: they are left out of means over collections and flagged.
    select
        "last": the weights after the last step; "best": those of the best validation.
    patience
        Stop after this many validations without improvement; null = never.
    """

    learning_rate: Above0 = 1e-5
    batch: Positive = 32
    warmup: Share = 0.0
    schedule: Annotated[str, one_of(*SCHEDULES_OF_RATES)] = "constant"
    weight_decay: From0 = 0.01
    clip: From0 = 0.0
    precision: Annotated[str, one_of(AUTO, *PRECISIONS), PRECISION] = AUTO
    max_tokens: Annotated[int | str, AfterValidator(_tokens), SCHEDULES] = 4096
    checkpoint_seconds: Annotated[From0, SCHEDULES] = 30.0
    device: Device = "auto"
    gradient_cache: Annotated[str, one_of("auto", "on", "off"), SCHEDULES] = "auto"
    tf32: bool = False
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    head_rate: Above0 = 1.0
    validate_every: Positive | None = None
    validate_on: Annotated[Texts, BeforeValidator(_names), MinLen(1)] | None = None
    select: Annotated[str, one_of("last", "best")] = "last"
    patience: Positive | None = None

    def __post_init__(self) -> None:
        """Check values together."""
        object.__setattr__(self, "precision", chosen(self.precision, self.device))
        if self.validate_every is None and (self.selects or self.validate_on is not None):
            raise ValueError(
                f"select={self.select!r}, trainer.patience={self.patience} and "
                f"trainer.validate_on={self.validate_on}: need trainer.validate_every"
            )

    @property
    def selects(self) -> bool:
        """Whether validations decide which weights are kept."""
        return self.select == "best" or self.patience is not None

    def require_device(self) -> None:
        """Refuse a device, or a precision of it, that is not on this machine.

        Raises
        ------
        ValueError
            Naming the key.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("trainer.device='cuda': torch finds no CUDA device here")
        if self.precision == "fp16" and (self.device == "cpu" or not torch.cuda.is_available()):
            raise ValueError("trainer.precision='fp16': needs a GPU; a CPU has 'bf16' and 'fp32'")

    def accelerator(self) -> accelerate.Accelerator:
        """An Accelerator of this precision and device, whatever ran before in this process."""
        self.require_device()
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        # Without this, Accelerate takes the processes of a machine without GPUs for unrelated ones.
        cpu = self.device == "cpu" or not torch.accelerator.is_available()
        accelerator = accelerate.Accelerator(mixed_precision=PRECISIONS[self.precision], cpu=cpu)
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        return accelerator

    def tokens(self, device: str) -> int:
        """Tokens of a micro-batch to begin with, on a kind of device."""
        return AUTO_TOKENS[kind(device)] if isinstance(self.max_tokens, str) else self.max_tokens

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        left = (steps - step) / max(steps - rising, 1)  # 1 after the warm-up, never 0
        if self.schedule == "linear":
            return self.learning_rate * left
        if self.schedule == "cosine":
            return self.learning_rate * (1 - math.cos(math.pi * left)) / 2
        return self.learning_rate


@settings(frozen=True)
class Prefinetune:
    """Stage 1: a contrastive loss on labels, with hard negatives of a sampler.

    Parameters
    ----------
    loss
        Usually `LCE`.
    sampler, depth
        Negatives are drawn from this sampler's top `depth` passages that are not relevant.
    negatives
        Per query and epoch.
    queries
        Number of training queries with a relevant passage; None = all.
    epochs, batch, learning_rate, warmup
        As in `Trainer`; its other settings hold here too, save that stage 1 is neither validated
        nor selected: all cells that share it start from the weights after its last step.
    seed
        Of this stage alone, so that all cells of a grid share its checkpoint.
    margin
        As of `depth/lists=single_relevant`: candidates that the sampler scores
        above the relevant passage minus this are no negatives. None: all may be.
    """

    loss: Annotated[Loss, Group("loss")]
    sampler: Annotated[Sampler, Group("sampler")]
    depth: Positive
    negatives: Positive
    queries: Positive | None
    epochs: Positive
    batch: Positive
    learning_rate: Above0
    warmup: Share
    seed: Seed
    margin: float | None = None

    def __post_init__(self) -> None:
        """Check that labels are enough for the loss."""
        if self.loss.needs == "scores":
            raise ValueError(
                f"loss={type(self.loss).__name__}: needs a teacher's scores, and stage 1 has labels"
            )

    def trainer(self, trainer: Trainer) -> Trainer:
        """The trainer of this stage."""
        own = {name: getattr(self, name) for name in ("learning_rate", "batch", "warmup")}
        return replace(trainer, **own, **_UNVALIDATED)

    def drawn(self, collection: Collection) -> Collection:
        """The queries that it trains on, a sample by hash of those with a relevant passage.

        Raises
        ------
        ValueError
            If there are fewer.
        """
        judged = [q for q in collection.relevant() if q in collection.queries]
        sample = collection.sample(judged, self.queries, self.seed, "prefinetune.queries")
        return collection.subset(sample)

    def lists(self, collection: Collection, index: Path | None = None) -> Drawn:
        """Training lists of a collection whose queries all have a relevant passage.

        `index` is the folder of the sampler's index of the collection; None makes it now.
        """
        covered = self.sampler.covered(collection.queries, index)
        pools = [
            self._labelled(collection.subset(covered[start : start + BLOCK]), index)
            for start in range(0, max(len(covered), 1), BLOCK)
        ]
        picker = SingleRelevant(self.margin)
        return drawn(Pools.joined(pools), picker, self.negatives + 1, self.seed)

    def _labelled(self, collection: Collection, index: Path | None) -> Pools:
        """The candidates of some queries with their labels."""
        ranking = self.sampler.candidates(collection, self.depth, index)
        read = ["query_id", "doc_id", *([] if self.margin is None else ["score"])]
        candidates = Pools.of(ranking[read])
        relevant = collection.relevant()
        # qrels may name passages that the collection has no text of
        doc_ids = list({doc_id for grades in relevant.values() for doc_id in grades})
        known = dict(zip(doc_ids, collection.holds(doc_ids).tolist(), strict=True))
        return labelled(
            candidates,
            {q: {d: g for d, g in grades.items() if known[d]} for q, grades in relevant.items()},
        )
