"""Fit: train a net on its function alone, measure how well it stands in for it, keep it."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.utils import benchmark

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, Function, get_function
from trans4init.ablations.nets import Net, build_net, net_from_card
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots import Content, Folded, NetContent
from trans4init.ablations.threads import threads
from trans4init.reports import metrics
from trans4init.reports.schema import Measurement

__all__ = ["Fidelity", "FitDivergedError", "Fitted", "OnStep", "RegionErrors", "fit", "load_fitted"]

DEFAULT_STEPS = 3000
DEFAULT_LEARNING_RATE = 1e-2
_CHECKS = 30
"""Times that the loss of a fit is looked at and told."""

OnStep = Callable[[int, float], None]


class FitDivergedError(Exception):
    """The loss of a fit stopped being a number."""


@dataclass(frozen=True)
class RegionErrors:
    """How far a net is from its function on one region of inputs. Errors are in units of the function's values."""

    region: str
    fitted: bool
    max_error: float
    rms_error: float
    relative_error: float
    """RMS error over the RMS of the function on the same inputs."""
    derivative_max_error: float


@dataclass(frozen=True)
class Fidelity:
    """How well a net stands in for its function, and what it costs."""

    regions: tuple[RegionErrors, ...]
    """The fitted region first, then 1 to 2 and 2 to 4 times as far."""
    parameters: int
    flops: int
    """Per input."""
    inputs_per_call: int
    call_microseconds: float
    """One call on all inputs of the fitted region, float32, one thread."""
    folded_call_microseconds: float | None
    """The same from a table; None for a net that doesn't fold."""
    fit_seconds: float

    def measurements(self) -> tuple[Measurement, ...]:
        """The record as rows."""
        rows = [
            Measurement(metrics.over_region(quantity, errors.region), getattr(errors, quantity))
            for errors in self.regions
            for quantity in ("max_error", "rms_error", "relative_error", "derivative_max_error")
        ]
        rows += [
            Measurement(metrics.NET_PARAMETERS, self.parameters),
            Measurement(metrics.NET_FLOPS, self.flops),
            Measurement(metrics.CALL_TIME, self.call_microseconds),
            Measurement(metrics.FIT_TIME, self.fit_seconds),
        ]
        if self.folded_call_microseconds is not None:
            rows.append(Measurement(metrics.FOLDED_CALL_TIME, self.folded_call_microseconds))
        return tuple(rows)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A net that was fitted to a function."""

    function: Function
    shape: dict[str, int]
    net: Net
    seed: int
    fidelity: Fidelity

    def __call__(self, inputs: Tensor) -> Tensor:
        """The net's values for inputs [...], in float32 or float64 as they are; integers count as float32."""
        exact = inputs if inputs.is_floating_point() else inputs.float()
        return _content(self.function, self.shape, self.net).value(exact)

    def fold(self) -> Content:
        """The net as a table over its finite domain; raises InputError for a net on the reals."""
        if not self.net.domain.integer:
            raise InputError(f"{self.net.name} on the reals {self.net.domain} doesn't fold to a table.")
        return Folded(_content(self.function, self.shape, self.net), self.net.domain)

    def save(self, folder: Path | str) -> Path:
        """Write `net.safetensors` and `card.json` into `folder`; the card last, so that it vouches for both."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "function": self.function.name,
            "shape": self.shape,
            "seed": self.seed,
            **self.net.card(),
            "fidelity": asdict(self.fidelity),
        }
        weights = folder / "net.safetensors.tmp"
        safetensors.torch.save_file(self.net.state_dict(), weights)
        weights.replace(folder / "net.safetensors")
        text = folder / "card.json.tmp"
        text.write_text(json.dumps(card, indent=2) + "\n")
        text.replace(folder / "card.json")
        return folder


def fit(
    function: str,
    net: str,
    *,
    seed: int = 0,
    domain: Domain | None = None,
    size: dict[str, Any] | None = None,
    steps: int = DEFAULT_STEPS,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    on_step: OnStep | None = None,
    **shape: int,
) -> Fitted:
    """Fit the net called `net` to the function called `function` on `domain`, by default the function's own.

    Adam on the mean square error over the whole domain, its rate falling to 0 on a cosine, then the exact
    least-squares optimum of the last layer in float64. The same seed gives the same bits on the same machine.

    size: the net's size, such as `{"hidden": (64,)}`. shape: the function's, such as `width=128`.
    on_step: called now and then with the step and the loss.
    Raises InputError for names, shapes and sizes there aren't; FitDivergedError where the loss is not a number.
    """
    target = get_function(function)
    shape = {**target.default_shape, **shape}
    domain = target.domain if domain is None else domain
    if "learned-frozen" not in target.arms:
        raise InputError(f"{function} can't be fitted: {target.tails or 'it has no closed form'}.")
    if steps < 1:
        raise InputError(f"a fit takes at least 1 step, and {steps} was given.")
    learner = build_net(net, domain, target.outputs(**shape), **(size or {}))
    learner.initialise(keyed_generator(seed, "fit", function, net))
    start = time.perf_counter()
    with threads(1):  # sums are added up in the same order everywhere
        _train(learner, target, domain, shape, steps, learning_rate, on_step)
        seconds = time.perf_counter() - start
        fidelity = _measure(learner, target, domain, shape, seconds)
    return Fitted(target, shape, learner, seed, fidelity)


def load_fitted(folder: Path | str) -> Fitted:
    """The net that `Fitted.save` wrote; raises InputError where there is none."""
    folder = Path(folder)
    try:
        card = json.loads((folder / "card.json").read_text())
        net = net_from_card(card)
        net.load_state_dict(safetensors.torch.load_file(folder / "net.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder} holds no fitted net: {error}") from error
    fidelity = dict(card["fidelity"])
    fidelity["regions"] = tuple(RegionErrors(**errors) for errors in fidelity["regions"])
    return Fitted(get_function(card["function"]), card["shape"], net, card["seed"], Fidelity(**fidelity))


def _train(
    net: Net,
    function: Function,
    domain: Domain,
    shape: dict[str, int],
    steps: int,
    learning_rate: float,
    on_step: OnStep | None,
) -> None:
    points = domain.points()
    targets = function.analytic(points, **shape).reshape(len(points), net.outputs)
    inputs, values = points.float(), targets.float()
    optimiser = torch.optim.Adam(net.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    check_every = max(1, steps // _CHECKS)
    for step in range(steps):
        loss = (net(inputs) - values).square().mean()
        if step % check_every == 0 or step == steps - 1:
            _report(step, loss.item(), on_step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    net.solve_output(points, targets)


def _report(step: int, loss: float, on_step: OnStep | None) -> None:
    if not math.isfinite(loss):
        raise FitDivergedError(f"the loss of the fit is {loss} at step {step}")
    if on_step is not None:
        on_step(step, loss)


def _measure(net: Net, function: Function, domain: Domain, shape: dict[str, int], seconds: float) -> Fidelity:
    content = _content(function, shape, net)
    inputs = domain.points().float()
    regions = [_errors(content, region, fitted=region is domain) for region in (domain, *domain.beyond())]
    folded = _microseconds(Folded(content, domain), domain.points().long()) if domain.integer else None
    return Fidelity(
        regions=tuple(regions),
        parameters=net.parameter_count(),
        flops=net.flops(),
        inputs_per_call=len(inputs),
        call_microseconds=_microseconds(content, inputs),
        folded_call_microseconds=folded,
        fit_seconds=seconds,
    )


def _errors(content: NetContent, region: Domain, *, fitted: bool) -> RegionErrors:
    # An odd number of points falls between those that a net on the reals was fitted on.
    points = region.points(4001)
    function, shape = content.function, content.shape
    values, slopes = torch.func.jvp(content.value, (points,), (torch.ones_like(points),))  # type: ignore[misc]
    exact = function.analytic(points, **shape)
    error = values.detach() - exact
    return RegionErrors(
        region=str(region),
        fitted=fitted,
        max_error=error.abs().max().item(),
        rms_error=error.square().mean().sqrt().item(),
        relative_error=(error.square().mean() / exact.square().mean()).sqrt().item(),
        derivative_max_error=(slopes.detach() - function.derivative(points, **shape)).abs().max().item(),
    )


def _microseconds(content: Content, inputs: Tensor) -> float:
    with torch.no_grad():
        timer = benchmark.Timer("content(inputs)", globals={"content": content, "inputs": inputs})
        return float(timer.blocked_autorange(min_run_time=0.05).median * 1e6)


def _content(function: Function, shape: dict[str, int], net: Net) -> NetContent:
    return NetContent(function, shape, net)
