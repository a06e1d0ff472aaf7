"""Train with AdamW on a task's batches, evaluate, and check that losses are finite and frozen values unchanged."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from trans4init.ablations.data.config import Split
from trans4init.ablations.device import keep_freed_memory, threads
from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.guard import ArmRecord, FrozenGuard
from trans4init.ablations.slots.slot import observed_ranges, slots_named
from trans4init.ablations.tasks import Batch, Task
from trans4init.ablations.training.checkpoint import Progress
from trans4init.ablations.training.distributed import Team
from trans4init.ablations.transformer import Transformer
from trans4init.kernels.torch_compile import instruction_set
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement

__all__ = [
    "DivergedError",
    "Keep",
    "OnProgress",
    "Prune",
    "PrunedError",
    "StoppedError",
    "Trained",
    "TrainingStep",
    "ask_to_prune",
    "measure",
    "note_loss",
    "optimiser_state",
    "parameter_groups",
    "random_numbers",
    "restore_optimiser",
    "train",
    "train_on",
]

OnProgress = Callable[[int, float], None]
"""A function that is called with the step and the mean training loss since the last call."""

Prune = Callable[[int, list[Measurement]], bool]
"""A function that is called with the step of an evaluation and what was measured there; returns whether to stop."""

Keep = Callable[["TrainingStep", Progress, bool], None]
"""A function that is called when a checkpoint is due, by every process of a team; told if the model is the best."""


class DivergedError(Exception):
    """Raised when a loss or metric is NaN or infinite. `measurements` are those made before."""

    def __init__(self, what: str, step: int, measurements: list[Measurement]) -> None:
        super().__init__(f"the {what} at step {step}")
        self.what, self.step, self.measurements = what, step, measurements


class PrunedError(Exception):
    """Raised when a run fell behind at an evaluation. `measurements` are those made until then."""

    def __init__(self, step: int, measurements: list[Measurement]) -> None:
        super().__init__(f"fell behind at step {step}")
        self.step, self.measurements = step, measurements


class StoppedError(Exception):
    """Raised when training was asked to stop, after `step` and its checkpoint."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


class Trained(Protocol):
    """Describes what is measured while it is trained: a model, by itself or in an array."""

    model: Transformer
    task: Task
    config: TrainingConfig
    team: Team
    gradient_norms: dict[str, float]
    """The gradient's norm by parameter group, before clipping, from the last step for which norms were asked."""


