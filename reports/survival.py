"""Estimate times of which some are only known to be longer: Kaplan-Meier's curve, its median, the log-rank test.

A run that never reaches its target is censored: its time is longer than the last step that it was watched at. Leaving
such runs out, or counting their last step as a time, would make times look short.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.stats import CensoredData

__all__ = ["MedianTime", "Survival", "kaplan_meier", "log_rank"]

_TAIL = 0.025
"""What a 95 % interval leaves out on either side."""


@dataclass(frozen=True)
class MedianTime:
    """Says by when half have reached it. None stands for a time that is longer than any that was watched."""

    value: float | None
    low: float | None
    """The ends of its 95 % interval."""
    high: float | None


@dataclass(frozen=True)
class Survival:
    """Estimates, as Kaplan and Meier, the share that has yet to reach its target, with pointwise 95 % intervals."""

    times: tuple[float, ...]
    """All times at which one has reached it or was last watched, ascending."""
    shares: tuple[float, ...]
    """The share that is left from each of these times on; before the first it is 1."""
    low: tuple[float, ...]
    high: tuple[float, ...]

    def median(self) -> MedianTime:
        """Return the first time with a share of at most a half; its interval inverts those of the shares.

        Brookmeyer and Crowley 1982, "A confidence interval for the median survival time".
        """
        return MedianTime(*(self._first_half(shares) for shares in (self.shares, self.low, self.high)))

    def _first_half(self, shares: Sequence[float]) -> float | None:
        return next((time for time, share in zip(self.times, shares, strict=True) if share <= 0.5 + 1e-12), None)


def kaplan_meier(times: Sequence[float], reached: Sequence[bool]) -> Survival:
    """Estimate the share that is left over time (Kaplan and Meier 1958), with log-log intervals.

    times: of each, when it reached its target or was last watched. reached: whether it did. Where no one or everyone
    has reached it, the formula of the intervals has no value: they are then 1 to 1, and 0 to the exact binomial bound
    of those that were left, or to what they were before if that is less. Raises ValueError where there is none.
    """
    from scipy.stats import ecdf  # slow to import, and only needed where a study has a target

    _check(times, reached)
    left = ecdf(_censored(times, reached)).sf
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of the places without a value
        interval: Any = left.confidence_interval(method="log-log")
    low, high = [1.0], [1.0]
    last = sum(time == max(times) for time in times)
    bounds = zip(left.probabilities, interval.low.probabilities, interval.high.probabilities, strict=True)
    for share, least, most in bounds:
        known = 0 < share < 1
        low.append(float(least) if known else float(share))
        high.append(float(most) if known else high[-1] if share else min(high[-1], 1 - _TAIL ** (1 / last)))
    return Survival(
        tuple(map(float, left.quantiles)), tuple(map(float, left.probabilities)), tuple(low[1:]), tuple(high[1:])
    )


def log_rank(
    times: Sequence[float], reached: Sequence[bool], other_times: Sequence[float], other_reached: Sequence[bool]
) -> float | None:
    """Return p of the two-sided log-rank test that two groups reach their targets alike (Mantel 1966).

    None where nothing can be compared: neither has one that reached it, or one has none left when the first did. The
    groups count as independent.
    """
    from scipy.stats import logrank

    _check(times, reached)
    _check(other_times, other_reached)
    events = [
        t for t, known in [*zip(times, reached, strict=True), *zip(other_times, other_reached, strict=True)] if known
    ]
    if not events or min(max(times), max(other_times)) < min(events):
        return None
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):
        p = float(logrank(_censored(times, reached), _censored(other_times, other_reached)).pvalue)
    return 1.0 if np.isnan(p) else p  # all reached it at once: there is nothing that differs


def _censored(times: Sequence[float], reached: Sequence[bool]) -> "CensoredData":
    from scipy.stats import CensoredData

    known, after = np.asarray(reached, dtype=bool), np.asarray(times, dtype=np.float64)
    return CensoredData(uncensored=after[known], right=after[~known])


def _check(times: Sequence[float], reached: Sequence[bool]) -> None:
    if len(times) != len(reached) or not times:
        raise ValueError(f"each time says whether it was reached: {len(times)} and {len(reached)} were given")
