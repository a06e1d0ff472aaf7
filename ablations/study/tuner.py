"""The tuner: says which training settings are tried. They are the same for every cell, and cross every range."""

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.seeding import derived_seed
from trans4init.reports.records.tuning_design import Setting, TunedRange

__all__ = ["rounded", "settings_to_try"]

_CANDIDATES = 256
"""How many columns `_points` chooses each setting's from: more are correlated less, and studies start later."""
_COMPARED = 32
"""How many trials count when `_points` compares columns; of later ones chance decides."""
_FEWEST = 2
"""Times the number of settings, the first number of trials whose correlations count: fewer can't all be crossed."""
_DIGITS = 4
"""Significant digits of a setting: more would differ between machines whose logarithms differ in the last bit."""

_DECIMALS = 9
"""Decimals of a place within a range, for the same reason."""


def settings_to_try(
    ranges: Sequence[TunedRange], own: Mapping[str, Setting], seed: int, trials: int
) -> tuple[dict[str, Setting], ...]:
    """Return the settings of each trial by name: those of `own` first, then points spread over the ranges.

    All of them are a nested Latin hypercube (P. Qian, "Nested Latin hypercube designs", Biometrika 96, 2009): of the
    first 2, 4, 8, … trials each half, quarter, eighth, … of every range has one. More trials keep the first ones. Each
    setting's order is that, of 256 drawn by `seed`, which is least correlated with those of the settings before it.
    """
    ranges = tuple(sorted(ranges, key=lambda tuned: tuned.name))
    if not ranges or not trials:
        return ()
    first = {tuned.name: own[tuned.name] for tuned in ranges}
    points = _points(
        seed, tuple(round(tuned.place(own[tuned.name]), _DECIMALS) for tuned in ranges), max(trials, _COMPARED)
    )
    drawn = [
        {tuned.name: _rounded(tuned, place) for tuned, place in zip(ranges, point, strict=True)}
        for point in points[1:trials].tolist()
    ]
    return (first, *drawn)


@cache
def _points(seed: int, own: tuple[float, ...], count: int) -> NDArray[np.float64]:
    """Return `count` points in the unit cube [count, dimensions], the first of them `own`."""
    columns: list[list[float]] = []
    for dimension, first in enumerate(own):
        lowest, best = 2.0, columns
        for candidate in range(_CANDIDATES if columns else 1):
            draw = Random(derived_seed(seed, "tuning", dimension, candidate))
            tried = [*columns, _column(first, count, draw)]
            correlation = _largest_correlation(np.array(tried)[:, :_COMPARED], _FEWEST * len(own), lowest)
            if correlation < lowest:
                lowest, best = correlation, tried
        columns = best
    return np.array(columns).T


def _column(first: float, count: int, draw: Random) -> list[float]:
    """Return `count` places from 0 to 1 beginning with `first`: each doubling fills the halves that are empty."""
    places = [first]
    while len(places) < count:
        parts = 2 * len(places)
        taken = {min(int(place * parts), parts - 1) for place in places}
        empty = sorted(set(range(parts)) - taken, key=lambda _: draw.random())
        places += [(part + draw.random()) / parts for part in empty]
    return places[:count]


def _largest_correlation(columns: NDArray[np.float64], fewest: int, limit: float) -> float:
    """Return the largest rank correlation, by size, of the last of `columns` [dimensions, count] with another one.

    It is the largest among the first `fewest` points or more; the search stops at one that is not below `limit`.
    """
    largest = 0.0
    for count in range(fewest, columns.shape[1] + 1):
        ranks = columns[:, :count].argsort(axis=1).argsort(axis=1) - (count - 1) / 2
        products = np.abs(ranks[:-1] @ ranks[-1]) / (ranks[-1] @ ranks[-1])
        largest = max(largest, float(products.max(initial=0)))
        if largest >= limit:
            break
    return largest


def _rounded(tuned: TunedRange, place: float) -> Setting:
    return rounded(tuned, tuned.at(place))


def rounded(tuned: TunedRange, value: Setting) -> Setting:
    """Return a value of the range with few digits; one of few values stays as it is."""
    if tuned.count() is not None or isinstance(value, (str, list)):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), tuned.low), tuned.high)
