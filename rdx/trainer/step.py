"""One optimiser step: groups of lists, gradient cache, mixed precision, several processes.

A step is, for one group of its lists (`rdx.trainer.preparing`) after the other,

1. forward: each process scores its share of the pairs, micro-batch by micro-batch, and the scores
   of all processes are put together;
2. loss: every process computes it on all scores, and its gradient at the scores;
3. backward: each process passes the gradient at its own scores back through the student;

and the sum over groups and processes is the gradient of the step.

Under FSDP a process lends its part of the weights to every micro-batch of the others. There all
have the same number of micro-batches, some of them perhaps idle, and a gradient of zero.

With the gradient cache, 1 keeps no graph and 3 runs each micro-batch again (Gao et al. 2021).
Without it, 1 keeps the graphs for 3. The chain rule is the same: nothing is approximated.

A device is waited for once in a step, when all is done but the update: for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdx import memory
from rdx.bars import tell
from rdx.batches import MicroBatch
from rdx.draws import seed as draw_seed
from rdx.lists import TrainingList
from rdx.losses.combined import weighted
from rdx.parts import Loss
from rdx.students import CrossEncoder, compile_encoder, is_compiled
from rdx.students.packing import packs
from rdx.tokens import Tokens
from rdx.trainer import optimiser as grouping
from rdx.trainer import processes, sharding
from rdx.trainer.checkpoints import CheckpointState
from rdx.trainer.preparing import MICROS, Group, Prepared, Share, prepare
from rdx.trainer.settings import Trainer, kind

T = TypeVar("T")
FEWEST_TOKENS = 64  # no pair is so short that smaller micro-batches would help


@dataclass(frozen=True)
class Done:
    """What a step was: its loss, and tokens in all processes.

    `padded` are tokens with padding, `again` those of them that the gradient cache ran twice.
    """

    loss: float
    tokens: int
    padded: int
    again: int


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
    tokens
        Of the texts of all lists.
    kept
        Tokens of a group and process up to which graphs are kept; beyond, the gradient cache is
        used.
    truncated
        See `Prepared.truncated`: of the texts that were seen.
    """

    student: CrossEncoder
    loss: Loss
    trainer: Trainer
    trained: CrossEncoder
    accelerator: Accelerator
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    max_tokens: int
    tokens: Tokens
    kept: float = 0.0
    truncated: set[int] = field(default_factory=set)
    _failed: bool = field(default=False, init=False)  # too large for this process, in this try

    @classmethod
    def begin(
        cls,
        student: CrossEncoder,
        loss: Loss,
        trainer: Trainer,
        compiled: bool,
        state: CheckpointState | None,
        tokens: Tokens,
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
            optimiser=torch.optim.AdamW(groups, lr=trainer.learning_rate, fused=True),
            scaler=accelerator.scaler or torch.amp.GradScaler(device.type, enabled=False),
            max_tokens=trainer.tokens(device.type),
            tokens=tokens,
        )
        if state is not None:
            sharding.load_state(engine.optimiser, state["optimiser"])
            engine.scaler.load_state_dict(state["scaler"])
            if trainer.max_tokens == "auto":
                engine.max_tokens = state["progress"]["max_tokens"]
        return engine

    def prepare(self, lists: Sequence[TrainingList]) -> Prepared:
        """The groups and micro-batches of a step; another thread may call it."""
        share = Share(
            self.accelerator.process_index, self.accelerator.num_processes, level=self._sharded
        )
        limit = self.max_tokens * MICROS[kind(self._device.type)]
        packed = packs(self.student.encoder)
        made = prepare(
            *(lists, self.tokens, self.loss, self.max_tokens, limit, share),
            *(packed, self.student.scores_lists),
        )
        return made.pinned(self._device)

    def weigh(self, prepared: Prepared) -> None:
        """Set `kept`: with gradient_cache="auto", by the memory of a step's longest micro-batch."""
        if self.trainer.gradient_cache != "auto":
            self.kept = math.inf if self.trainer.gradient_cache == "off" else 0.0
            return
        self.trained.train()
        self._until_it_fits(lambda: self._weigh(self._fitting(prepared)))

    def again(self, prepared: Prepared) -> float:
        """The share of a step's tokens that the gradient cache runs twice."""
        again = sum(group.tokens for group in prepared.groups if self._cached(group))
        return again / sum(group.tokens for group in prepared.groups)

    def gather(self) -> None:
        """Put the weights into `student`, whole."""
        if self._sharded:
            sharding.gather(self.trained, self.student)

    def state(self) -> CheckpointState:
        """The state of the optimiser and of the scaler, whole: for a checkpoint."""
        optimiser = sharding.whole_state(self.optimiser)
        return {"optimiser": optimiser, "scaler": self.scaler.state_dict()}

    def step(self, prepared: Prepared, rate: float, seed: int) -> Done:
        """One optimiser step on a step's lists; without an update if the loss is not finite.

        Dropout is a function of (seed, process, micro-batch) alone, so that the gradient cache, and
        a second try, drop the same; the random state of the process stays as it was.
        """
        self.trained.train()
        done = self._until_it_fits(lambda: self._gradient(self._fitting(prepared), seed))
        if math.isfinite(done.loss):
            self._update(rate)
        self.optimiser.zero_grad()
        return done

    def _fitting(self, prepared: Prepared) -> Prepared:
        """What was prepared, anew if memory was short since."""
        anew = prepared.max_tokens != self.max_tokens
        return self.prepare(prepared.lists) if anew else prepared

    def _gradient(self, prepared: Prepared, seed: int) -> Done:
        self._failed = False
        loss = torch.zeros((), device=self._device)
        padded = again = first = 0
        with self._one_cast():
            for group in prepared.groups:
                cached = self._cached(group)
                loss += self._passed(group, cached, partial(self._scores, seed, first))
                padded += group.padded
                again += group.padded * cached
                first += len(group.micros)
        value, all_padded, all_again, *used = self._waited(loss, padded, again)
        self._sum_gradients(used)
        tokens = sum(group.tokens for group in prepared.groups)
        return Done(value, tokens, int(all_padded), int(all_again))

    def _passed(
        self, group: Group, cached: bool, scores_of: Callable[[int, MicroBatch], Tensor]
    ) -> Tensor:
        """Add the gradient of a group to the parameters; gives its part of the loss."""
        micros = [micro.to(self._device) for micro in group.micros]
        ranks, mask, *teacher = (
            tensor.to(self._device, non_blocking=True) for tensor in group.targets
        )

        def forward() -> list[Tensor]:
            with torch.set_grad_enabled(not cached):
                return [scores_of(i, micro) for i, micro in enumerate(micros)]

        def backward() -> None:
            for i, micro in enumerate(micros):
                own = scores_of(i, micro) if cached else graphs[i]
                graphs[i] = own.detach()  # the graph may go as soon as it was used
                self.accelerator.backward(own, gradient=gradient[micro.positions])

        graphs = self._unless_too_large(forward) or []
        if cached:
            torch.clear_autocast_cache()  # of weights that were cast without a graph
        flat = torch.zeros(mask.numel() + 1, device=self._device)
        for micro, own in zip(micros, graphs, strict=False):  # none after a failure
            flat[micro.positions] = own.detach()
        scores = self._total(flat[:-1]).view(mask.shape).requires_grad_()
        loss = weighted(group.losses, scores, ranks, mask, *teacher)
        (gradient,) = torch.autograd.grad(loss, scores)
        gradient = torch.nn.functional.pad(gradient.flatten(), (0, 1))
        self._unless_too_large(backward)
        return loss.detach()

    def _weigh(self, prepared: Prepared) -> None:
        """Measure the graph of a micro-batch; `max_tokens` of them may be kept in any case."""
        self._failed = False
        micros = [micro for group in prepared.groups for micro in group.micros]
        longest = max(micros, key=lambda micro: micro.parts.numel(), default=None)
        kept = math.inf
        if longest is not None:
            held = self._unless_too_large(partial(self._held, longest.to(self._device)))
            sharing = 1 if self._device.type == "cuda" else self.accelerator.num_processes
            room = memory.SHARE * memory.free_bytes(self._device) / sharing
            kept = max(room / (held or math.inf) * longest.parts.numel(), self.max_tokens)
        own = torch.tensor([-1.0 if self._failed else kept], device=self._device)
        self.kept = float(self.accelerator.gather(own).min())
        if self.kept < 0:
            self.kept = 0.0
            raise TooLarge

    def _held(self, micro: MicroBatch) -> int:
        own = () if self._sharded else self.trained.parameters()  # pieces are in no graph
        return memory.kept_bytes(lambda: self._scores(0, 0, 0, micro), own)

    def _cached(self, group: Group) -> bool:
        """Whether the gradient cache is used for a group: the same in all processes."""
        if self.trainer.gradient_cache == "on":
            return True
        return not group.small and group.tokens > self.kept * self.accelerator.num_processes

    def _scores(self, seed: int, first: int, index: int, micro: MicroBatch) -> Tensor:
        """Scores [P] in float32; the same dropout whenever it is called."""
        torch.manual_seed(draw_seed(seed, self.accelerator.process_index, first + index))
        with self.accelerator.autocast():
            scores: Tensor = self.trained(micro.inputs, micro.parts)
        return scores.float()

    def _one_cast(self) -> AbstractContextManager[object]:
        """Within it, autocast casts a weight once, not in every forward pass.

        Its cache of cast weights lasts as long as the outermost region; this one casts nothing.
        Not where FSDP lets go of weights in between: the cache would keep them.
        """
        return nullcontext() if self._sharded else torch.autocast(self._device.type, enabled=False)

    def _update(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.scaler.unscale_(self.optimiser)
        if self.trainer.clip:
            torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.trainer.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()

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

    def _unless_too_large(self, work: Callable[[], T]) -> T | None:
        """Do this process's part; None if it was too large for some process, now or before.

        The others learn of it when the step waits for them: until then this process takes part in
        what all do together.
        """
        if self._failed:
            return None
        try:
            return work()
        except torch.OutOfMemoryError as error:
            if not self._shrinks():
                cure = "trainer.max_tokens: give a smaller one, or 'auto' without FSDP"
                if self.student.scores_lists:
                    cure += "; a micro-batch holds whole lists: give a smaller depth.k, too"
                error.add_note(cure)
                raise
            self._failed = True
        if self.accelerator.num_processes == 1:
            raise TooLarge
        return None

    def _waited(self, loss: Tensor, *counts: int) -> list[float]:
        """The loss, and sums over all processes: of counts, and of who has which gradient.

        Raises
        ------
        TooLarge
            If the step was too large for a process.
        """
        if self.accelerator.num_processes == 1:
            return [loss.item(), *counts]
        used = [p.grad is not None for p in self._trainable]
        own = torch.tensor([self._failed, *counts, *used], dtype=torch.float64, device=self._device)
        told = torch.cat([loss.double().view(1), self._total(own)])
        value, failed, *sums = told.tolist()
        if failed:
            raise TooLarge
        return [value, *sums]

    def _sum_gradients(self, users: Sequence[float]) -> None:
        """Give every process the sum of the gradients of all; `users`: how many have each.

        By hand instead of with DistributedDataParallel: processes may have different numbers of
        micro-batches, even none, and parameters that no process used keep no gradient.
        """
        if self.accelerator.num_processes == 1 or self._sharded:
            return
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._trainable]
        flat = self._total(torch.cat([gradient.flatten() for gradient in own]))
        pieces = flat.split([p.numel() for p in self._trainable])
        for parameter, piece, any_users in zip(self._trainable, pieces, users, strict=True):
            parameter.grad = piece.view_as(parameter) if any_users else None

    def _total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        total: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    @property
    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self.trained.parameters() if p.requires_grad]

    @property
    def _keeps_by_choice(self) -> bool:
        return self.trainer.gradient_cache == "auto" and self.kept > 0

    @property
    def _sharded(self) -> bool:
        return self.trained is not self.student

    @property
    def _device(self) -> torch.device:
        return torch.device(self.accelerator.device)
