"""Train several models of one shape together, as one tensor program: an array of runs.

G members, B batch of one member. They may differ in their initial values, data, learning rates and decays. Each equals
the same run alone but for rounding.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from trans4init.ablations.data.config import Split
from trans4init.ablations.device import keep_freed_memory, threads
from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.guard import ArmRecord, FrozenGuard, FrozenMovedError
from trans4init.ablations.tasks import Batch, Task
from trans4init.ablations.tasks.base import IGNORED, mean_cross_entropy
from trans4init.ablations.training.checkpoint import Progress, read_snapshot, write_snapshot
from trans4init.ablations.training.distributed import Team
from trans4init.ablations.training.loop import (
    DivergedError,
    OnProgress,
    Prune,
    PrunedError,
    ask_to_prune,
    measure,
    note_loss,
    optimiser_state,
    parameter_groups,
    restore_optimiser,
)
from trans4init.ablations.training.stacked import NotStackableError, stacked
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records.schema import Measurement

__all__ = ["ArrayStep", "Member", "train_array"]


@dataclass
class Member:
    """Is one of the runs that are trained together: a model with its own settings and data."""

    model: Transformer
    config: TrainingConfig
    record: ArmRecord | None
    seed: int
    """Of its data."""
    task: Task
    prune: Prune | None = None
    team: Team = field(default_factory=Team)
    gradient_norms: dict[str, float] = field(default_factory=dict)


class ArrayStep:
    """Trains G models together: each call does for every one what `TrainingStep` does for one.

    The models' parameters become rows of the array's: they move as it trains, and stay usable one by one. Raises
    NotStackableError where the runs differ in more than values.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        first = members[0]
        self.members, self.task, self.config, self.steps = list(members), first.task, first.config, 0
        if any(member.config.shared() != first.config.shared() for member in members):
            raise NotStackableError("their settings differ in more than rates and decays")
        if why := first.config.why_alone():
            raise NotStackableError(why)
        if type(self.task).loss is not Task.loss:
            raise NotStackableError(f"task {self.task.name} has a loss of its own")
        keep_freed_memory()
        self.runner = stacked([member.model for member in members])
        self.device = next(first.model.parameters()).device
        self.values: dict[str, Tensor] = {}
        """The trained values of all members, [G, values], by the name of the parameter group."""
        self._gradients: dict[str, Tensor] = {}
        """Their gradients."""
        self._parts: list[tuple[nn.Parameter, Tensor]] = []
        """Every parameter that gets a gradient, with the part of `_gradients` that it belongs to."""
        self._adopt()
        self.optimiser = torch.optim.AdamW(self._groups(), betas=(first.config.beta1, first.config.beta2), fused=True)

    def __call__(self, batches: Sequence[Batch], *, norms: bool = False) -> Tensor:
        """Train each model on its batch; return their losses before the update, [G], without waiting for the device."""
        factor = self.config.learning_rate_factor(self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        for parameter, _ in self._parts:
            parameter.grad = None
        dtype = getattr(torch, self.config.precision)
        with torch.enable_grad(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            losses = self._losses(_as_one_batch(batches))
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._gather()
        by_group = {name: gradients.norm(dim=1) for name, gradients in self._gradients.items()}  # [G] each
        if norms:
            for name, of_members in by_group.items():
                for member, norm in zip(self.members, of_members.tolist(), strict=True):
                    member.gradient_norms[name] = norm
        whole = torch.stack(list(by_group.values())).norm(dim=0)
        share = (self.config.clip / (whole + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ has it, for each by itself
        for gradients in self._gradients.values():
            gradients.mul_(share[:, None])
        self.optimiser.step()
        self.steps += 1
        return losses.detach()

    def _losses(self, batch: Batch) -> Tensor:
        logits, count = self.task.logits(self.runner, batch), len(self.members)
        pairs = zip(logits.chunk(count), batch.targets.chunk(count), strict=True)
        return torch.stack([mean_cross_entropy(*pair, self.config.label_smoothing) for pair in pairs])

    def _gather(self) -> None:
        """Put the gradients of all parameters into their places; 0 for one that had no part in the losses."""
        for parameter, place in self._parts:
            if parameter.grad is None:
                place.zero_()
            else:
                place.copy_(parameter.grad)

    def _adopt(self) -> None:
        """Make each model's trained parameters a row of tensors [G, values], one for each group of parameters."""
        by_member = [self._own_groups(member) for member in self.members]
        names = {id(parameter): name for name, parameter in self.members[0].model.named_parameters()}
        of_runner = dict(self.runner.named_parameters())
        for group, parameters in by_member[0].items():
            rows = [torch.cat([own.detach().flatten() for own in groups[group]]) for groups in by_member]
            values = self.values[group] = torch.stack(rows)
            gradients = self._gradients[group] = torch.zeros_like(values)
            first = 0
            for place, parameter in enumerate(parameters):
                part = slice(first, first + parameter.numel())
                first = part.stop
                together = of_runner.get(names[id(parameter)])
                if together is not None:
                    together.data = values[:, part].view(together.shape)
                    self._parts.append((together, gradients[:, part].view(together.shape)))
                for row, groups in enumerate(by_member):
                    own = groups[group][place]
                    own.data = values[row, part].view(own.shape)
                    if together is None:  # in a slot's content, which every member computes by itself
                        self._parts.append((own, gradients[row, part].view(own.shape)))

    def _own_groups(self, member: Member) -> dict[str, list[nn.Parameter]]:
        moves = member.record.moves if member.record else ()
        groups = parameter_groups(member.model, member.config, moves)
        return {str(group["name"]): group["params"] for group in groups}  # type: ignore[misc]

    def _groups(self) -> list[dict[str, object]]:
        """Return the optimiser's groups: the rows of all members that share a rate and a decay."""
        rates: dict[tuple[str, float, float], list[int]] = {}
        for row, member in enumerate(self.members):
            moves = member.record.moves if member.record else ()
            for group in parameter_groups(member.model, member.config, moves):
                key = (str(group["name"]), float(group["initial_lr"]), float(group["weight_decay"]))  # type: ignore[arg-type]
                rates.setdefault(key, []).append(row)
        return [
            {"params": self._rows(name, rows), "initial_lr": rate, "weight_decay": decay}
            for (name, rate, decay), rows in rates.items()
        ]

    def _rows(self, name: str, rows: Sequence[int]) -> list[nn.Parameter]:
        """Return rows of a group's values as parameters with gradients; all of them are one."""
        values, gradients = self.values[name], self._gradients[name]
        parts = [slice(None)] if len(rows) == len(values) else [slice(row, row + 1) for row in rows]
        made = []
        for part in parts:
            parameter = nn.Parameter(values[part])
            parameter.grad = gradients[part]
            made.append(parameter)
        return made


def train_array(
    members: Sequence[Member],
    *,
    split: Split,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    runs: Sequence[str] = (),
) -> list[list[Measurement] | Exception]:
    """Train runs together from their start to their end, and measure each on `split`.

    Returns what `train` returns or raises for each of them: measurements, DivergedError, PrunedError or
    FrozenMovedError. A run that ends early is computed on, unmeasured, beside the others.

    checkpoint: a file of just these runs, which is written at an evaluation if that many seconds have passed; training
    goes on from one that is there, and removes it at its end. runs: the members' ids, which it names. Raises InputError
    for a file that is damaged, and FaultError where the disk refuses one.
    """
    step_once, config = ArrayStep(members), members[0].config
    guards = [FrozenGuard(member.model, member.record) if member.record else None for member in members]
    so_far = _SoFar([Progress() for _ in members])
    if checkpoint is not None and checkpoint.exists():
        so_far = _read(checkpoint, step_once)
    evaluated_at, written = config.evaluated_at(), time.monotonic()
    with threads(config.threads):
        batches = [
            member.task.batches(
                member.seed, config.batch, split, start=step_once.steps, unit=config.batch_unit, workers=config.workers
            )
            for member in members
        ]
        while step_once.steps < config.steps and len(so_far.ended) < len(members):
            step, last = step_once.steps + 1, step_once.steps + 1 == config.steps
            check = step % config.log_every == 0 or last
            so_far.since_check.append(step_once([next(own) for own in batches], norms=check))
            losses = torch.stack(so_far.since_check).mean(dim=0).tolist() if check else []
            if check:
                so_far.since_check.clear()
            for row, member in enumerate(members):
                if row in so_far.ended:
                    continue
                progress = so_far.progress[row]
                progress.step = step
                try:
                    if check:
                        note_loss(member, progress, losses[row])
                    if step in evaluated_at:
                        _evaluate(member, progress, guards[row], split, last=last)
                except (DivergedError, PrunedError, FrozenMovedError) as error:
                    so_far.ended[row] = error
            alive = [loss for row, loss in enumerate(losses) if row not in so_far.ended]
            if alive and on_progress is not None:
                on_progress(step, sum(alive) / len(alive))
            due = step in evaluated_at and not last and time.monotonic() - written >= checkpoint_seconds
            if checkpoint is not None and due:
                try:
                    _write(checkpoint, step_once, so_far, runs)
                except OSError as error:
                    raise FaultError(
                        f"a checkpoint can't be written to {shown(checkpoint.parent)}: {error.strerror}."
                    ) from error
                written = time.monotonic()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return [so_far.ended.get(row, progress.found) for row, progress in enumerate(so_far.progress)]


@dataclass
class _SoFar:
    """Says how far the members of an array are."""

    progress: list[Progress]
    ended: dict[int, DivergedError | PrunedError | FrozenMovedError] = field(default_factory=dict)
    """Why members ended early, by their row."""
    since_check: list[Tensor] = field(default_factory=list)
    """Training losses [G] since the last row of training loss."""


def _write(path: Path, step: ArrayStep, so_far: _SoFar, runs: Sequence[str]) -> None:
    ended = {row: [type(error).__name__, getattr(error, "what", str(error))] for row, error in so_far.ended.items()}
    progress = [member.as_json() for member in so_far.progress]
    header = {"runs": list(runs), "steps": step.steps, "ended": ended, "progress": progress}
    since = {str(place): losses for place, losses in enumerate(so_far.since_check)}
    write_snapshot(path, header, values=step.values, optimiser=optimiser_state(step.optimiser), since=since)


def _error(kind: str, what: str, progress: Progress) -> DivergedError | PrunedError | FrozenMovedError:
    if kind == DivergedError.__name__:
        return DivergedError(what, progress.step, progress.found)
    return PrunedError(progress.step, progress.found) if kind == PrunedError.__name__ else FrozenMovedError(what)


def _read(path: Path, step: ArrayStep) -> _SoFar:
    """Bring an array back to what `_write` wrote of it."""
    snapshot = read_snapshot(path)
    for name, values in snapshot.part("values").items():
        step.values[name].copy_(values)
    restore_optimiser(step.optimiser, snapshot.part("optimiser"))
    step.steps = snapshot.header["steps"]
    so_far = _SoFar([Progress.from_json(content) for content in snapshot.header["progress"]])
    for row, (kind, what) in snapshot.header["ended"].items():
        so_far.ended[int(row)] = _error(kind, what, so_far.progress[int(row)])
    since = snapshot.part("since")
    so_far.since_check = [since[str(place)].to(step.device) for place in range(len(since))]
    return so_far


def _evaluate(member: Member, progress: Progress, guard: FrozenGuard | None, split: Split, *, last: bool) -> None:
    """Measure a member, check what is frozen in it, and ask whether it falls behind."""
    measure(member, progress, member.record, split, last=last)
    if guard:
        guard.check()
    if member.prune is not None and not last:
        ask_to_prune(member.prune, progress)


def _as_one_batch(batches: Sequence[Batch]) -> Batch:
    """Return the members' batches as one, filled up to the longest where sequences differ in length."""
    first = batches[0]

    def joined(tensors: Iterator[Tensor | None], padding: int) -> Tensor | None:
        parts = [tensor for tensor in tensors if tensor is not None]
        if not parts:
            return None
        longest = max(part.shape[1] for part in parts) if parts[0].dim() == 2 else 0
        return torch.cat(
            [nn.functional.pad(p, (0, longest - p.shape[1]), value=padding) if p.dim() == 2 else p for p in parts]
        )

    if any(len(batch) != len(first) for batch in batches):
        raise NotStackableError("batches of tokens differ in their number of examples")
    inputs = joined((batch.inputs for batch in batches), 0)
    targets = joined((batch.targets for batch in batches), IGNORED)
    assert inputs is not None
    assert targets is not None
    return Batch(
        inputs,
        targets,
        joined((batch.lengths for batch in batches), 0),
        joined((batch.source for batch in batches), 0),
        joined((batch.source_lengths for batch in batches), 0),
    )