class TrainingStep:
    """Trains a model with its optimiser: each call does one step of forward, backward, clipping and update.

    moves: names of the parameters that have the slot's learning rate and weight decay.
    """

    def __init__(
        self,
        model: Transformer,
        task: Task,
        config: TrainingConfig,
        moves: tuple[str, ...] = (),
        team: Team | None = None,
    ) -> None:
        self.model, self.task, self.config, self.team = model, task, config, team or Team()
        self.steps = 0
        keep_freed_memory()
        compiled = torch.compile(model, options=instruction_set()) if config.compile else model
        self.runner = self.team.wrap(cast(nn.Module, compiled))
        groups = parameter_groups(model, config, moves)
        self.optimiser = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=True)
        self._device = next(model.parameters()).device.type
        if config.precision == "float16" and self._device == "cpu":
            raise InputError("precision float16 needs a GPU; use float32 or bfloat16 on a CPU.")
        self.scaler = torch.amp.GradScaler(self._device, enabled=config.precision == "float16")
        self.gradient_norms: dict[str, float] = {}

    def __call__(self, batch: Batch, *, norms: bool = False) -> Tensor:
        """Train on a batch; return the loss before the update, without waiting for the device."""
        factor = self.config.learning_rate_factor(self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimiser.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = self._backward(batch)
        self.scaler.unscale_(self.optimiser)
        if norms:
            self.gradient_norms = {group["name"]: _norm(group["params"]) for group in self.optimiser.param_groups}
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.steps += 1
        return loss

    def _backward(self, batch: Batch) -> Tensor:
        """Compute the gradient of the mean loss over the whole batch, from this process's pieces; return the loss."""
        team, count = self.team, self.team.size * self.config.accumulate
        if count == 1:
            loss = self._loss(batch)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        total = torch.zeros((), dtype=torch.float32, device=self._device)
        pieces = range(team.rank, count, team.size)
        for number in pieces:
            piece, share = batch.piece(number, count)
            with team.local(self.runner) if number != pieces[-1] else nullcontext():
                loss = self._loss(piece) * share
                whole = self.scaler.scale(loss * team.size)  # the team takes the mean of its gradients
                whole.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return team.sum(total)

    def _loss(self, batch: Batch) -> Tensor:
        dtype = getattr(torch, self.config.precision)
        with torch.autocast(self._device, dtype, enabled=dtype != torch.float32):
            return self.task.loss(self.runner, batch, self.config.label_smoothing)

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Return the optimiser's tensors, and what else a later step depends on, as JSON can hold it."""
        return optimiser_state(self.optimiser), {"steps": self.steps, "scaler": self.scaler.state_dict()}

    def restore(self, tensors: dict[str, Tensor], rest: dict[str, object]) -> None:
        """Go back to what `state` returned."""
        restore_optimiser(self.optimiser, tensors)
        self.scaler.load_state_dict(rest["scaler"])  # type: ignore[arg-type]
        self.steps = int(rest["steps"])  # type: ignore[call-overload]


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's tensors by the number of the parameter and their name."""
    states = optimiser.state_dict()["state"]
    return {f"{number}/{name}": value for number, state in states.items() for name, value in state.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Bring an optimiser back to what `optimiser_state` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        number, name = path.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def train(
    model: Transformer,
    task: Task,
    config: TrainingConfig,
    record: ArmRecord | None = None,
    *,
    seed: int,
    split: Split,
    on_progress: OnProgress | None = None,
    prune: Prune | None = None,
) -> list[Measurement]:
    """Train the model from its start to its end, measure it on `split`, and return all measurements.

    They are training loss, the task's metrics and the drift of the slot; at the end also the task's final metrics and
    the ranges of the slots' inputs. Raises DivergedError at the first check at which a loss is NaN or infinite,
    FrozenMovedError if a value moved that the arm freezes, and PrunedError where `prune`, asked at each evaluation but
    the last, says that the run falls behind.
    """
    step = TrainingStep(model, task, config, record.moves if record else ())
    progress = Progress()
    with random_numbers(seed, 0):
        train_on(step, progress, record, seed=seed, split=split, on_progress=on_progress, prune=prune)
    return progress.found


def train_on(
    step_once: TrainingStep,
    progress: Progress,
    record: ArmRecord | None = None,
    *,
    seed: int,
    split: Split,
    on_progress: OnProgress | None = None,
    keep: Keep | None = None,
    prune: Prune | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train from where `progress` is to the end, and add what is measured to it.

    Raises StoppedError after the step at which `stop` returns True, when its checkpoint is written.
    """
    model, task, config, team = step_once.model, step_once.task, step_once.config, step_once.team
    guard = FrozenGuard(model, record) if record else None
    evaluated_at = config.evaluated_at()
    with threads(config.threads):
        batches = task.batches(
            seed, config.batch, split, start=progress.step, unit=config.batch_unit, workers=config.workers
        )
        device = next(model.parameters()).device
        since_check = [torch.tensor(loss, dtype=torch.float32, device=device) for loss in progress.since_check]
        while progress.step < config.steps and not progress.finished:
            progress.step += 1
            step, last = progress.step, progress.step == config.steps
            check = step % config.log_every == 0 or last
            since_check.append(step_once(next(batches), norms=check))
            if check:
                loss = torch.stack(since_check).mean().item()
                since_check.clear()
                note_loss(step_once, progress, loss)
                if on_progress is not None and team.leads:
                    on_progress(step, loss)
            improved = False
            if step in evaluated_at:
                improved = measure(step_once, progress, record, split, last=last)
                if guard:
                    guard.check()
                if prune is not None and not (last or progress.finished):
                    ask_to_prune(prune, progress)
            stopping = team.told(stop()) if check or team.size == 1 else False  # each question makes a team wait
            due = step in evaluated_at or stopping or (config.checkpoint_every and step % config.checkpoint_every == 0)
            if keep is not None and due:
                progress.since_check = [loss.item() for loss in since_check]
                keep(step_once, progress, improved)
            if stopping and not (last or progress.finished):
                raise StoppedError(step)


def ask_to_prune(prune: Prune, progress: Progress) -> None:
    """Raise PrunedError if the run falls behind by its last evaluation."""
    if prune(progress.step, [m for m in progress.found if m.step == progress.step]):
        raise PrunedError(progress.step, progress.found)


@contextmanager
def random_numbers(seed: int, rank: int) -> Iterator[None]:
    """Seed the global random states, which dropout draws from, within; afterwards they are the caller's again."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        process_seed = derived_seed(seed, "training", rank)
        torch.manual_seed(process_seed)
        random.seed(process_seed)
        np.random.seed(process_seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def note_loss(trained: "Trained", progress: Progress, loss: float) -> None:
    """Add rows of training loss and gradient norms; raises DivergedError if the loss is NaN or infinite."""
    step = progress.step
    if not math.isfinite(loss):
        raise DivergedError(f"training loss is {loss}", step, progress.found)
    progress.found.append(Measurement(metrics.TRAINING_LOSS, loss, step))
    for name, norm in trained.gradient_norms.items():
        progress.found.append(Measurement(metrics.of_group(metrics.GRADIENT_NORM, name), norm, step))


def measure(trained: "Trained", progress: Progress, record: ArmRecord | None, split: Split, *, last: bool) -> bool:
    """Evaluate, add the measurements, and decide whether training stops early; return if the model is the best so far.

    The leader measures, and its measurements decide for the whole team.
    """
    task, team, config, step = trained.task, trained.team, trained.config, progress.step

    def measured(final: bool) -> list[Measurement]:
        return _evaluate(trained.model, task, record, split, step, final=final) if team.leads else []

    measurements: list[Measurement] = team.told(measured(last))
    lost = [m.metric.name.replace("_", " ") for m in measurements if m.value is None]
    if lost:
        raise DivergedError(f"{lost[0]} is not a number", step, progress.found)
    judged = next(m.value for m in measurements if m.metric == task.judged)
    assert judged is not None
    better = progress.best is None or (
        judged > progress.best if task.judged.higher_is_better else judged < progress.best
    )
    if better:
        progress.best, progress.best_step = judged, step
    progress.stale = 0 if better else progress.stale + 1
    early = config.patience is not None and progress.stale >= config.patience and not last
    progress.finished = last or early
    progress.found += team.told(measured(True)) if early else measurements
    if progress.finished:
        progress.found += task.summary(progress.found, step)
    return better


def parameter_groups(model: Transformer, config: TrainingConfig, moves: tuple[str, ...]) -> list[dict[str, object]]:
    """Return the parameter groups: matrices decay, vectors don't, a slot's have their own learning rate and decay."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    slot = [parameter for name, parameter in named.items() if name in moves]
    rest = [parameter for name, parameter in named.items() if name not in moves]
    rate = config.learning_rate
    matrices, vectors = [p for p in rest if p.dim() >= 2], [p for p in rest if p.dim() < 2]
    groups: list[dict[str, object]] = [
        {"name": "matrices", "params": matrices, "initial_lr": rate, "weight_decay": config.weight_decay},
        {"name": "vectors", "params": vectors, "initial_lr": rate, "weight_decay": 0.0},
        {
            "name": "slot",
            "params": slot,
            "initial_lr": rate * config.slot_learning_rate_ratio,
            "weight_decay": config.slot_weight_decay,
        },
    ]
    return [group for group in groups if group["params"]]


def _norm(parameters: list[nn.Parameter]) -> float:
    """Return the norm of all gradients of these parameters."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()


def _evaluate(
    model: Transformer, task: Task, record: ArmRecord | None, split: Split, step: int, *, final: bool
) -> list[Measurement]:
    """Measure the task's metrics, the drift of the arm's slots, and finally the ranges of all slots' inputs."""
    if record is None:
        return task.evaluate(model, split, step, final=final)
    observation: AbstractContextManager[dict[str, tuple[float, float]]] = nullcontext({})
    if final:
        observation = observed_ranges(model)
    with observation as ranges:
        measurements = task.evaluate(model, split, step, final=final)
    drifts = [drift for place in slots_named(model, record.slot).values() if (drift := place.drift()) is not None]
    if drifts:
        measurements.append(Measurement(metrics.SLOT_DRIFT_MAX, max(largest for largest, _ in drifts), step))
        measurements.append(Measurement(metrics.SLOT_DRIFT_RMS, max(rms for _, rms in drifts), step))
    if final:
        for path, (low, high) in ranges.items():
            measurements.append(Measurement(metrics.in_slot(metrics.SLOT_INPUT_LOW, path), low, step))
            measurements.append(Measurement(metrics.in_slot(metrics.SLOT_INPUT_HIGH, path), high, step))
    return measurements
