"""One optimiser step: micro-batches, gradient cache, mixed precision, several processes.

The loss wants the scores [B, N] of all pairs of a step, and memory holds a few of them. So a step
is

1. forward: each process scores its share of the pairs, micro-batch by micro-batch, and the scores
   of all processes are put together;
2. loss: every process computes it on all scores, and its gradient at the scores;
3. backward: each process passes the gradient at its own scores back through the student, and the
   sum over the processes is the gradient of the step.

Under FSDP a process lends its part of the weights to every micro-batch of the others. There all
have the same number of micro-batches, some of them perhaps idle, and a gradient of zero.

With the gradient cache, 1 keeps no graph and 3 runs each micro-batch again (Gao et al. 2021).
Without it, 1 keeps the graphs for 3. The chain rule is the same: nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from rdx import batches, memory
from rdx.bars import tell
from rdx.batches import MicroBatch
from rdx.draws import seed as draw_seed
from rdx.lists import TrainingList
from rdx.parts import Loss
from rdx.students import CrossEncoder, compile_encoder, is_compiled
from rdx.trainer import optimiser as grouping
from rdx.trainer import processes, sharding
from rdx.trainer.checkpoints import CheckpointState
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
    """State shared by all steps of a training; one per process.

    Its public methods are called by all processes together.

    Attributes
    ----------
    student, loss, trainer
        As in `rdx.trainer.fit`.
    trained
        What is trained: the student itself, or a copy in pieces (`rdx.trainer.sharding`).
    accelerator
        Knows the device and the processes.
    optimiser
        Of `trained`. Its groups have a "factor" of the learning rate.
    scaler
        Of gradients in fp16; disabled otherwise.
    max_tokens
        Of a micro-batch; halved when memory does not suffice, if `trainer.max_tokens` is "auto".
    kept
        Tokens of a step and process up to which graphs are kept; beyond, the gradient cache is
        used.
    """

    student: CrossEncoder
    loss: Loss
    trainer: Trainer
    trained: CrossEncoder
    accelerator: Accelerator
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    max_tokens: int
    kept: float = 0.0

    @classmethod
    def begin(
        cls,
        student: CrossEncoder,
        loss: Loss,
        trainer: Trainer,
        compiled: bool,
        state: CheckpointState | None,
    ) -> Engine:
        """An engine at the start of a training, or with the state of a checkpoint.

        `student` is on the CPU; `compiled` tells whether its encoder is to be: copies forget that.
        """
        accelerator = trainer.accelerator()
        device = accelerator.device
        if accelerator.num_processes > 1 and not processes.several():
            raise RuntimeError("several processes: start the program with rdx.trainer.run")
        if processes.several() and sharding.wanted():
            trained = sharding.sharded(student, device)
        else:
            trained = student.to(device)
        if compiled and not is_compiled(trained.encoder):
            compile_encoder(trained.encoder)
        groups = grouping.groups(
            trained, trainer.weight_decay, trainer.layer_decay, trainer.head_rate
        )
        engine = cls(
            student=student,
            loss=loss,
            trainer=trainer,
            trained=trained,
            accelerator=accelerator,
            optimiser=torch.optim.AdamW(groups, lr=trainer.learning_rate),
            scaler=accelerator.scaler or torch.amp.GradScaler(device.type, enabled=False),
            max_tokens=trainer.tokens(device.type),
        )
        if state is not None:
            sharding.load_state(engine.optimiser, state["optimiser"])
            engine.scaler.load_state_dict(state["scaler"])
            if trainer.max_tokens == "auto":
                engine.max_tokens = state["progress"]["max_tokens"]
        return engine

    def weigh(self, batch: Sequence[TrainingList], texts: Sequence[tuple[str, str]]) -> None:
        """Set `kept`: with gradient_cache="auto", by the memory of a step's longest micro-batch."""
        if self.trainer.gradient_cache != "auto":
            self.kept = math.inf if self.trainer.gradient_cache == "off" else 0.0
            return
        self.trained.train()
        self._until_it_fits(lambda: self._weigh(batch, texts))

    def gather(self) -> None:
        """Put the weights into `student`, whole."""
        if self._sharded:
            sharding.gather(self.trained, self.student)

    def state(self) -> CheckpointState:
        """The state of the optimiser and of the scaler, whole: for a checkpoint."""
        optimiser = sharding.whole_state(self.optimiser)
        return {"optimiser": optimiser, "scaler": self.scaler.state_dict()}

    def gather_truncated(self) -> None:
        """Add to `student.pairs.truncated` the texts that were cut in any process."""
        truncated = self.student.pairs.truncated
        truncated.update(gather_object(sorted(truncated)))

    def step(
        self,
        batch: Sequence[TrainingList],
        texts: Sequence[tuple[str, str]],
        rate: float,
        seed: int,
    ) -> Done:
        """One optimiser step on the lists; without an update if the loss is not finite.

        `texts` are those of all pairs, as `batches.pairs_of` gives them.

        Dropout is a function of (seed, process, micro-batch) alone, so that the gradient cache, and
        a second try, drop the same; the random state of the process stays as it was.
        """
        self.trained.train()
        done = self._until_it_fits(lambda: self._gradient(batch, texts, seed))
        if math.isfinite(done.loss):
            self._update(rate)
        return done

    def _gradient(
        self, batch: Sequence[TrainingList], texts: Sequence[tuple[str, str]], seed: int
    ) -> Done:
        micros = self._micro_batches(batch, texts)
        masks = [micro.inputs["attention_mask"] for micro in micros]
        counts = [sum(int(m.sum()) for m in masks), sum(m.numel() for m in masks)]
        tokens, padded, users = self._total(
            torch.tensor([*counts, int(self._cached(micros))], device=self._device)
        ).tolist()
        cached = users > 0
        size = batches.targets(batch)[1].numel()
        if self._sharded:
            micros += self._idle(len(micros), texts[0], size)
        graphs = self._together(partial(self._forward, micros, seed, not cached))
        scores = torch.zeros(size + 1, device=self._device)
        for micro, own in zip(micros, graphs, strict=True):
            scores[micro.positions.to(self._device)] = own.detach()
        value, gradient = self._loss(self._total(scores[:size]), batch)
        if math.isfinite(value):
            gradient = torch.nn.functional.pad(gradient, (0, 1))
            self._together(partial(self._backward, micros, graphs, gradient, seed, cached))
            if not self._sharded:
                self._sum_gradients()
        return Done(value, tokens, padded, cached)

    def _weigh(self, batch: Sequence[TrainingList], texts: Sequence[tuple[str, str]]) -> None:
        micros = self._micro_batches(batch, texts)
        if self._sharded:
            micros += self._idle(len(micros), texts[0], 0)
        if not micros:
            return
        held = self._together(partial(self._held, micros[0]))
        sharing = 1 if self._device.type == "cuda" else self.accelerator.num_processes
        room = memory.SHARE * memory.free_bytes(self._device) / sharing
        self.kept = room / held * micros[0].inputs["attention_mask"].numel()

    def _held(self, micro: MicroBatch) -> int:
        own = () if self._sharded else self.trained.parameters()  # pieces are in no graph
        return memory.kept_bytes(lambda: self._scores(micro, 0, 0), own)

    def _micro_batches(
        self, batch: Sequence[TrainingList], texts: Sequence[tuple[str, str]]
    ) -> list[MicroBatch]:
        """The micro-batches of this process, which has every n-th pair of the step."""
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        own, positions = list(texts[mine]), batches.positions_of(batch)[mine]
        if not own:
            return []
        return batches.micro_batches(own, positions, self.student.pairs, self.max_tokens)

    def _idle(self, own: int, pair: tuple[str, str], size: int) -> list[MicroBatch]:
        """Dummy micro-batches, so that all FSDP processes run equally many.

        Their scores go to position [B * N], which the loss does not see: the gradient is zero.
        """
        counts = torch.zeros(self.accelerator.num_processes, dtype=torch.int, device=self._device)
        counts[self.accelerator.process_index] = own
        most = int(self._total(counts).max())
        idle = batches.micro_batches([pair], [size], self.student.pairs, self.max_tokens)
        return idle * (most - own)

    def _cached(self, micros: list[MicroBatch]) -> bool:
        """Whether this process would use the cache; all do when one would."""
        tokens = sum(micro.inputs["attention_mask"].numel() for micro in micros)
        several = len(micros) > 1 or self.trainer.gradient_cache == "on"
        return several and tokens > self.kept

    def _forward(self, micros: list[MicroBatch], seed: int, graph: bool) -> list[Tensor]:
        """Scores of every micro-batch."""
        with torch.set_grad_enabled(graph):
            return [self._scores(micro, seed, i) for i, micro in enumerate(micros)]

    def _scores(self, micro: MicroBatch, seed: int, index: int) -> Tensor:
        """Scores [P] in float32; the same dropout whenever it is called."""
        torch.manual_seed(draw_seed(seed, self.accelerator.process_index, index))
        inputs = {key: value.to(self._device) for key, value in micro.inputs.items()}
        with self.accelerator.autocast():
            scores: Tensor = self.trained(inputs, micro.parts.to(self._device))
        return scores.float()

    def _loss(self, scores: Tensor, batch: Sequence[TrainingList]) -> tuple[float, Tensor]:
        """The loss of a step, and its gradient at the scores [B * N]."""
        ranks, mask = (tensor.to(self._device) for tensor in batches.targets(batch))
        scores = scores.view(ranks.shape).requires_grad_()
        teacher = batches.scores_of(batch)
        known = () if teacher is None else (teacher.to(self._device),)
        value = self.loss(scores, ranks, mask, *known)
        (gradient,) = torch.autograd.grad(value, scores)
        return value.item(), gradient.flatten()

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
            self.accelerator.backward(scores, gradient=gradient[micro.positions.to(self._device)])

    def _update(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.scaler.unscale_(self.optimiser)
        if self.trainer.clip:
            torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.trainer.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()

    def _until_it_fits(self, work: Callable[[], T]) -> T:
        """Repeat `work`, each time with less memory, until it fits; the random state stays."""
        cuda = [self._device] if self._device.type == "cuda" else []
        while True:
            try:
                with torch.random.fork_rng(devices=cuda):
                    return work()
            except TooLarge:
                pass  # the graphs are let go of here, before the next try
            self._shrink()

    def _shrinks(self) -> bool:
        """Whether there is a way to use less memory."""
        if self._sharded:  # the others are in the middle of their layers
            return False
        smaller = self.trainer.max_tokens == "auto" and self.max_tokens > FEWEST_TOKENS
        return smaller or self._keeps_by_choice

    def _shrink(self) -> None:
        if self._keeps_by_choice:
            self.kept, change = 0.0, "the gradient cache is on"
        else:
            self.max_tokens //= 2
            change = f"micro-batches of {self.max_tokens:,} tokens"
        self.optimiser.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self.accelerator.is_main_process:
            tell(f"out of memory: {change} from now on")

    def _together(self, work: Callable[[], T]) -> T:
        """Do this process's part; raise TooLarge in all processes if it is too large for one."""
        failed, result = False, None
        try:
            result = work()
        except torch.OutOfMemoryError as error:
            if not self._shrinks():
                error.add_note("trainer.max_tokens: give a smaller one, or 'auto' without FSDP")
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
        parameters = [p for p in self.trained.parameters() if p.requires_grad]
        used = [int(p.grad is not None) for p in parameters]
        anywhere = self._total(torch.tensor(used, device=self._device)).tolist()
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self._total(torch.cat([gradient.flatten() for gradient in own]))
        pieces = flat.split([p.numel() for p in parameters])
        for parameter, piece, users in zip(parameters, pieces, anywhere, strict=True):
            parameter.grad = piece.view_as(parameter) if users else None

    def _total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        total: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    @property
    def _keeps_by_choice(self) -> bool:
        return self.trainer.gradient_cache == "auto" and self.kept > 0

    @property
    def _sharded(self) -> bool:
        return self.trained is not self.student

    @property
    def _device(self) -> torch.device:
        return torch.device(self.accelerator.device)
