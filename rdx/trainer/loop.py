"""The training loop, `fit`: every process runs it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from torch import Tensor

from rdx.bars import bar, tell
from rdx.batches import Schedule, ahead, pairs_in
from rdx.draws import seed as draw_seed
from rdx.facts import TrainingFacts, Validation
from rdx.faults import Diverged
from rdx.lists import Lists
from rdx.parts import Budget, Loss, OnStep
from rdx.students import CrossEncoder, is_compiled
from rdx.tokens import Tokens
from rdx.trainer import checkpoints, processes
from rdx.trainer.budgets import announcement, computing, flops, plan
from rdx.trainer.checkpoints import CheckpointState, Progress
from rdx.trainer.preparing import Prepared
from rdx.trainer.processes import by_main
from rdx.trainer.settings import Trainer
from rdx.trainer.step import Done, Engine

Validate = Callable[[CrossEncoder], float]


def _ignore(step: int, metrics: Mapping[str, float]) -> None:
    """The `on_step` of nobody."""


@processes.in_step()
def fit(
    student: CrossEncoder,
    loss: Loss,
    lists: Lists,
    tokens: Tokens,
    budget: Budget,
    trainer: Trainer,
    seed: int,
    work: Path,
    on_step: OnStep = _ignore,
    name: str = "training",
    validate: Validate | None = None,
) -> TrainingFacts:
    """Train in place; resume from `work` when a killed process left a checkpoint there.

    Everything random is a function of (seed, step), so that an interrupted training gives the same
    weights as an undisturbed one, bit for bit on one machine.

    Under `rdx.trainer.run`, all processes call this with equal arguments and share the pairs of a
    step. The weights are those of one process to float tolerance (without dropout: each process
    draws its own). Every process holds the whole student, or, under FSDP (`rdx.trainer.sharding`),
    a part of its weights, gradients and Adam state beside a whole student, which is validated,
    saved, and at the end has the weights. The main process alone reads and writes `work`, and calls
    `on_step` and `validate`; the others may be given none.

    Parameters
    ----------
    tokens
        Of the texts of all lists, for this student.
    loss
        Called as ``loss(scores, ranks, mask)``, all [B, N], scores in float32; with a fourth
        argument, the teacher's scores (NaN at padding), where some list of a step has any.
    on_step
        Told the step, from 0, and its "loss", "lr" and perhaps "validation".
    validate
        Gives a number of a student in evaluation mode, larger = better; called as
        `trainer.validate_every` says.

    Raises
    ------
    Diverged
        If the loss is not finite.
    """
    schedule = Schedule(lists, trainer.batch, seed)
    steps = budget.count(schedule)
    before = {n: p.detach().clone() for n, p in _probe(student).items()}
    engine, progress = _begin(student, loss, trainer, work, tokens)
    first = engine.prepare(schedule.step(progress.step))
    engine.weigh(first)
    by_main(partial(_announce, name, engine, schedule, steps, engine.again(first)))
    validates = by_main(lambda: validate is not None and trainer.validate_every is not None)
    if validates and progress.start is None:
        progress.start = _validated(validate, engine, name)
    saved = time.monotonic()
    shown = bar(
        desc=name, unit="step", initial=progress.step, total=steps, disable=not processes.is_main()
    )

    def report(step: int, metrics: Mapping[str, float]) -> bool:
        """Tell of a step; gives whether it is time for a checkpoint."""
        shown.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
        shown.update()
        on_step(step, metrics)
        return time.monotonic() - saved >= trainer.checkpoint_seconds

    def prepare(step: int) -> Prepared:
        return engine.prepare(schedule.step(step))

    with closing(ahead(range(progress.step, steps), prepare)) as coming:
        while progress.step < steps and not _waited_enough(progress, trainer):
            step, prepared = progress.step, next(coming)
            rate = trainer.rate(step, steps)
            done = engine.step(prepared, rate, draw_seed(seed, step, "dropout"))
            if not math.isfinite(done.loss):  # in all processes: each has all scores
                by_main(partial(_diverge, f"{name}: the loss is {done.loss} at step {step}"))
            _count(progress, done, prepared, engine)
            metrics = {"loss": done.loss, "lr": rate}
            due = validates and _due(progress.step, steps, trainer)
            if due:
                metrics["validation"] = _validated(validate, engine, name)
                progress.validations.append([progress.step, metrics["validation"]])
            late = by_main(partial(report, step, metrics))
            if due or (late and progress.step < steps):
                _checkpoint(work, engine, progress)
                saved = time.monotonic()
    shown.close()
    return _finish(work, engine, progress, before, schedule)


def _begin(
    student: CrossEncoder, loss: Loss, trainer: Trainer, work: Path, tokens: Tokens
) -> tuple[Engine, Progress]:
    """Start, or continue from the newest checkpoint."""

    def load() -> tuple[bool, CheckpointState | None]:
        return is_compiled(student.encoder), checkpoints.load(work, student)

    student.cpu()
    compiled, state = by_main(load)
    processes.share_weights(student)
    engine = Engine.begin(student, loss, trainer, compiled, state, tokens)
    if state is None:
        return engine, Progress(engine.max_tokens)
    progress = Progress(**state["progress"])
    engine.truncated.update(progress.truncated)
    return engine, progress


def _announce(name: str, engine: Engine, schedule: Schedule, steps: int, again: float) -> None:
    """Print what the training is going to cost."""
    costs = plan(engine.student, schedule, steps, engine.tokens, again)
    tell(announcement(name, costs, engine.accelerator.num_processes))


def _diverge(message: str) -> None:
    raise Diverged(message)


def _count(progress: Progress, done: Done, prepared: Prepared, engine: Engine) -> None:
    progress.step += 1
    progress.pairs += pairs_in(prepared.lists)
    progress.tokens += done.tokens
    progress.padded += done.padded
    progress.flops += flops(computing(engine.student), done.padded, done.again)
    progress.curve.append(done.loss)
    progress.max_tokens = engine.max_tokens
    engine.truncated |= prepared.truncated


def _due(done: int, steps: int, trainer: Trainer) -> bool:
    """Whether to validate after so many steps."""
    return done == steps or done % (trainer.validate_every or steps) == 0


def _waited_enough(progress: Progress, trainer: Trainer) -> bool:
    """Whether to stop early."""
    return trainer.patience is not None and progress.waited >= trainer.patience


def _validated(validate: Validate | None, engine: Engine, name: str) -> float:
    """The validation of the weights as they are."""

    def value() -> float:
        assert validate is not None  # in the main process, where `fit` has asked
        engine.student.eval()
        number = float(validate(engine.student))
        if not math.isfinite(number):
            raise ValueError(f"{name}: validation gave {number}")
        return number

    engine.gather()
    return by_main(value)


def _checkpoint(work: Path, engine: Engine, progress: Progress) -> None:
    """Write a checkpoint."""
    engine.gather()
    progress.truncated = sorted(engine.truncated)
    by_main(partial(checkpoints.save, work, engine.student, engine.state(), progress))


def _finish(
    work: Path, engine: Engine, progress: Progress, before: dict[str, Tensor], schedule: Schedule
) -> TrainingFacts:
    """Load the selected weights, tidy up, and tell what happened."""
    student = engine.student
    best = engine.trainer.select == "best" and bool(progress.validations)

    def tidy() -> None:
        if best:
            checkpoints.load_best(work, student)
        (work / "curve.json").write_text(json.dumps(progress.curve) + "\n")
        checkpoints.remove(work)

    engine.gather()
    by_main(tidy)
    student.eval()
    return TrainingFacts(
        steps=progress.step,
        pairs=progress.pairs,
        lists=schedule.size,
        tokens=progress.tokens,
        padding=1 - progress.tokens / progress.padded,
        flops=progress.flops,
        max_tokens=progress.max_tokens,
        truncated_texts=len(engine.truncated),
        last_loss=progress.curve[-1],
        weight_change=_change(student, before),
        validation=_validation(progress, best),
    )


def _validation(progress: Progress, best: bool) -> Validation | None:
    if progress.start is None or not progress.validations:
        return None
    best_step, best_value = progress.validations[progress.best]
    kept_step, kept = (best_step, best_value) if best else progress.validations[-1]
    return Validation(
        start=progress.start, kept=kept, best_step=int(best_step), kept_step=int(kept_step)
    )


def _probe(student: CrossEncoder) -> dict[str, Tensor]:
    """A few parameters by which a training that changes nothing is noticed."""
    named = [(n, p) for n, p in student.named_parameters() if p.requires_grad]
    return dict(named[-8:])


def _change(student: CrossEncoder, before: dict[str, Tensor]) -> float:
    """Largest change of a probed weight."""
    after = _probe(student)
    return max(
        (after[n].detach().cpu() - old.cpu()).abs().max().item() for n, old in before.items()
    )
