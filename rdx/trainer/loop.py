"""The training loop: `fit`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from tqdm import tqdm

from rdx.batches import Lists, Schedule
from rdx.draws import seed as draw_seed
from rdx.students import CrossEncoder
from rdx.trainer import checkpoints, optimiser
from rdx.trainer.budgets import announcement, computing, flops, plan
from rdx.trainer.checkpoints import Progress
from rdx.trainer.settings import Trainer
from rdx.trainer.step import Engine

OnStep = Callable[[int, dict[str, float]], None]
Validate = Callable[[CrossEncoder], float]


class Diverged(RuntimeError):
    """The loss is not finite any more."""


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

    Under `accelerate launch` (on CPUs: `torchrun`) every process calls this alike. The pairs of a
    step are dealt out, and all processes end with the same weights: those of one process to float
    tolerance (without dropout: each process draws its own). `work`, `on_step` and `validate` are
    used by the main process alone. Every process holds the whole student, under FSDP too.

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
    accelerator = trainer.accelerator()
    student.to(accelerator.device)
    schedule = Schedule(lists, trainer.batch, seed)
    steps = budget.count(schedule)
    engine = _engine(student, loss, collection, accelerator, trainer)
    before = {n: p.detach().clone() for n, p in _probe(student).items()}
    progress = _resume(work, engine)
    _announce(name, engine, schedule, steps)
    validating = validate if trainer.validate_every else None
    if validating and progress.start is None:
        progress.start = _validated(validating, engine, name)
    saved = time.monotonic()
    bar = _bar(name, engine, progress, steps)
    while progress.step < steps and not _waited_enough(progress, trainer):
        step = progress.step
        batch, rate = schedule.step(step), trainer.rate(step, steps)
        student.train()
        done = engine.step(batch, rate, draw_seed(seed, step, "dropout"))
        if not math.isfinite(done.loss):
            raise Diverged(f"{name}: the loss is {done.loss} at step {step}")
        _count(progress, done, batch, engine)
        metrics = {"loss": done.loss, "lr": rate}
        due = validating is not None and _due(progress.step, steps, trainer)
        if validating and due:
            metrics["validation"] = _validated(validating, engine, name)
            progress.validations.append([progress.step, metrics["validation"]])
        bar.set_postfix(loss=f"{done.loss:.3f}", refresh=False)
        bar.update()
        if accelerator.is_main_process:
            on_step(step, metrics)
        late = time.monotonic() - saved >= trainer.checkpoint_seconds and progress.step < steps
        if due or _main_says(late, accelerator):
            _checkpoint(work, engine, progress)
            saved = time.monotonic()
    bar.close()
    return _finish(work, engine, progress, before, schedule)


def _announce(name: str, engine: Engine, schedule: Schedule, steps: int) -> None:
    """Print what the training is going to cost."""
    if engine.accelerator.is_main_process:
        processes, device = engine.accelerator.num_processes, engine.accelerator.device.type
        kept = engine.trainer.kept(device, engine.max_tokens) * processes
        costs = plan(engine.student, schedule, steps, engine.collection, kept)
        tqdm.write(announcement(name, costs, processes))


def _bar(name: str, engine: Engine, progress: Progress, steps: int) -> Any:
    hidden = not engine.accelerator.is_main_process
    return tqdm(desc=name, unit="step", initial=progress.step, total=steps, disable=hidden)


def _engine(
    student: CrossEncoder, loss: Any, collection: Any, accelerator: Accelerator, trainer: Trainer
) -> Engine:
    groups = optimiser.groups(student, trainer.weight_decay, trainer.layer_decay, trainer.head_rate)
    return Engine(
        student=student,
        loss=loss,
        collection=collection,
        accelerator=accelerator,
        optimiser=torch.optim.AdamW(groups, lr=trainer.learning_rate),
        scaler=accelerator.scaler or torch.amp.GradScaler(accelerator.device.type, enabled=False),
        trainer=trainer,
        max_tokens=trainer.tokens(accelerator.device.type),
    )


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
    """The main process's validation, in every process."""
    engine.student.eval()
    found = float(validate(engine.student)) if engine.accelerator.is_main_process else 0.0
    [value] = broadcast_object_list([found])
    if not math.isfinite(value):
        raise ValueError(f"{name}: validation gave {value}")
    return float(value)


def _main_says(flag: bool, accelerator: Accelerator) -> bool:
    """The main process's answer, in every process: clocks differ."""
    if accelerator.num_processes == 1:
        return flag
    return bool(broadcast_object_list([flag])[0])


def _checkpoint(work: Path, engine: Engine, progress: Progress) -> None:
    """Let the main process write a checkpoint, with the texts that all processes cut."""
    cut = engine.student.pairs.truncated
    cut.update(gather_object(sorted(cut)))
    progress.truncated = sorted(cut)
    if engine.accelerator.is_main_process:
        checkpoints.save(work, engine.student, engine.optimiser, engine.scaler, progress)
    engine.accelerator.wait_for_everyone()


def _resume(work: Path, engine: Engine) -> Progress:
    """Continue from the newest checkpoint of the main process, and let all begin alike."""
    found = checkpoints.load(work, engine.student) if engine.accelerator.is_main_process else None
    [state] = broadcast_object_list([found])
    _spread(engine)
    if state is None:
        return Progress(engine.max_tokens)
    engine.optimiser.load_state_dict(state["optimiser"])
    engine.scaler.load_state_dict(state["scaler"])
    progress = Progress(**state["progress"])
    if engine.trainer.max_tokens == "auto":
        engine.max_tokens = progress.max_tokens
    engine.student.pairs.truncated.update(progress.truncated)
    return progress


def _spread(engine: Engine) -> None:
    """Give every process the weights of the main process."""
    if engine.accelerator.num_processes > 1:
        for tensor in engine.student.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def _finish(
    work: Path, engine: Engine, progress: Progress, before: dict[str, Tensor], schedule: Schedule
) -> dict[str, float]:
    """Load the selected weights, tidy up, and tell what happened."""
    student, main = engine.student, engine.accelerator.is_main_process
    cut = set(gather_object(sorted(student.pairs.truncated)))
    best = engine.trainer.select == "best" and bool(progress.validations)
    if best:
        if main:
            checkpoints.load_best(work, student)
        _spread(engine)
    if main:
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
    return max((after[n].detach() - old).abs().max().item() for n, old in before.items())
