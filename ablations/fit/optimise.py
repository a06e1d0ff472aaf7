"""How a net is trained on pairs of inputs and values: Adam, the last layer solved for, L-BFGS; alone or many at once.

M nets, N inputs, O outputs.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.fit.lbfgs import lbfgs_together
from trans4init.ablations.nets import Net

__all__ = ["FitDivergedError", "OnStep", "Schedule", "adam_together", "train_net", "tune_net", "tune_together"]

_CHECKS = 30
"""Times that the loss of a fit is looked at and told."""

_ADAM_SHARE = 0.8
"""Of the seconds that a fit may take."""

OnStep = Callable[[int, float], None]
"""Called with the step and the loss: those of Adam first, then the evaluations of L-BFGS."""


class FitDivergedError(Exception):
    """The loss of a fit stopped being a number."""


@dataclass(frozen=True)
class Schedule:
    """How long a net is trained, and how fast."""

    steps: int
    """Of Adam."""
    budget: int
    """Evaluations of L-BFGS."""
    learning_rate: float
    target_error: float = 0.0
    """Stop where the largest error is no larger; 0 never stops."""
    seconds: float = math.inf
    """Cut both phases short; where this is finite, the bits depend on the machine's speed."""


def train_net(net: Net, points: Tensor, targets: Tensor, schedule: Schedule, on_step: OnStep | None = None) -> None:
    """Train on points [N] and targets [N, O], float64, until the schedule or the target error is reached."""
    start = time.perf_counter()
    if schedule.steps and _adam(net, points.float(), targets.float(), schedule, on_step):
        return
    tune_net(net, points, targets, schedule, on_step, start)


def tune_net(
    net: Net, points: Tensor, targets: Tensor, schedule: Schedule, on_step: OnStep | None = None, start: float = 0.0
) -> None:
    """What comes after Adam: the last layer's exact optimum, then L-BFGS on everything, in float64."""
    net.solve_output(points, targets)
    if schedule.budget and not _reached(net(points), targets, schedule.target_error):
        _refine(net, points, targets, schedule, on_step, start)


