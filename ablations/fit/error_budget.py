"""Fit the polylines of an error budget: on a domain whose ends are so far out that the error holds everywhere."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit.fitted import Fitted
from trans4init.ablations.functions import Domain, Function, get_function, list_functions
from trans4init.ablations.nets.best_polyline import exact_polyline
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement

__all__ = ["budget_domain", "check_budgeted", "fitted_error"]

_NEGLIGIBLE = 1e-7
"""A domain of `budget_domain` ends where the function is so near to the line that it approaches: below the error of
float32 for values around 1, and below the smallest errors of a budget."""
_FEW = 8
"""A function that is itself a polyline of fewer pieces has no budget: of more pieces no net has an error."""
_STEP = 0.5
"""By so much it is widened at a time."""
_WIDEST = 8
"""It becomes at most so many times as wide; a function that approaches its line slower has a larger error outside."""


def check_budgeted(function: Function) -> None:
    """Raise InputError unless the function can have an error budget: polylines of every size can be fitted to it."""
    if not _budgeted(function):
        known = [name for name in list_functions() if _budgeted(get_function(name))]
        raise InputError(
            f"{function.located or function.name} can't have an error budget: that needs polylines of any size, which "
            f"can be fitted to curved functions of one real number alone; there are: {', '.join(known)}."
        )


def _budgeted(function: Function) -> bool:
    reals = function.takes == "numbers" and not function.domain.integer
    if not (reals and function.elementwise and function.fittable()) or function.fidelity_only:
        return False
    points = function.points(function.domain, **function.default_shape)
    values = function.analytic(points, **function.default_shape)
    return exact_polyline(points.numpy(), values.numpy(), _FEW) is None


def budget_domain(function: Function, shape: Mapping[str, int]) -> Domain:
    """Return the function's domain, widened at each end beyond which a net follows a line that the function approaches.

    A net's error outside its domain is a share of the function's distance from the line at the end. A logarithmic
    domain stays as it is.
    """
    domain = function.domain
    if domain.log or function.asymptotes == (None, None):
        return domain
    limit = _WIDEST * (domain.high - domain.low)
    left, right = function.asymptotes

    def distance(place: float, line: tuple[float, float]) -> float:
        value = function.analytic(torch.tensor([place], dtype=torch.float64), **shape)
        return abs(value.item() - line[0] * place - line[1])

    low, high = domain.low, domain.high
    while left is not None and distance(low, left) > _NEGLIGIBLE and high - low < limit:
        low -= _STEP
    while right is not None and distance(high, right) > _NEGLIGIBLE and high - low < limit:
        high += _STEP
    return replace(domain, low=low, high=high)


def fitted_error(fitted: Fitted) -> Measurement:
    """Return a net's largest error in its domain: relative where values matter by their ratios, else absolute."""
    errors = fitted.fidelity.regions[0]
    if fitted.function.log_values:
        return Measurement(metrics.RELATIVE_FITTED_ERROR, errors.max_relative_error)
    return Measurement(metrics.FITTED_ERROR, errors.max_error)
