"""Measures fidelity: how far a net is from its function, inside and outside the fitted domain, and what it costs."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils import benchmark

from trans4init.ablations.functions import Domain
from trans4init.ablations.slots.contents import Analytic, Content, NetContent, folded
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement

__all__ = ["QUANTITIES", "Fidelity", "RegionErrors", "measure", "region_errors"]

_POINTS = 4001
"""How many reals a region is measured at: an odd number, so that most fall between the fitted ones."""


@dataclass(frozen=True)
class RegionErrors:
    """Says how far a net is from its function on one region of inputs, in units of the function's values.

    An error that is NaN or infinite, as where the function itself has no value, is None.
    """

    region: str
    fitted: bool
    max_error: float | None
    rms_error: float | None
    relative_error: float | None
    """RMS error over the RMS of the function on the same inputs."""
    max_relative_error: float | None
    """Largest error over the value, where the value is at least 2^-23 of the largest: not at a zero of the function."""
    max_ulp_error: float | None
    """Largest error in units in the last place of the value as a float32, at the same inputs."""
    derivative_max_error: float | None
    derivative_rms_error: float | None
    derivative_relative_error: float | None
    derivative_max_relative_error: float | None = None
    """As `max_relative_error`, of the derivative; None in records that were written before it was measured."""
    derivative_max_ulp_error: float | None = None
    """As `max_ulp_error`, of the derivative."""


QUANTITIES = tuple(name for name in RegionErrors.__dataclass_fields__ if name not in ("region", "fitted"))
"""The names of a region's errors, in the order of records and tables."""


@dataclass(frozen=True)
class Fidelity:
    """Says how well a net stands in for its function, and what it costs."""

    regions: tuple[RegionErrors, ...]
    """The fitted region first, then 1 to 2 and 2 to 4 times as far, then the observed density where there is one."""
    parameters: int
    flops: int
    """Floating-point operations per input."""
    inputs_per_call: int
    call_microseconds: float
    """One call on all inputs of the fitted region, float32, one thread."""
    folded_call_microseconds: float | None
    """The same from a table or a polyline; None for a net that doesn't fold."""
    analytic_call_microseconds: float
    """The same by the closed form as a slot holds it: from a table over finite positions."""
    fit_seconds: float
    folded_by: str = ""
    """What computes the folded call: "table" or an implementation of `kernels.polyline`; empty without folding."""

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the record as measurements."""
        rows = [
            Measurement(metrics.over_region(quantity, errors.region), getattr(errors, quantity))
            for errors in self.regions
            for quantity in QUANTITIES
        ]
        rows += [
            Measurement(metrics.NET_PARAMETERS, self.parameters),
            Measurement(metrics.NET_FLOPS, self.flops),
            Measurement(metrics.CALL_TIME, self.call_microseconds),
            Measurement(metrics.ANALYTIC_CALL_TIME, self.analytic_call_microseconds),
            Measurement(metrics.FIT_TIME, self.fit_seconds),
        ]
        if self.folded_call_microseconds is not None:
            rows.append(Measurement(metrics.FOLDED_CALL_TIME, self.folded_call_microseconds))
        return tuple(rows)


def measure(content: NetContent, domain: Domain, density: Tensor | None, seconds: float) -> Fidelity:
    """Measure a net that was fitted on `domain` in `seconds`; density: inputs [N] that a slot was given, or None."""
    function, shape, net = content.function, content.shape, content.net
    regions = []
    for region in (domain, *domain.beyond(function.support)):
        points = function.points(region, _POINTS, **shape)
        regions.append(region_errors(content, points, str(region), fitted=region is domain))
    if density is not None:
        regions.append(region_errors(content, density.detach().double().flatten(), "observed", fitted=True))
    inputs = function.points(domain, **shape).float()
    calls = inputs.long() if domain.integer else inputs
    closed = Analytic(function, shape)
    net_folded = folded(content, domain)
    return Fidelity(
        regions=tuple(regions),
        parameters=net.parameter_count(),
        flops=net.flops(),
        inputs_per_call=len(inputs),
        call_microseconds=_microseconds(content, inputs),
        folded_call_microseconds=None if net_folded is None else _microseconds(net_folded, calls),
        analytic_call_microseconds=_microseconds(folded(closed, domain) or closed, calls),
        fit_seconds=seconds,
        folded_by="" if net_folded is None else net_folded.evaluation(calls),
    )


def region_errors(content: Content, points: Tensor, region: str, *, fitted: bool) -> RegionErrors:
    """Measure a content on inputs [N] float64 against the closed form of its function."""
    function, shape = content.function, content.shape
    values, slopes = torch.func.jvp(content.value, (points,), (function.direction(points),))  # type: ignore[misc]
    exact, slope = function.analytic(points, **shape), function.derivative(points, **shape)
    if function.takes == "rows":  # −∞ pads a short row
        inside = points > -math.inf
        values, slopes, exact, slope = values[inside], slopes[inside], exact[inside], slope[inside]
    error, slope_error = (values.detach() - exact).abs(), (slopes.detach() - slope).abs()
    relative, ulp = _worst_by_value(error, exact)
    slope_relative, slope_ulp = _worst_by_value(slope_error, slope)
    return RegionErrors(
        region=region,
        fitted=fitted,
        max_error=_finite(error.max()),
        rms_error=_finite(_rms(error)),
        relative_error=_finite(_rms(error) / _rms(exact)),
        max_relative_error=relative,
        max_ulp_error=ulp,
        derivative_max_error=_finite(slope_error.max()),
        derivative_rms_error=_finite(_rms(slope_error)),
        derivative_relative_error=_finite(_rms(slope_error) / _rms(slope)),
        derivative_max_relative_error=slope_relative,
        derivative_max_ulp_error=slope_ulp,
    )


def _worst_by_value(error: Tensor, exact: Tensor) -> tuple[float | None, float | None]:
    """Return the largest error over the value, and in float32 units in the last place of the value, away from zeros."""
    nonzero = exact.abs() > exact.abs().max() * 2**-23
    if not nonzero.any():
        return None, None
    error, size = error[nonzero], exact[nonzero].abs()
    ulp = torch.from_numpy(np.spacing(size.float().numpy())).double()
    return _finite((error / size).max()), _finite((error / ulp).max())


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def _finite(value: Tensor) -> float | None:
    return value.item() if math.isfinite(value.item()) else None


def _microseconds(content: Content, inputs: Tensor) -> float:
    with torch.no_grad():
        timer = benchmark.Timer("content(inputs)", globals={"content": content, "inputs": inputs})
        return float(timer.blocked_autorange(min_run_time=0.02).median * 1e6)
