"""L-BFGS on many problems at once: each has its own history, step length and line search; all share the evaluations.

M problems, P unknowns each (padded with zeros where a problem has fewer), m remembered steps.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["lbfgs"]

_MEMORY = 50
"""How many steps are remembered, m: time and memory of a direction grow with it."""
_DECREASE, _CURVATURE = 1e-4, 0.9
"""The constants c1 and c2 of the weak Wolfe conditions (Nocedal and Wright 2006, equation 3.6)."""
_TRIALS = 25
"""How many step lengths are tried along one direction before it is given up."""

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Maps unknowns [M, P] to values [M], gradients [M, P], and which problems are good enough [M]."""


@dataclass
class _History:
    """Remembers the last steps and changes of the gradient, in a ring buffer of m for each problem."""

    steps: Tensor  # [m, M, P]
    changes: Tensor  # [m, M, P]
    inverse: Tensor  # [m, M]: 1 / (step · change), 0 in an empty place
    scale: Tensor  # [M]
    place: Tensor  # [M]: where the next one goes

    @classmethod
    def empty(cls, start: Tensor, memory: int) -> "_History":
        """Make a history without steps."""
        many, size = start.shape
        return cls(
            start.new_zeros(memory, many, size),
            start.new_zeros(memory, many, size),
            start.new_zeros(memory, many),
            start.new_ones(many),
            torch.zeros(many, dtype=torch.long),
        )

    def add(self, which: Tensor, step: Tensor, change: Tensor) -> None:
        """Remember a step of the problems `which`, except where it curves downwards."""
        curvature = _dot(step, change)
        which = (which & (curvature > 1e-300)).nonzero()[:, 0]
        place = self.place[which]
        self.steps[place, which], self.changes[place, which] = step[which], change[which]
        self.inverse[place, which] = 1 / curvature[which]
        self.scale[which] = curvature[which] / _dot(change, change)[which]
        self.place[which] = (place + 1) % len(self.steps)

    def forget(self, which: Tensor) -> None:
        """Forget all steps of the problems `which`."""
        self.inverse[:, which], self.scale[which] = 0.0, 1.0

    def direction(self, gradient: Tensor) -> Tensor:
        """Compute −H g by the two loops (Nocedal and Wright 2006, algorithm 7.4), [M, P]."""
        problems, memory = torch.arange(len(gradient)), len(self.steps)
        newest_first = (self.place - 1 - torch.arange(memory)[:, None]) % memory  # [m, M]
        inverse = self.inverse[newest_first, problems]
        used = int(inverse.any(1).sum())  # remembered steps come before free places
        newest_first, inverse = newest_first[:used], inverse[:used]
        steps, changes = self.steps[newest_first, problems], self.changes[newest_first, problems]
        shares, turned = [], gradient
        for age in range(used):
            shares.append(inverse[age] * _dot(steps[age], turned))
            turned = torch.addcmul(turned, shares[-1][:, None], changes[age], value=-1)
        turned = turned * self.scale[:, None]
        for age in reversed(range(used)):
            back = inverse[age] * _dot(changes[age], turned)
            turned = torch.addcmul(turned, (shares[age] - back)[:, None], steps[age])
        return -turned


def lbfgs(evaluate: Evaluate, start: Tensor, budget: int, *, memory: int = _MEMORY, until: float = math.inf) -> Tensor:
    """Minimise M functions from start [M, P], float64, in at most `budget` evaluations of all; return the best points.

    Each evaluation moves every problem on: to another step length on its line, or, where the weak Wolfe conditions
    hold, to its next direction. Step lengths are doubled until one is too long, then interpolated. A problem is done
    where it is good enough, or where even steepest descent finds nothing better; a NaN counts as too high a value. What
    a problem gets does not depend on the others, up to rounding. until: the `time.perf_counter()` to stop at.
    """
    point = start.clone()
    value, gradient, done = evaluate(point)
    done = done | ~value.isfinite()
    history = _History.empty(start, min(memory, max(1, budget)))
    direction, length = -gradient, 1 / gradient.abs().sum(1).clamp_min(1.0)
    low, high = torch.zeros_like(value), torch.full_like(value, math.inf)
    trials, steepest = torch.zeros_like(value), torch.ones_like(done)
    for _ in range(budget - 1):
        if bool(done.all()) or time.perf_counter() >= until:
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
    """Return the next step length: the minimum of a parabola if only a first length was too long, else the middle."""
    parabola = -fall * length.square() / (2 * (there - value - fall * length))
    first = (low == 0) & (length == high) & parabola.isfinite()
    return torch.where(first, parabola.clamp(min=0.1 * high, max=0.5 * high), (low + high) / 2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    products: Tensor = torch.linalg.vecdot(a, b)
    return products
