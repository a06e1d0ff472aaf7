"""L-BFGS on many problems at once: each has its own history, step length and line search, all share every evaluation.

M problems, P unknowns each (zeros where one has fewer), m remembered steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["lbfgs_together"]

_MEMORY = 50
"""Steps remembered, m."""
_DECREASE, _CURVATURE = 1e-4, 0.9
"""Of the weak Wolfe conditions (Nocedal and Wright 2006, equation 3.6)."""
_TRIALS = 25
"""Step lengths tried along one direction."""

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""From unknowns [M, P] to values [M], gradients [M, P], and which are good enough [M]."""


@dataclass
class _History:
    """The last steps and changes of the gradient, rings of m a problem."""

    steps: Tensor  # [m, M, P]
    changes: Tensor  # [m, M, P]
    inverse: Tensor  # [m, M]: 1 / (step · change), 0 where there is none
    scale: Tensor  # [M]
    place: Tensor  # [M]: where the next one goes

    @classmethod
    def empty(cls, start: Tensor, memory: int) -> "_History":
        """Of no steps."""
        many, size = start.shape
        return cls(
            start.new_zeros(memory, many, size),
            start.new_zeros(memory, many, size),
            start.new_zeros(memory, many),
            start.new_ones(many),
            torch.zeros(many, dtype=torch.long),
        )

    def add(self, which: Tensor, step: Tensor, change: Tensor) -> None:
        """Remember a step of the problems `which`; none that curves downwards."""
        curvature = _dot(step, change)
        which = (which & (curvature > 1e-300)).nonzero()[:, 0]
        place = self.place[which]
        self.steps[place, which], self.changes[place, which] = step[which], change[which]
        self.inverse[place, which] = 1 / curvature[which]
        self.scale[which] = curvature[which] / _dot(change, change)[which]
        self.place[which] = (place + 1) % len(self.steps)

    def forget(self, which: Tensor) -> None:
        """Start anew with the problems `which`."""
        self.inverse[:, which], self.scale[which] = 0.0, 1.0

    def direction(self, gradient: Tensor) -> Tensor:
        """−H g by the two loops (Nocedal and Wright 2006, algorithm 7.4), [M, P]."""
        every, shares, turned = torch.arange(len(gradient)), [], gradient
        newest_first = [(self.place - 1 - age) % len(self.steps) for age in range(len(self.steps))]
        used = [at for at in newest_first if bool(self.inverse[at, every].any())]
        for at in used:
            shares.append(self.inverse[at, every] * _dot(self.steps[at, every], turned))
            turned = turned - shares[-1][:, None] * self.changes[at, every]
        turned = turned * self.scale[:, None]
        for at, share in zip(reversed(used), reversed(shares), strict=True):
            back = self.inverse[at, every] * _dot(self.changes[at, every], turned)
            turned = turned + (share - back)[:, None] * self.steps[at, every]
        return -turned


def lbfgs_together(evaluate: Evaluate, start: Tensor, budget: int, *, memory: int = _MEMORY) -> Tensor:
    """Minimise M functions from start [M, P], float64, in at most `budget` evaluations of all; the best points.

    Each evaluation moves every problem on: to another step length on its line, or, where the weak Wolfe conditions
    hold, to its next direction. Step lengths are doubled until one is too long, then interpolated. A problem is done
    where it is good enough, or where even the steepest descent finds nothing better; a value that is no number is too
    high a one. What a problem gets does not depend on the others, up to rounding.
    """
    point = start.clone()
    value, gradient, done = evaluate(point)
    done = done | ~value.isfinite()
    history = _History.empty(start, min(memory, max(1, budget)))
    direction, length = -gradient, 1 / gradient.abs().sum(1).clamp_min(1.0)
    low, high = torch.zeros_like(value), torch.full_like(value, math.inf)
    trials, steepest = torch.zeros_like(value), torch.ones_like(done)
    for _ in range(budget - 1):
        if bool(done.all()):
            break
        moved = point + length[:, None] * direction
        there, slope_there, enough = evaluate(moved)
        fall, fall_there = _dot(gradient, direction), _dot(slope_there, direction)
        too_high = ~(there <= value + _DECREASE * length * fall)
        too_short = ~too_high & (fall_there < _CURVATURE * fall)
        trials = trials + 1
        spent = trials >= _TRIALS
        taken = ~done & ~too_high & (~too_short | spent | enough)
        history.add(taken, moved - point, slope_there - gradient)
        point = torch.where(taken[:, None], moved, point)
        value = torch.where(taken, there, value)
        gradient = torch.where(taken[:, None], slope_there, gradient)
        stuck = ~taken & spent
        done = done | (taken & enough) | (stuck & steepest)
        history.forget(stuck)

        low, high = torch.where(too_short, length, low), torch.where(too_high, length, high)
        length = torch.where(high < math.inf, _between(low, high, length, value, there, fall), 2 * length)
        fresh = taken | stuck
        if bool(fresh.any()):
            turned = history.direction(gradient)
            up = ~(_dot(turned, gradient) < 0) | ~history.inverse.any(0)
            steepest = torch.where(fresh, up, steepest)
            turned = torch.where(up[:, None], -gradient, turned)
            first = torch.where(up, 1 / gradient.abs().sum(1).clamp_min(1.0), 1.0)
            direction = torch.where(fresh[:, None], turned, direction)
            length = torch.where(fresh, first, length)
            low, high = torch.where(fresh, 0.0, low), torch.where(fresh, math.inf, high)
            trials = torch.where(fresh, 0.0, trials)
    return point


def _between(low: Tensor, high: Tensor, length: Tensor, value: Tensor, there: Tensor, fall: Tensor) -> Tensor:
    """The next length to try: the parabola's least where only a first one was too long, else the middle."""
    parabola = -fall * length.square() / (2 * (there - value - fall * length))
    first = (low == 0) & (length == high) & parabola.isfinite()
    return torch.where(first, parabola.clamp(min=0.1 * high, max=0.5 * high), (low + high) / 2)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1)
