"""The training loop: AdamW on a task's batches, watched for divergence, with what may not move checked."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trans4init.ablations.arms import ArmRecord, FrozenGuard
from trans4init.ablations.data.text import Split
from trans4init.ablations.slots import observed_ranges, slots_named
from trans4init.ablations.tasks import Task
from trans4init.ablations.threads import threads
from trans4init.ablations.training_config import TrainingConfig
from trans4init.reports import metrics
from trans4init.reports.schema import Measurement

__all__ = ["DivergedError", "OnProgress", "TrainingStep", "train"]

OnProgress = Callable[[int, float], None]
"""Called with the step and the mean training loss since the last call."""


class DivergedError(Exception):
    """A loss stopped being a number. `measurements` are those made before."""

    def __init__(self, what: str, step: int, measurements: list[Measurement]) -> None:
        super().__init__(f"the {what} at step {step}")
        self.step, self.measurements = step, measurements


class TrainingStep:
    """One model with its optimiser: a call is forward, backward, clip and update."""

    def __init__(self, model: nn.Module, task: Task, config: TrainingConfig, moves: tuple[str, ...]) -> None:
        self.model, self.task, self.config = model, task, config
        self.optimiser = torch.optim.AdamW(_groups(model, config, moves), betas=(0.9, config.beta2))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: learning_rate_factor(config, step)
        )

    def __call__(self, batch: Tensor) -> Tensor:
        """Train on a batch; the loss before the update, not yet waited for."""
        loss = self.task.loss(self.model, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        self.schedule.step()
        return loss.detach()


def train(
    model: nn.Module,
    task: Task,
    config: TrainingConfig,
    record: ArmRecord,
    *,
    seed: int,
    split: Split,
    on_progress: OnProgress | None = None,
) -> list[Measurement]:
    """Train the model on what comes before `split`, and measure it there.

    Training loss, validation loss, drift of the slot; at the end the final metrics and the ranges of the slots' inputs.
    Raises DivergedError at the first check at which a loss is not a finite number, and FrozenMovedError where a
    value moved that the arm doesn't let move.
    """
    guard = FrozenGuard(model, record)
    step_once = TrainingStep(model, task, config, record.moves)
    found: list[Measurement] = []
    since_check: list[Tensor] = []
    evaluate_at = {round(config.steps * (n + 1) / config.evaluations) for n in range(config.evaluations)}
    with threads(config.threads):
        batches = task.batches(seed, config.batch, split)
        for step in range(1, config.steps + 1):
            since_check.append(step_once(next(batches)))
            if step % config.log_every == 0 or step == config.steps:
                loss = torch.stack(since_check).mean().item()
                since_check.clear()
                if not math.isfinite(loss):
                    raise DivergedError(f"training loss is {loss}", step, found)
                found.append(Measurement(metrics.TRAINING_LOSS, loss, step))
                if on_progress is not None:
                    on_progress(step, loss)
            if step in evaluate_at:
                measured = _evaluate(model, task, record.slot, split, step, final=step == config.steps)
                lost = [m.metric.name.replace("_", " ") for m in measured if m.value is None]
                if lost:
                    raise DivergedError(f"{lost[0]} is not a number", step, found)
                found += measured
                guard.check()
    return found


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """The share of the full learning rate at a step: up in a line, down on a cosine to the final ratio."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.final_learning_rate_ratio + (1 - config.final_learning_rate_ratio) * cosine


def _groups(model: nn.Module, config: TrainingConfig, moves: tuple[str, ...]) -> list[dict[str, object]]:
    """Matrices decayed, the rest not, and what moves in a slot with a rate and a decay of its own."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    slot = [parameter for name, parameter in named.items() if name in moves]
    rest = [parameter for name, parameter in named.items() if name not in moves]
    rate = config.learning_rate
    groups: list[dict[str, object]] = [
        {"params": [p for p in rest if p.dim() >= 2], "lr": rate, "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "lr": rate, "weight_decay": 0.0},
        {
            "params": slot,
            "lr": rate * config.slot_learning_rate_ratio,
            "weight_decay": config.slot_weight_decay,
        },
    ]
    return [group for group in groups if group["params"]]


def _evaluate(model: nn.Module, task: Task, slot: str, split: Split, step: int, *, final: bool) -> list[Measurement]:
    with observed_ranges(model) as ranges:
        found = task.evaluate(model, split, step, final=final)
    drifts = [drift for place in slots_named(model, slot).values() if (drift := place.drift()) is not None]
    if drifts:
        found.append(Measurement(metrics.SLOT_DRIFT_MAX, max(largest for largest, _ in drifts), step))
        found.append(Measurement(metrics.SLOT_DRIFT_RMS, max(rms for _, rms in drifts), step))
    if final:
        for path, (low, high) in ranges.items():
            found.append(Measurement(metrics.in_slot(metrics.SLOT_INPUT_LOW, path), low, step))
            found.append(Measurement(metrics.in_slot(metrics.SLOT_INPUT_HIGH, path), high, step))
    return found
