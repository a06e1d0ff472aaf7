"""Fit: train a net on its function alone, measure how well it stands in for it, keep it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trans4init.ablations.device import threads
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit.fidelity import measure
from trans4init.ablations.fit.fitted import Fitted
from trans4init.ablations.fit.optimise import (
    FitDivergedError,
    OnStep,
    Schedule,
    adam_together,
    train_net,
    tune_together,
)
from trans4init.ablations.functions import Domain, Function, get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.nets.base import Placed
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots.contents import NetContent

__all__ = ["Wanted", "fit", "fit_many", "refinement_budget"]

DEFAULT_STEPS = 3000
DEFAULT_LEARNING_RATE = 1e-2
_REPRESENTATIVES = 2048
"""Inputs that stand for a density."""
_TOGETHER = 16
"""Nets that are trained as one tensor program at most."""


@dataclass(frozen=True)
class Wanted:
    """One of many fits, in the words of `fit`."""

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

    A net that can be placed from the data starts there, and is done where nothing can be better. Otherwise Adam on
    the mean square error over the whole domain, its rate falling to 0 on a cosine; then the exact least-squares
    optimum of the last layer, and L-BFGS on everything, in float64. A function whose values matter by their ratios is
    fitted in their logarithm. The same seed gives the same bits on the same machine.

    density: inputs [N] that a slot was really given; the error counts where they are, not evenly. size: the net's
    size, such as `{"hidden": (64,)}`. steps: of Adam. budget: evaluations of L-BFGS, a tenth of the steps unless
    given. seconds: after so many, stop; the bits then depend on the machine. target_error: stop training where the
    largest error is no larger; of the logarithm where that is fitted. shape: the function's, such as `width=128`.
    on_step: called now and then with the step and the loss: Adam's steps, then L-BFGS's evaluations.
    Raises InputError for names, shapes and sizes there aren't; FitDivergedError where the loss is not a number.
    """
    schedule = _schedule(steps, budget, seconds, target_error, learning_rate)
    job = _Job(Wanted(function, net, size or {}, seed, domain, shape))
    with threads(1):  # sums are added up in the same order everywhere
        job.place()
        if density is not None:
            job.aim_at(density)
        if job.placed != "best":
            job.timed(lambda: train_net(job.net, *job.pairs, job.scheduled(schedule), on_step))
        return job.finished(density)


def fit_many(
    wanted: Sequence[Wanted],
    *,
    steps: int = DEFAULT_STEPS,
    budget: int | None = None,
    target_error: float = 0.0,
    learning_rate: float = DEFAULT_LEARNING_RATE,
) -> Iterator[tuple[int, Fitted | FitDivergedError]]:
    """Many fits, each as `fit` would do it: those that are alike together, as one tensor program, Adam and L-BFGS both.

    Alike are nets of one kind on the same points with as many outputs: seeds, functions, and MLPs of different widths.
    Yields the place in `wanted` with what came of it, in the order in which they are done. Raises as `fit`, before
    anything is fitted, but for a fit that diverges: that is yielded.
    """
    schedule = _schedule(steps, budget, math.inf, target_error, learning_rate)
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, one in enumerate(wanted):
        alike.setdefault(_Job(one).alike(), []).append(index)
    for indices in alike.values():
        for first in range(0, len(indices), _TOGETHER):
            some = indices[first : first + _TOGETHER]
            with threads(1):
                found = _fit_alike([_Job(wanted[index]) for index in some], schedule)
            yield from zip(some, found, strict=True)


def _fit_alike(jobs: list["_Job"], schedule: Schedule) -> list[Fitted | FitDivergedError]:
    for job in jobs:
        job.place()
    if sum(job.placed != "best" for job in jobs) > 1:
        _train_together(jobs, schedule)
    else:
        for job in jobs:
            job.train(schedule)
    return [job.diverged or job.finished() for job in jobs]


def _train_together(jobs: list["_Job"], schedule: Schedule) -> None:
    """Adam on those that start anywhere, then L-BFGS on these and on those that were placed."""
    drawn = [job for job in jobs if job.placed == "no"]
    points, start = jobs[0].pairs[0], time.perf_counter()
    reached: list[bool] = []
    if drawn:
        targets = [job.pairs[1].float() for job in drawn]
        reached = adam_together([job.net for job in drawn], points.float(), targets, schedule)
    enough = {id(job) for job, done in zip(drawn, reached, strict=True) if done}
    for job in drawn:
        if not all(bool(value.isfinite().all()) for value in job.net.parameters()):
            job.diverged = FitDivergedError("the weights of the fit are no numbers after Adam")
    left = [job for job in jobs if job.placed != "best" and job.diverged is None and id(job) not in enough]
    if left:
        tune_together([job.net for job in left], points, [job.pairs[1] for job in left], schedule)
    for job in jobs:
        job.seconds += (time.perf_counter() - start) / len(jobs)


class _Job:
    """One fit on its way. Raises InputError for what can't be fitted."""

    def __init__(self, wanted: Wanted) -> None:
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
        self._points = self.function.points(self.domain, **self.shape)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Points [N], and what the net should give there, [N, outputs], float64."""
        rows = self.function.as_rows(self.function.analytic(self._points, **self.shape))
        return self._points, rows.log() if self.function.log_values else rows

    def alike(self) -> tuple[object, ...]:
        """What fits that are done together share."""
        return *self.net.alike(), self._points.shape, self._points.numpy().tobytes()

    def place(self) -> None:
        """Start from the data where the net knows how."""

        def place() -> None:
            self.placed = self.net.place(*self.pairs)

        self.timed(place)

    def aim_at(self, density: Tensor) -> None:
        """Count the error where a slot's inputs are."""
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
        self._points = _representative(density)
        self.placed = "start" if self.placed == "start" else "no"

    def scheduled(self, schedule: Schedule) -> Schedule:
        """Without Adam for a net that was placed."""
        return replace(schedule, steps=0) if self.placed == "start" else schedule

    def train(self, schedule: Schedule) -> None:
        """By itself, where it isn't the best already."""
        if self.placed != "best":
            try:
                self.timed(lambda: train_net(self.net, *self.pairs, self.scheduled(schedule)))
            except FitDivergedError as trouble:
                self.diverged = trouble

    def timed(self, work: Callable[[], None]) -> None:
        """Do it, and count its seconds."""
        start = time.perf_counter()
        work()
        self.seconds += time.perf_counter() - start

    def finished(self, density: Tensor | None = None) -> Fitted:
        """With its record."""
        content = NetContent(self.function, self.shape, self.net)
        fidelity = measure(content, self.domain, density, self.seconds)
        return Fitted(self.function, self.shape, self.net, self.seed, fidelity)


def refinement_budget(steps: int) -> int:
    """Evaluations of L-BFGS after so many steps of Adam, where nothing else is asked for."""
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
            f"{name} stands in for {function.approximates} itself and isn't fitted; "
            f"its errors are measured by: trans4init fit {function.approximates} --all"
        )
    raise InputError(f"{name} can't be fitted: {function.tails or 'it has no closed form'}.")


def _representative(density: Tensor) -> Tensor:
    """At most _REPRESENTATIVES quantiles of the inputs, ascending, float64."""
    ordered = density.detach().double().flatten().sort().values
    places = torch.linspace(0, len(ordered) - 1, min(len(ordered), _REPRESENTATIVES)).round().long()
    return ordered[places]
