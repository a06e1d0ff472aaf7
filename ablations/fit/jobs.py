"""Fit one net or many: train each on its function alone, and measure how well it stands in for it."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trans4init.ablations.device import threads
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit.fidelity import measure
from trans4init.ablations.fit.fitted import Fitted
from trans4init.ablations.fit.optimise import FitDivergedError, OnStep, Schedule, adam, refine
from trans4init.ablations.functions import Domain, Function, get_function
from trans4init.ablations.functions.tails import tails_of
from trans4init.ablations.nets import build_net
from trans4init.ablations.nets.base import Placed
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.settings.numbers import LARGEST_SEED
from trans4init.ablations.slots.contents import NetContent

__all__ = ["Wanted", "fit", "fit_many", "refinement_budget"]

DEFAULT_STEPS = 3000
"""Steps of Adam that `fit` takes unless told otherwise."""
DEFAULT_LEARNING_RATE = 1e-2
_REPRESENTATIVES = 2048
"""A density is reduced to this many quantiles: more cost time at every step."""
_TOGETHER = 16
"""How many nets are trained as one tensor program at most: more take more memory, and their padding more time."""


@dataclass(frozen=True)
class Wanted:
    """Asks for one of many fits: the arguments of `fit` that may differ between them."""

    function: str
    net: str
    size: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    domain: Domain | None = None
    shape: Mapping[str, int] = field(default_factory=dict)


def fit(
    function: str,
    net: str,
    *,
    seed: int = 0,
    domain: Domain | None = None,
    density: Tensor | None = None,
    size: Mapping[str, Any] | None = None,
    steps: int = DEFAULT_STEPS,
    budget: int | None = None,
    seconds: float = math.inf,
    target_error: float = 0.0,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    on_step: OnStep | None = None,
    **shape: int,
) -> Fitted:
    """Fit the net called `net` to the function called `function` on `domain`, by default the function's own.

    A net that can be set from the data starts there, and is not trained where that is its optimum. Otherwise Adam
    minimises the mean square error over the whole domain, with a rate that falls to 0 on a cosine; then the last layer
    is solved for by least squares, and L-BFGS refines all parameters, in float64. A function whose values matter by
    their ratios is fitted in their logarithm. The same seed gives the same bits on the same machine.

    density: inputs [N] that a slot was given, at which the error counts in place of evenly spaced inputs. size: the
    net's size, such as `{"hidden": (64,)}`. steps: of Adam. budget: evaluations of L-BFGS, by default a tenth of the
    steps. seconds: the time to stop after; the bits then depend on the machine. target_error: training stops once the
    largest error (of the logarithm where that is fitted) is no larger. shape: the function's, such as `width=128`.
    on_step: called now and then with the step and the loss: Adam's steps, then L-BFGS's evaluations.
    Raises InputError for unknown names, shapes and sizes, and FitDivergedError where the loss becomes NaN or infinite.
    """
    schedule = _schedule(steps, budget, seconds, target_error, learning_rate)
    with _as_anywhere():
        job = _Job(Wanted(function, net, size or {}, seed, domain, shape))
        job.place()
        if density is not None:
            job.aim_at(density)
        _train([job], schedule, on_step)
        if job.diverged is not None:
            raise job.diverged
        return job.finished(density)


def fit_many(
    wanted: Sequence[Wanted],
    *,
    steps: int = DEFAULT_STEPS,
    budget: int | None = None,
    target_error: float = 0.0,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    on_step: OnStep | None = None,
) -> Iterator[tuple[int, Fitted | FitDivergedError]]:
    """Fit many nets, each as `fit` would: those that are alike are trained together, as one tensor program.

    Nets of one kind on the same points with as many outputs are alike: they may differ in seed, function, and, where
    they are MLPs, width. Yields the index in `wanted` and the fitted net, or the error of a fit that diverged, in the
    order in which they are done. `on_step` is called as by `fit`, by each group of nets, with their mean loss. Raises
    InputError as `fit` does, before anything is fitted.
    """
    schedule = _schedule(steps, budget, math.inf, target_error, learning_rate)
    alike: dict[tuple[object, ...], list[int]] = {}
    with _as_anywhere():
        for index, single in enumerate(wanted):
            alike.setdefault(_Job(single).alike(), []).append(index)
    for indices in alike.values():
        for first in range(0, len(indices), _TOGETHER):
            group = indices[first : first + _TOGETHER]
            with _as_anywhere():
                outcomes = _fit_alike([_Job(wanted[index]) for index in group], schedule, on_step)
            yield from zip(group, outcomes, strict=True)


@contextmanager
def _as_anywhere() -> Iterator[None]:
    """Fit the same bits whatever the caller has set: gradients on, no autocast, and sums in the order of one thread."""
    with threads(1), torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        yield


def _fit_alike(jobs: list["_Job"], schedule: Schedule, on_step: OnStep | None) -> list[Fitted | FitDivergedError]:
    for job in jobs:
        job.place()
    _train(jobs, schedule, on_step)
    return [job.diverged or job.finished() for job in jobs]


def _train(jobs: list["_Job"], schedule: Schedule, on_step: OnStep | None = None) -> None:
    """Train jobs that are alike: by Adam those whose nets start anywhere, then refine these and those that were placed.

    Each job counts an equal share of the time. One that diverges has its error as `diverged`.
    """
    if all(job.placed == "best" for job in jobs):
        return
    points, start = jobs[0].pairs[0], time.perf_counter()
    drawn = [job for job in jobs if job.placed == "no"]
    refined = [job for job in jobs if job.placed == "start"]
    if drawn:
        targets = [job.pairs[1].float() for job in drawn]
        outcomes = adam([job.net for job in drawn], points.float(), targets, schedule, on_step)
        for job, outcome in zip(drawn, outcomes, strict=True):
            if isinstance(outcome, FitDivergedError):
                job.diverged = outcome
            elif not all(bool(value.isfinite().all()) for value in job.net.parameters()):
                job.diverged = FitDivergedError("the weights of the fit are NaN or infinite after Adam")
            elif not outcome:
                refined.append(job)
    if refined:
        nets, targets = [job.net for job in refined], [job.pairs[1] for job in refined]
        schedule = schedule if drawn else replace(schedule, steps=0)
        refine(nets, points, targets, schedule, on_step, until=start + schedule.seconds)
    for job in jobs:
        job.seconds += (time.perf_counter() - start) / len(jobs)


class _Job:
    """Carries on a fit, step by step. Raises InputError for what can't be fitted."""

    def __init__(self, wanted: Wanted) -> None:
        if not 0 <= wanted.seed <= LARGEST_SEED:
            raise InputError(f"a seed is from 0 to {LARGEST_SEED}, and {wanted.seed} was given.")
        self.function = get_function(wanted.function)
        self.shape = {**self.function.default_shape, **wanted.shape}
        self.domain = self.function.domain if wanted.domain is None else wanted.domain
        self.seed = wanted.seed
        _check_fittable(self.function)
        self.net = build_net(wanted.net, self.domain, self.function.outputs(**self.shape), **wanted.size)
        NetContent(self.function, self.shape, self.net)  # refuses a net that doesn't fit the function
        self.net.initialise(keyed_generator(wanted.seed, "fit", wanted.function, wanted.net))
        self.placed: Placed = "no"
        self.seconds = 0.0
        self.diverged: FitDivergedError | None = None
        self._points = self.function.points(self.domain, self.net.points_wanted(), **self.shape)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Points [N] and the values that the net should have there, [N, outputs], float64."""
        rows = self.function.as_rows(self.function.analytic(self._points, **self.shape))
        return self._points, rows.log() if self.function.log_values else rows

    def alike(self) -> tuple[object, ...]:
        """Return what two fits must share to be trained together."""
        return *self.net.alike(), self._points.shape, self._points.numpy().tobytes()

    def place(self) -> None:
        """Set the net from the data where it knows how."""
        start = time.perf_counter()
        self.placed = self.net.place(*self.pairs)
        self.seconds += time.perf_counter() - start

    def aim_at(self, density: Tensor) -> None:
        """Fit at the inputs that a slot was given, in place of evenly spaced ones."""
        finite = bool(density.isfinite().all())
        if self.domain.integer or self.function.takes != "numbers" or density.numel() < 2 or not finite:
            raise InputError(
                "a density is at least two finite inputs of a function on the reals; positions are all equal."
            )
        low, high = self.function.support
        if not low <= density.min().item() <= density.max().item() <= high:
            raise InputError(
                f"{self.function.located} is defined on {low:g}..{high:g}, and the density reaches from "
                f"{density.min().item():g} to {density.max().item():g}."
            )
        del self.pairs
        tails = tails_of(self.function, self.domain, self.shape)
        points = _representative(density)
        self._points = points if tails is None else points.clamp(tails.low, tails.high)
        self.placed = "start" if self.placed == "start" else "no"

    def finished(self, density: Tensor | None = None) -> Fitted:
        """Measure the net."""
        content = NetContent(self.function, self.shape, self.net)
        fidelity = measure(content, self.domain, density, self.seconds)
        return Fitted(self.function, self.shape, self.net, self.seed, fidelity)


def refinement_budget(steps: int) -> int:
    """Return the default number of evaluations of L-BFGS after so many steps of Adam."""
    return steps // 10


def _schedule(steps: int, budget: int | None, seconds: float, target_error: float, learning_rate: float) -> Schedule:
    if steps < 1:
        raise InputError(f"a fit takes at least 1 step, and {steps} was given.")
    if budget is not None and budget < 0:
        raise InputError(f"a budget is a number of evaluations, 0 or more, and {budget} was given.")
    if not seconds > 0:
        raise InputError(f"a fit takes more than 0 seconds, and {seconds:g} was given.")
    if not target_error >= 0:
        raise InputError(f"a target error is 0 or more, and {target_error:g} was given.")
    if not 0 < learning_rate <= math.inf:
        raise InputError(f"a learning rate is more than 0, and {learning_rate:g} was given.")
    budget = refinement_budget(steps) if budget is None else budget
    return Schedule(steps, budget, learning_rate, target_error, seconds)


def _check_fittable(function: Function) -> None:
    name = function.located
    if function.fittable():
        return
    if function.approximates:
        raise InputError(
            f"{name} is itself an approximation of {function.approximates} and isn't fitted; "
            f"its errors are measured by: trans4init fit {function.approximates} --all"
        )
    raise InputError(f"{name} can't be fitted: {function.tails or 'it has no closed form'}.")


def _representative(density: Tensor) -> Tensor:
    """Return at most _REPRESENTATIVES quantiles of the inputs, ascending, float64."""
    ordered = density.detach().double().flatten().sort().values
    places = (
        torch.linspace(0, len(ordered) - 1, min(len(ordered), _REPRESENTATIVES), dtype=torch.float64).round().long()
    )
    return ordered[places]
