"""Decide whether one set of timings is slower than another: the Hodges–Lehmann ratio, a bootstrap interval and a rule.

Processes are compared and resampled, not calls: the calls of one process share its memory layout, which alone shifts
their times by a percent or two. A process counts with its quickest sample: other work on a machine makes samples
longer, never shorter, so that on a busy machine a median would tell of the other work.

A bootstrap interval of few processes is too narrow, whatever its level (with five identical processes a side, one
comparison in sixty was called different). Therefore the exact rank test of Mann and Whitney has to agree: its rate of
false alarms is at most its level, for any number of processes and any distribution of times.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trans4init.reports.statistics import Interval

__all__ = ["CONFIDENCE", "SMALLEST_EFFECT", "TimeRatio", "Word", "compare_timings", "enough"]

SMALLEST_EFFECT = 0.03
"""A smaller difference is never called slower or faster, however certain it is."""
VISIBLE_EFFECT = 0.05
"""If the interval doesn't exclude a difference of this size, the word is "inconclusive", not "no different"."""
CONFIDENCE = 0.99
"""Level of the bootstrap interval."""
_RESAMPLES = 4000
_FALSE_ALARMS = 1 / 200
"""Level of the rank test: at most this share of comparisons of a state with itself may be called different."""

Word = Literal["slower", "faster", "no different", "inconclusive", "too few"]


@dataclass(frozen=True)
class TimeRatio:
    """Says how long B takes, as a multiple of A's."""

    ratio: float
    """exp of the Hodges–Lehmann shift of log times: the median of log b − log a over all pairs of processes."""
    interval: Interval | None
    """99 % interval, by resampling processes; None if there are too few of them."""
    word: Word


def compare_timings(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> TimeRatio:
    """Compare timings of A and B, one inner sequence per process, in any one unit.

    The word is "slower" if the whole interval is above 1, the ratio is at least 1.03 and the rank test's p at most
    1/200, and "faster" likewise. Otherwise it is "no different" if the interval excludes differences of 5 % either
    way, else "inconclusive". Raises ValueError for a side without timings, or a timing that isn't positive.
    """
    log_a, log_b = _logs(a), _logs(b)
    ratio = float(np.exp(_shift(log_a, log_b)))
    if not enough(len(log_a), len(log_b)):
        return TimeRatio(ratio, None, "too few")
    generator = np.random.default_rng(0)
    drawn_a = log_a[generator.integers(len(log_a), size=(_RESAMPLES, len(log_a)))]
    drawn_b = log_b[generator.integers(len(log_b), size=(_RESAMPLES, len(log_b)))]
    shifts = np.median((drawn_b[:, :, None] - drawn_a[:, None, :]).reshape(_RESAMPLES, -1), axis=1)
    low, high = np.exp(np.quantile(shifts, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    room = low < 1 / (1 + VISIBLE_EFFECT) or high > 1 + VISIBLE_EFFECT
    word: Word = "inconclusive" if room else "no different"
    if (low > 1 or high < 1) and _rank_test(log_a, log_b) <= _FALSE_ALARMS:
        if ratio >= 1 + SMALLEST_EFFECT:
            word = "slower"
        if ratio <= 1 / (1 + SMALLEST_EFFECT):
            word = "faster"
    return TimeRatio(ratio, Interval(float(low), float(high)), word)


def enough(a: int, b: int) -> bool:
    """Return whether `a` and `b` processes can be told apart at all: the rank test's least p is 2 / C(a + b, a)."""
    return 2 / math.comb(a + b, a) <= _FALSE_ALARMS


def _rank_test(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the exact p of the two-sided test of Mann and Whitney (1947)."""
    from scipy import stats

    return float(stats.mannwhitneyu(a, b, method="exact").pvalue)


def _logs(processes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return the logarithm of each process's quickest timing."""
    if not processes or not all(len(timings) and min(timings) > 0 for timings in processes):
        raise ValueError("a comparison needs positive timings of at least one process on each side")
    return np.log([min(timings) for timings in processes])


def _shift(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the Hodges–Lehmann shift: the median of b − a over all pairs."""
    return float(np.median(b[:, None] - a[None, :]))
