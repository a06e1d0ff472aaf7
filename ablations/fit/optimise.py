"""How nets are trained on pairs of inputs and values: Adam, then least squares for the last layer and L-BFGS.

A single net is trained as many nets are: as one tensor program. M nets, N inputs, O outputs.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.fit.lbfgs import lbfgs
from trans4init.ablations.nets import Net

__all__ = ["FitDivergedError", "OnStep", "Schedule", "adam", "refine"]

_CHECKS = 30
"""How often in each phase the loss is checked and reported. More checks cost time: each waits for the result."""

_ADAM_SHARE = 0.8
"""Adam's share of the seconds that a fit may take; L-BFGS gets the rest."""

OnStep = Callable[[int, float], None]
"""Called with the step and the loss, the mean over nets: Adam's steps first, then the evaluations of L-BFGS."""


class FitDivergedError(Exception):
    """Raised where the loss of a fit became NaN or infinite."""


@dataclass(frozen=True)
class Schedule:
    """Says how long nets are trained, and how fast."""

    steps: int
    """Steps of Adam."""
    budget: int
    """Evaluations of the loss by L-BFGS."""
    learning_rate: float
    target_error: float = 0.0
    """A net is done where its largest error is no larger; 0 never stops one."""
    seconds: float = math.inf
    """Cuts both phases short; where this is finite, the bits depend on the machine's speed."""


def adam(
    nets: Sequence[Net], points: Tensor, targets: Sequence[Tensor], schedule: Schedule, on_step: OnStep | None = None
) -> list[bool | FitDivergedError]:
    """Train M nets by Adam, each as if it were alone, up to rounding; the rate falls to 0 on a cosine.

    The nets have one domain and number of outputs, and are of one size, or MLPs of one depth: narrower ones are padded
    with units of weight 0, which stay 0. points [N], targets M times [N, O]. Returns for each net whether it reached
    the target error, in which case it keeps what it had then, or the error if its loss became NaN or infinite.
    """
    base, fixed = _frame(nets)
    stacked = {name: nn.Parameter(value) for name, value in _stack(base, nets).items()}
    values = torch.stack(list(targets)).to(points.dtype)  # [M, N, O]
    optimiser = torch.optim.Adam(stacked.values(), lr=schedule.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.steps)
    check_every, start = max(1, schedule.steps // _CHECKS), time.perf_counter()
    outcomes: list[bool | FitDivergedError] = [False] * len(nets)
    for step in range(schedule.steps):
        result = base.stacked({**stacked, **fixed}, points)  # [M, N, O]
        losses = (result - values).square().flatten(1).mean(1)
        if step % check_every == 0 or step == schedule.steps - 1:
            reached = _reached(result, values, schedule).tolist()
            for index, loss in enumerate(losses.tolist()):
                if outcomes[index] is False and not math.isfinite(loss):
                    outcomes[index] = FitDivergedError(f"the loss of the fit is {loss} at step {step}")
                elif outcomes[index] is False and reached[index]:
                    outcomes[index] = True
                    _unstack(nets[index], stacked, index)
            finite = losses.detach()[losses.isfinite()]
            if on_step is not None and len(finite):
                on_step(step, finite.mean().item())
            if all(outcomes):  # an error counts as true
                break
        optimiser.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cosine.step()
        if math.isfinite(schedule.seconds):
            elapsed = (time.perf_counter() - start) / (_ADAM_SHARE * schedule.seconds)
            if elapsed >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * _cosine(max(elapsed, (step + 1) / schedule.steps))
    for index, net in enumerate(nets):
        if outcomes[index] is not True:
            _unstack(net, stacked, index)
    return outcomes


def refine(
    nets: Sequence[Net],
    points: Tensor,
    targets: Sequence[Tensor],
    schedule: Schedule,
    on_step: OnStep | None = None,
    *,
    until: float | None = None,
) -> None:
    """Do what comes after Adam: the last layers' least squares, then L-BFGS on everything, in float64.

    nets: as of `adam`; points [N] and targets M times [N, O], float64. until: the `time.perf_counter()` to stop at;
    `schedule.seconds` from now where None. A net that L-BFGS would make worse is left as the least squares made it.
    """
    until = time.perf_counter() + schedule.seconds if until is None else until
    for net, rows in zip(nets, targets, strict=True):
        net.solve_output(points, rows)
    if not schedule.budget:
        return
    base, fixed = _frame(nets)
    solved = [{name: value.clone() for name, value in net.state_dict().items()} for net in nets]
    solved_losses = [_loss(net, points, rows) for net, rows in zip(nets, targets, strict=True)]
    start = _stack(base, nets)
    values = torch.stack(list(targets))  # [M, N, O]
    scale = values.square().flatten(1).mean(1).clamp_min(1e-300)
    evaluations, check_every = 0, max(1, schedule.budget // _CHECKS)

    def unflattened(flat: Tensor) -> dict[str, Tensor]:
        parts = torch.split(flat, [value[0].numel() for value in start.values()], dim=1)
        return {name: part.view_as(value) for (name, value), part in zip(start.items(), parts, strict=True)}

    def evaluate(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal evaluations
        flat = flat.detach().requires_grad_()
        result = base.stacked({**unflattened(flat), **fixed}, points)  # [M, N, O]
        losses = (result - values).square().flatten(1).mean(1) / scale
        [gradient] = torch.autograd.grad(losses.sum(), flat)
        if on_step is not None and evaluations % check_every == 0:
            on_step(schedule.steps + evaluations, (losses.detach() * scale).mean().item())
        evaluations += 1
        return losses.detach(), gradient, _reached(result, values, schedule)

    flat = torch.cat([value.flatten(1) for value in start.values()], dim=1).double()  # [M, P]
    refined = unflattened(lbfgs(evaluate, flat, schedule.budget, until=until))
    for index, (net, rows) in enumerate(zip(nets, targets, strict=True)):
        _unstack(net, refined, index)
        if not _loss(net, points, rows) < solved_losses[index]:
            net.load_state_dict(solved[index])


def _frame(nets: Sequence[Net]) -> tuple[Net, dict[str, Tensor]]:
    """Return a net that all of `nets` fit into, and their buffers, stacked."""
    base = nets[0].widest(nets)
    return base, {name: torch.stack([net.get_buffer(name) for net in nets]) for name, _ in base.named_buffers()}


def _stack(base: Net, nets: Sequence[Net]) -> dict[str, Tensor]:
    """Return each parameter of all nets, [M, ...], with zeros behind the values of narrower nets."""
    return {
        name: torch.stack([_padded(net.get_parameter(name).detach(), value.shape) for net in nets])
        for name, value in base.named_parameters()
    }


def _padded(value: Tensor, shape: torch.Size) -> Tensor:
    """Put zeros behind a tensor in every dimension, up to the shape."""
    behind = [wanted - size for wanted, size in zip(shape, value.shape, strict=True)]
    return F.pad(value, [part for count in reversed(behind) for part in (0, count)])


@torch.no_grad()
def _unstack(net: Net, stacked: Mapping[str, Tensor], index: int) -> None:
    for name, value in net.named_parameters():
        value.copy_(stacked[name][index][tuple(slice(size) for size in value.shape)])


def _reached(result: Tensor, values: Tensor, schedule: Schedule) -> Tensor:
    """Return which nets' largest errors are within the target, [M]; none where there is no target."""
    worst = (result.detach() - values).abs().flatten(1).amax(1)
    return (worst <= schedule.target_error) & (schedule.target_error > 0)


@torch.no_grad()
def _loss(net: Net, points: Tensor, rows: Tensor) -> float:
    return float((net(points) - rows).square().mean())


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
