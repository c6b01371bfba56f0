"""The training loop: `fit`; and `run`, for a program that trains in several processes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from rdx.bars import bar, tell
from rdx.batches import Schedule, pairs_of
from rdx.draws import seed as draw_seed
from rdx.faults import Diverged
from rdx.lists import Lists
from rdx.students import CrossEncoder
from rdx.trainer import checkpoints, processes
from rdx.trainer.budgets import announcement, computing, flops, plan
from rdx.trainer.checkpoints import Progress
from rdx.trainer.settings import Trainer
from rdx.trainer.step import Engine

OnStep = Callable[[int, dict[str, float]], None]
Validate = Callable[[CrossEncoder], float]


def run(program: Callable[[], None]) -> None:
    """Run a program in the main process, while the others take part in what it trains.

    For processes that `torchrun` or `accelerate launch` started; without them, there is no need.
    """
    processes.run(program, _follow)


def _follow() -> None:
    """Do what the main process does with its engine, one training after the other."""
    engine: Engine | None = None
    while (order := processes.told()) is not None:
        name, arguments = order
        if name == "begin":
            engine = None  # its memory is needed
            engine = Engine.begin(*arguments)
        else:
            getattr(engine, name)(*arguments)


def fit(
    student: CrossEncoder,
    loss: Callable[..., Tensor],
    lists: Lists,
    collection: Any,
    budget: Any,
    trainer: Trainer,
    seed: int,
    work: Path,
    on_step: OnStep = lambda step, metrics: None,
    name: str = "training",
    validate: Validate | None = None,
) -> dict[str, float]:
    """Train in place; resume from `work` when a killed process left a checkpoint there.

    Everything random is a function of (seed, step), so that an interrupted training gives the same
    weights as an undisturbed one, bit for bit on one machine.

    In a program under `run`, the main process calls this, and all take part: the pairs of a step
    are dealt out. The weights are those of one process to float tolerance (without dropout: each
    process draws its own). Every process holds the whole student, or, under FSDP
    (`rdx.trainer.sharding`), a part of its weights, gradients and Adam state; the main process then
    has a whole student beside it, which is validated, saved, and at the end has the weights.

    Parameters
    ----------
    loss
        Called as ``loss(scores, ranks, mask)``, all [B, N], scores in float32; with a fourth
        argument, the teacher's scores (NaN at padding), where some list of a step has any.
    on_step
        Told the step, from 0, and its "loss", "lr" and perhaps "validation".
    validate
        Gives a number of a student in evaluation mode, larger = better; called as
        `trainer.validate_every` says.

    Returns
    -------
    dict
        steps done, pairs, lists, tokens, padding (share of the computed tokens), flops
        (`rdx.trainer.budgets.flops`), max_tokens, truncated_texts, last_loss, weight_change
        (largest of some probed weights); if validated: validation_start, validation (of the weights
        that are kept), best_step (after how many steps it was best), kept_step.

    Raises
    ------
    Diverged
        If the loss is not finite.
    """
    schedule = Schedule(lists, trainer.batch, seed)
    steps = budget.count(schedule)
    before = {n: p.detach().clone() for n, p in _probe(student).items()}
    engine, progress = _begin(student, loss, trainer, work)
    first = schedule.step(progress.step)
    engine.weigh(first, pairs_of(first, collection))
    _announce(name, engine, schedule, steps, collection)
    validating = validate if trainer.validate_every else None
    if validating and progress.start is None:
        progress.start = _validated(validating, engine, name)
    saved = time.monotonic()
    shown = bar(desc=name, unit="step", initial=progress.step, total=steps)
    while progress.step < steps and not _waited_enough(progress, trainer):
        step = progress.step
        batch, rate = schedule.step(step), trainer.rate(step, steps)
        texts = pairs_of(batch, collection)
        done = engine.step(batch, texts, rate, draw_seed(seed, step, "dropout"))
        if not math.isfinite(done.loss):
            raise Diverged(f"{name}: the loss is {done.loss} at step {step}")
        _count(progress, done, batch, engine)
        metrics = {"loss": done.loss, "lr": rate}
        due = validating is not None and _due(progress.step, steps, trainer)
        if validating and due:
            metrics["validation"] = _validated(validating, engine, name)
            progress.validations.append([progress.step, metrics["validation"]])
        shown.set_postfix(loss=f"{done.loss:.3f}", refresh=False)
        shown.update()
        on_step(step, metrics)
        late = time.monotonic() - saved >= trainer.checkpoint_seconds and progress.step < steps
        if due or late:
            _checkpoint(work, engine, progress)
            saved = time.monotonic()
    shown.close()
    return _finish(work, engine, progress, before, schedule)


def _begin(
    student: CrossEncoder, loss: Any, trainer: Trainer, work: Path
) -> tuple[Engine, Progress]:
    """Start, or continue from the newest checkpoint."""
    state = checkpoints.load(work, student)
    compiled = getattr(student.encoder, "_compiled_call_impl", None) is not None
    # Other processes have other GPUs: they are told of a student on the CPU.
    engine = Engine.begin(student.cpu(), loss, trainer, compiled, state)
    if state is None:
        return engine, Progress(engine.max_tokens)
    progress = Progress(**state["progress"])
    student.pairs.truncated.update(progress.truncated)
    return engine, progress


def _announce(name: str, engine: Engine, schedule: Schedule, steps: int, collection: Any) -> None:
    """Print what the training is going to cost."""
    shared = engine.accelerator.num_processes
    costs = plan(engine.student, schedule, steps, collection, engine.kept * shared)
    tell(announcement(name, costs, shared))


def _count(progress: Progress, done: Any, batch: Any, engine: Engine) -> None:
    progress.step += 1
    progress.pairs += sum(len(one.doc_ids) for one in batch)
    progress.tokens += done.tokens
    progress.padded += done.padded
    progress.flops += flops(computing(engine.student), done.padded, done.cached)
    progress.curve.append(done.loss)
    progress.max_tokens = engine.max_tokens


def _due(done: int, steps: int, trainer: Trainer) -> bool:
    """Whether to validate after so many steps."""
    return done == steps or done % (trainer.validate_every or steps) == 0


def _waited_enough(progress: Progress, trainer: Trainer) -> bool:
    """Whether to stop early."""
    return trainer.patience is not None and progress.waited >= trainer.patience


def _validated(validate: Validate, engine: Engine, name: str) -> float:
    """The validation of the weights as they are."""
    engine.gather()
    engine.student.eval()
    value = float(validate(engine.student))
    if not math.isfinite(value):
        raise ValueError(f"{name}: validation gave {value}")
    return value


def _checkpoint(work: Path, engine: Engine, progress: Progress) -> None:
    """Write a checkpoint, with the texts that were cut."""
    engine.gather()
    progress.truncated = sorted(engine.truncated())
    checkpoints.save(work, engine.student, engine.state(), progress)


def _finish(
    work: Path, engine: Engine, progress: Progress, before: dict[str, Tensor], schedule: Schedule
) -> dict[str, float]:
    """Load the selected weights, tidy up, and tell what happened."""
    student, cut = engine.student, engine.truncated()
    engine.gather()
    best = engine.trainer.select == "best" and bool(progress.validations)
    if best:
        checkpoints.load_best(work, student)
    (work / "curve.json").write_text(json.dumps(progress.curve) + "\n")
    checkpoints.remove(work)
    student.eval()
    facts = {
        "steps": progress.step,
        "pairs": progress.pairs,
        "lists": schedule.size,
        "tokens": progress.tokens,
        "padding": 1 - progress.tokens / progress.padded,
        "flops": progress.flops,
        "max_tokens": progress.max_tokens,
        "truncated_texts": len(cut),
        "last_loss": progress.curve[-1],
        "weight_change": _change(student, before),
    }
    return facts | _validation_facts(progress, best)


def _validation_facts(progress: Progress, best: bool) -> dict[str, float]:
    if progress.start is None or not progress.validations:
        return {}
    kept = progress.validations[progress.best if best else -1]
    return {
        "validation_start": progress.start,
        "validation": kept[1],
        "best_step": int(progress.validations[progress.best][0]),
        "kept_step": int(kept[0]),
    }


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
