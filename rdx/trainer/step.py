"""One optimiser step: micro-batches, gradient cache, mixed precision, several processes.

The loss wants the scores [B, N] of all pairs of a step, and memory holds a few of them. So a step
is

1. forward: each process scores its share of the pairs, micro-batch by micro-batch, and the scores
   of all processes are put together;
2. loss: every process computes it on all scores, and its gradient at the scores;
3. backward: each process passes the gradient at its own scores back through the student, and the
   sum over the processes is the gradient of the step.

With the gradient cache, 1 keeps no graph and 3 runs each micro-batch again (Gao et al. 2021).
Without it, 1 keeps the graphs for 3. The chain rule is the same: nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from rdx import batches
from rdx.batches import MicroBatch, TrainingList
from rdx.draws import seed as draw_seed
from rdx.students import CrossEncoder
from rdx.trainer.settings import Trainer

T = TypeVar("T")
FEWEST_TOKENS = 64  # no pair is so short that smaller micro-batches would help


@dataclass(frozen=True)
class Done:
    """What a step was: its loss, tokens in all processes (`padded` with padding), and the cache."""

    loss: float
    tokens: int
    padded: int
    cached: bool


class TooLarge(Exception):
    """A micro-batch did not fit into the memory of some process."""


@dataclass
class Engine:
    """What all steps of a training have in common.

    Attributes
    ----------
    student, loss, collection, accelerator, optimiser, trainer
        As in `rdx.trainer.fit`. The optimiser's groups have a "factor" of the learning rate.
    scaler
        Of gradients in fp16; disabled otherwise.
    max_tokens
        Of a micro-batch; halved when memory does not suffice, if `trainer.max_tokens` is "auto".
    """

    student: CrossEncoder
    loss: Callable[..., Tensor]
    collection: Any
    accelerator: Accelerator
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    trainer: Trainer
    max_tokens: int

    def step(self, batch: Sequence[TrainingList], rate: float, seed: int) -> Done:
        """One optimiser step on the lists; without an update if the loss is not finite.

        Dropout is a function of (seed, process, micro-batch) alone, so that the gradient cache, and
        a second try, drop the same; the random state of the process stays as it was.
        """
        cuda = [self._device] if self._device.type == "cuda" else []
        while True:
            try:
                with torch.random.fork_rng(devices=cuda):
                    done = self._gradient(batch, seed)
                break
            except TooLarge:
                pass  # the graphs are let go of here, before the next try
            self._halve()
        if math.isfinite(done.loss):
            self._update(rate)
        return done

    def _gradient(self, batch: Sequence[TrainingList], seed: int) -> Done:
        micros = self._micro_batches(batch)
        cached = self._cached(micros)
        graphs = self._together(partial(self._forward, micros, seed, not cached))
        scores = torch.zeros(batches.targets(batch)[1].numel(), device=self._device)
        for micro, found in zip(micros, graphs, strict=True):
            scores[micro.positions.to(self._device)] = found.detach()
        value, gradient = self._loss(self._total(scores), batch)
        if math.isfinite(value):
            self._together(partial(self._backward, micros, graphs, gradient, seed, cached))
            self._sum_gradients()
        masks = [micro.inputs["attention_mask"] for micro in micros]
        counts = [sum(int(m.sum()) for m in masks), sum(m.numel() for m in masks), int(cached)]
        tokens, padded, users = self._total(torch.tensor(counts, device=self._device)).tolist()
        return Done(value, tokens, padded, users > 0)

    def _micro_batches(self, batch: Sequence[TrainingList]) -> list[MicroBatch]:
        """The micro-batches of this process, which has every n-th pair of the step."""
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        texts = batches.pairs_of(batch, self.collection)[mine]
        positions = batches.positions_of(batch)[mine]
        if not texts:
            return []
        return batches.micro_batches(texts, positions, self.student.pairs, self.max_tokens)

    def _cached(self, micros: list[MicroBatch]) -> bool:
        tokens = sum(micro.inputs["attention_mask"].numel() for micro in micros)
        several = len(micros) > 1 or self.trainer.gradient_cache == "on"
        return several and tokens > self.trainer.kept(self._device.type, self.max_tokens)

    def _forward(self, micros: list[MicroBatch], seed: int, graph: bool) -> list[Tensor]:
        """Scores of every micro-batch."""
        with torch.set_grad_enabled(graph):
            return [self._scores(micro, seed, i) for i, micro in enumerate(micros)]

    def _scores(self, micro: MicroBatch, seed: int, index: int) -> Tensor:
        """Scores [P] in float32; the same dropout whenever it is called."""
        torch.manual_seed(draw_seed(seed, self.accelerator.process_index, index))
        inputs = {key: value.to(self._device) for key, value in micro.inputs.items()}
        with self.accelerator.autocast():
            scores = self.student(inputs, micro.parts.to(self._device))
        return scores.float()

    def _loss(self, scores: Tensor, batch: Sequence[TrainingList]) -> tuple[float, Tensor]:
        """The loss of a step and its gradient at the scores, both [B * N], scaled for fp16."""
        ranks, mask = (tensor.to(self._device) for tensor in batches.targets(batch))
        scores = scores.view(ranks.shape).requires_grad_()
        teacher = batches.scores_of(batch)
        known = () if teacher is None else (teacher.to(self._device),)
        value = self.loss(scores, ranks, mask, *known)
        (gradient,) = torch.autograd.grad(value, scores)
        return value.item(), self.scaler.scale(gradient.flatten())

    def _backward(
        self,
        micros: list[MicroBatch],
        graphs: list[Tensor],
        gradient: Tensor,
        seed: int,
        cached: bool,
    ) -> None:
        """Add the gradient of this process's pairs to the parameters."""
        for i, micro in enumerate(micros):
            scores = self._scores(micro, seed, i) if cached else graphs[i]
            graphs[i] = scores.detach()  # the graph may go as soon as it was used
            scores.backward(gradient[micro.positions.to(self._device)])

    def _update(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.scaler.unscale_(self.optimiser)
        if self.trainer.clip:
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.trainer.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()

    def _halve(self) -> None:
        self.max_tokens //= 2
        self.optimiser.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self.accelerator.is_main_process:
            tqdm.write(f"out of memory: micro-batches of {self.max_tokens:,} tokens from now on")

    def _together(self, work: Callable[[], T]) -> T:
        """Do this process's part; what is too large for one process is too large for all."""
        failed, result = False, None
        try:
            result = work()
        except torch.OutOfMemoryError as error:
            if self.trainer.max_tokens != "auto" or self.max_tokens <= FEWEST_TOKENS:
                error.add_note("trainer.max_tokens: give a smaller one, or 'auto'")
                raise
            failed = True
        if self.accelerator.num_processes > 1:
            flag = torch.tensor([int(failed)], device=self._device)
            failed = self._total(flag).item() > 0
        if failed:
            raise TooLarge
        return cast(T, result)

    def _sum_gradients(self) -> None:
        """Give every process the sum of the gradients of all.

        By hand instead of with DistributedDataParallel: processes may have different numbers of
        micro-batches, even none, and parameters that no process used keep no gradient.
        """
        if self.accelerator.num_processes == 1:
            return
        parameters = [p for p in self.student.parameters() if p.requires_grad]
        used = [int(p.grad is not None) for p in parameters]
        anywhere = self._total(torch.tensor(used, device=self._device)).tolist()
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self._total(torch.cat([gradient.flatten() for gradient in own]))
        pieces = flat.split([p.numel() for p in parameters])
        for parameter, piece, users in zip(parameters, pieces, anywhere, strict=True):
            parameter.grad = piece.view_as(parameter) if users else None

    def _total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.accelerator.num_processes == 1:
            return tensor
        return self.accelerator.reduce(tensor, reduction="sum")

    @property
    def _device(self) -> torch.device:
        return self.accelerator.device