def _adam(net: Net, inputs: Tensor, values: Tensor, schedule: Schedule, on_step: OnStep | None) -> bool:
    """Whether the target was reached. The rate falls to 0 on a cosine, over the steps or over the time."""
    steps, start = schedule.steps, time.perf_counter()
    optimiser = torch.optim.Adam(net.parameters(), lr=schedule.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    check_every = max(1, steps // _CHECKS)
    for step in range(steps):
        result = net(inputs)
        loss = (result - values).square().mean()
        if step % check_every == 0 or step == steps - 1:
            _report(step, loss.item(), on_step)
            if _reached(result, values, schedule.target_error):
                return True
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cosine.step()
        if math.isfinite(schedule.seconds):
            gone = (time.perf_counter() - start) / (_ADAM_SHARE * schedule.seconds)
            if gone >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * _cosine(max(gone, (step + 1) / steps))
    return False


def adam_together(
    nets: Sequence[Net], points: Tensor, targets: Sequence[Tensor], schedule: Schedule, on_step: OnStep | None = None
) -> list[bool]:
    """Adam on M nets at once, one tensor program: each as if it were alone, up to rounding.

    The nets have one domain and number of outputs, and are of one size, or MLPs of one depth: narrower ones have
    units of weight 0, which stay there. points [N], targets M times [N, O]. Whether each net reached the target error;
    one that did keeps what it had then. A net whose loss is not a number is left with weights that are none.
    """
    base = nets[0].widest(nets)
    shapes = {name: value.shape for name, value in base.named_parameters()}
    stacked = {
        name: nn.Parameter(torch.stack([_padded(net.get_parameter(name).detach(), shape) for net in nets]))
        for name, shape in shapes.items()
    }
    fixed = {name: torch.stack([net.get_buffer(name) for net in nets]) for name, _ in base.named_buffers()}
    values = torch.stack(list(targets)).to(points.dtype)  # [M, N, O]
    optimiser = torch.optim.Adam(stacked.values(), lr=schedule.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.steps)
    check_every = max(1, schedule.steps // _CHECKS)
    done = [False] * len(nets)
    for step in range(schedule.steps):
        result = base.stacked({**stacked, **fixed}, points)  # [M, N, O]
        losses = (result - values).square().mean(dim=(1, 2))
        if step % check_every == 0 or step == schedule.steps - 1:
            if on_step is not None:
                on_step(step, losses.detach().mean().item())
            worst = (result.detach() - values).abs().amax(dim=(1, 2))
            for index in (worst <= schedule.target_error).nonzero()[:, 0].tolist() if schedule.target_error else ():
                if not done[index]:
                    done[index] = True
                    _unstack(nets[index], stacked, index)
            if all(done):
                break
        optimiser.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cosine.step()
    for index, net in enumerate(nets):
        if not done[index]:
            _unstack(net, stacked, index)
    return done


def tune_together(nets: Sequence[Net], points: Tensor, targets: Sequence[Tensor], schedule: Schedule) -> None:
    """`tune_net` on M nets at once, as `adam_together` takes them; points [N] and targets [N, O] in float64."""
    for net, values in zip(nets, targets, strict=True):
        net.solve_output(points, values)
    if not schedule.budget:
        return
    base, kept = nets[0].widest(nets), [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    before = [_loss(net(points), values).item() for net, values in zip(nets, targets, strict=True)]
    shapes = {name: value.shape for name, value in base.named_parameters()}
    fixed = {name: torch.stack([net.get_buffer(name) for net in nets]) for name, _ in base.named_buffers()}
    values = torch.stack(list(targets))  # [M, N, O]
    scale = values.square().mean(dim=(1, 2)).clamp_min(1e-300)

    def stacked(flat: Tensor) -> dict[str, Tensor]:
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()], dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def evaluate(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = flat.detach().requires_grad_()
        result = base.stacked({**stacked(flat), **fixed}, points)  # [M, N, O]
        losses = (result - values).square().mean(dim=(1, 2)) / scale
        [gradient] = torch.autograd.grad(losses.sum(), flat)
        worst = (result.detach() - values).abs().amax(dim=(1, 2))
        return losses.detach(), gradient, (worst <= schedule.target_error) & (schedule.target_error > 0)

    start = [
        torch.cat([_padded(net.get_parameter(name).detach(), shape).flatten() for name, shape in shapes.items()])
        for net in nets
    ]
    found = stacked(lbfgs_together(evaluate, torch.stack(start).double(), schedule.budget))
    for index, net in enumerate(nets):
        _unstack(net, found, index)
        if not _loss(net(points), targets[index]).item() < before[index]:
            net.load_state_dict(kept[index])


def _padded(value: Tensor, shape: torch.Size) -> Tensor:
    """A tensor with zeros behind it in every dimension, up to the shape."""
    behind = [wanted - had for wanted, had in zip(shape, value.shape, strict=True)]
    return F.pad(value, [part for count in reversed(behind) for part in (0, count)])


@torch.no_grad()
def _unstack(net: Net, stacked: Mapping[str, Tensor], index: int) -> None:
    for name, value in net.named_parameters():
        value.copy_(stacked[name][index][tuple(slice(size) for size in value.shape)])


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _reached(result: Tensor, targets: Tensor, target_error: float) -> bool:
    return target_error > 0 and (result.detach() - targets).abs().max().item() <= target_error


class _EnoughError(Exception):
    """L-BFGS has reached the target error, or the time is over."""


def _refine(
    net: Net, points: Tensor, targets: Tensor, schedule: Schedule, on_step: OnStep | None, start: float
) -> None:
    """L-BFGS with a strong Wolfe line search; what it makes worse is undone."""
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    before = _loss(net(points), targets).item()
    net.double()
    scale = targets.square().mean().clamp_min(1e-300)
    optimiser = torch.optim.LBFGS(
        net.parameters(),
        max_iter=schedule.budget,
        max_eval=schedule.budget,
        history_size=50,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    evaluations, check_every = 0, max(1, schedule.budget // _CHECKS)

    def closure() -> Tensor:
        nonlocal evaluations
        optimiser.zero_grad()
        result = net(points)
        loss = _loss(result, targets)
        if on_step is not None and evaluations % check_every == 0:
            on_step(schedule.steps + min(evaluations, schedule.budget - 1), loss.item())
        evaluations += 1
        if _reached(result, targets, schedule.target_error) or time.perf_counter() - start > schedule.seconds:
            raise _EnoughError
        value = loss / scale
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with contextlib.suppress(_EnoughError):  # the weights are then those that were evaluated last
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    net.float()
    net.zero_grad()
    if not _loss(net(points), targets).item() < before:
        net.load_state_dict(kept)


def _loss(result: Tensor, targets: Tensor) -> Tensor:
    return (result - targets).square().mean()


def _report(step: int, loss: float, on_step: OnStep | None) -> None:
    if not math.isfinite(loss):
        raise FitDivergedError(f"the loss of the fit is {loss} at step {step}")
    if on_step is not None:
        on_step(step, loss)
