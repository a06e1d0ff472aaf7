"""Is one set of timings slower than another? The Hodges–Lehmann ratio with a bootstrap interval, and a rule.

Timings of one process share where its memory lies, which is worth a percent or two, so that processes are what is
compared and drawn again, not calls. Of a process its quickest sample counts: what others do on a machine makes samples
longer, never shorter, and where it is busy the median tells more of them than of the code.

A bootstrap interval of few processes is too narrow, whatever its level (of five processes a side that are all alike,
one comparison in sixty was called different). So the exact rank test of Mann and Whitney has to agree, which is wrong
at most as often as it says, of any number of processes and however their times are distributed.
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
"""A difference smaller than this is not called one, however certain."""
VISIBLE_EFFECT = 0.05
"""Where a difference of this size can't be excluded, there is no word on it."""
CONFIDENCE = 0.99
_RESAMPLES = 4000
_FALSE_ALARMS = 1 / 200
"""The most comparisons of a state with itself that may be called different."""

Word = Literal["slower", "faster", "no different", "inconclusive", "too few"]


@dataclass(frozen=True)
class TimeRatio:
    """How long B takes, as a multiple of A."""

    ratio: float
    """exp of the Hodges–Lehmann shift of log times: the median of log b − log a over all pairs of processes."""
    interval: Interval | None
    """99 %, from processes drawn again; None for too few of them."""
    word: Word


def compare_timings(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> TimeRatio:
    """Compare timings of A and B, one inner sequence per process, in any one unit.

    B is slower where the whole interval is above 1, the ratio is at least 1.03 and the rank test's p at most 1 in 200;
    faster likewise. Neither is no different where the interval leaves no room for 5 %, else inconclusive. Raises
    ValueError for a side without timings, or a timing that is not positive.
    """
    ours, theirs = _logs(a), _logs(b)
    ratio = float(np.exp(_shift(ours, theirs)))
    if not enough(len(ours), len(theirs)):
        return TimeRatio(ratio, None, "too few")
    generator = np.random.default_rng(0)
    drawn_a = ours[generator.integers(len(ours), size=(_RESAMPLES, len(ours)))]
    drawn_b = theirs[generator.integers(len(theirs), size=(_RESAMPLES, len(theirs)))]
    shifts = np.median((drawn_b[:, :, None] - drawn_a[:, None, :]).reshape(_RESAMPLES, -1), axis=1)
    low, high = np.exp(np.quantile(shifts, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    room = low < 1 / (1 + VISIBLE_EFFECT) or high > 1 + VISIBLE_EFFECT
    word: Word = "inconclusive" if room else "no different"
    if (low > 1 or high < 1) and _rank_test(ours, theirs) <= _FALSE_ALARMS:
        if ratio >= 1 + SMALLEST_EFFECT:
            word = "slower"
        if ratio <= 1 / (1 + SMALLEST_EFFECT):
            word = "faster"
    return TimeRatio(ratio, Interval(float(low), float(high)), word)


def enough(a: int, b: int) -> bool:
    """Whether so many processes of A and of B could be told apart: the rank test's least p is 2 in C(a + b, a)."""
    return 2 / math.comb(a + b, a) <= _FALSE_ALARMS


def _rank_test(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """p of the two-sided test of Mann and Whitney (1947), exact."""
    from scipy import stats

    return float(stats.mannwhitneyu(a, b, method="exact").pvalue)


def _logs(processes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    if not processes or not all(len(timings) and min(timings) > 0 for timings in processes):
        raise ValueError("a comparison needs positive timings of at least one process on each side")
    return np.log([min(timings) for timings in processes])


def _shift(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.median(b[:, None] - a[None, :]))
