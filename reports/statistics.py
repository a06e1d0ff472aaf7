"""Test paired differences: exact sign-flip tests, equivalence, Holm, BCa intervals, the smallest visible effect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Estimate",
    "Interval",
    "bca_interval",
    "bootstrap_median",
    "equivalence_test",
    "holm",
    "seed_floor",
    "sign_flip_test",
    "smallest_visible_effect",
]

_LARGEST_EXACT = 20
"""`sign_flip_test` counts all 2^n sign patterns up to this many differences; each more would double its time."""
_SAMPLED_PATTERNS = 2**20
"""How many patterns it samples beyond that; more make p more precise."""
_PATTERNS_AT_ONCE = 2**15
"""How many patterns it holds in memory at a time."""
_RESAMPLES = 10_000
"""How often the bootstrap intervals draw again; published intervals change with it."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def sign_flip_test(differences: Sequence[float], alternative: str = "two-sided") -> float:
    """Return p of the paired sign-flip test (Fisher) of the hypothesis that the mean difference is 0.

    Under the null hypothesis every difference is as likely with the other sign; p is the share of the 2^n sign
    patterns whose mean is at least as extreme as the observed one. Exact up to 20 differences; beyond that a seeded
    sample of 2^20 patterns, counted as (hits + 1) / (patterns + 1) (Phipson and Smyth 2010).

    differences: n values. alternative: "two-sided", "greater" (mean > 0) or "less" (mean < 0). Raises ValueError for
    zero differences.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        raise ValueError("a sign-flip test needs at least one difference")
    if alternative == "less":
        return sign_flip_test(list(-values), "greater")
    exact = values.size <= _LARGEST_EXACT
    total = 2**values.size if exact else _SAMPLED_PATTERNS
    observed, hits = values.sum(), 0
    generator = np.random.default_rng(0)
    # Sums that are equal but for rounding count as equal.
    slack = 1e-12 * float(np.abs(values).sum())
    for start in range(0, total, _PATTERNS_AT_ONCE):
        count = min(_PATTERNS_AT_ONCE, total - start)
        if exact:
            bits = (np.arange(start, start + count)[:, None] >> np.arange(values.size)) & 1
        else:
            bits = generator.integers(0, 2, size=(count, values.size))
        sums = (1 - 2 * bits) @ values
        if alternative == "two-sided":
            hits += int((np.abs(sums) >= abs(observed) - slack).sum())
        else:
            hits += int((sums >= observed - slack).sum())
    return hits / total if exact else (hits + 1) / (total + 1)


def equivalence_test(differences: Sequence[float], margin: float) -> float:
    """Return the larger p of two one-sided sign-flip tests that the mean difference is within ±margin.

    Schuirmann 1987. Small p: the mean is certainly above -margin and certainly below +margin.
    """
    values = np.asarray(differences, dtype=np.float64)
    above = sign_flip_test(list(values + margin), "greater")
    below = sign_flip_test(list(values - margin), "less")
    return max(above, below)


def bca_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987), from 10,000 resamples.

    It is None for fewer than two values, and a point if all values are the same.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size < 2:
        return None
    if np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())):
        return Interval(float(sample[0]), float(sample[0]))
    from scipy.special import ndtr, ndtri  # here, since only some functions need SciPy; its statistics take a second

    count = sample.size
    drawn = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
    means, mean = sample[drawn].mean(axis=1), sample.mean()
    bias = ndtri(((means < mean).mean() + (means <= mean).mean()) / 2)
    left_out = np.array([np.delete(sample, index).mean() for index in range(count)])
    deviations = left_out.mean() - left_out
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    ends = bias + ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(means, ndtr(bias + ends / (1 - acceleration * ends)))
    return Interval(float(low), float(high))


def bootstrap_median(values: Sequence[float], block: int = 1, confidence: float = 0.95) -> tuple[float, Interval]:
    """Return the median and its percentile bootstrap interval; for timing samples, whose tails are long.

    block: how many consecutive values share something, such as the memory that models lie in; they are drawn together.
    """
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    missing = -sample.size % block
    blocks = np.append(sample, np.full(missing, np.nan)).reshape(-1, block)
    drawn = np.random.default_rng(0).integers(len(blocks), size=(_RESAMPLES, len(blocks)))
    resamples = blocks[drawn].reshape(_RESAMPLES, -1)
    medians = np.nanmedian(resamples, axis=1) if missing else np.median(resamples, axis=1)  # nanmedian is slow
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.median(sample)), Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for being tested together (Holm 1979), in their order."""
    count = len(p_values)
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def seed_floor(comparisons: int, level: float = 0.05) -> int:
    """Return the fewest seeds n with which m = `comparisons` sign-flip tests can reach `level`: 2/2^n < level/m."""
    seeds = 1
    while 2 / 2**seeds >= level / max(1, comparisons):
        seeds += 1
    return seeds


def smallest_visible_effect(
    differences: Sequence[float], comparisons: int, level: float = 0.05, power: float = 0.8
) -> float | None:
    """Return the mean difference that a paired study of this size and spread finds with probability `power`.

    (t[1 - level/2m] + t[power]) · s / √n with n - 1 degrees of freedom: the t approximation to the sign-flip test,
    with the strictest of Holm's levels. None for fewer than two differences.
    """
    sample = np.asarray(differences, dtype=np.float64)
    if sample.size < 2:
        return None
    freedom = sample.size - 1
    from scipy.special import stdtrit

    quantiles = stdtrit(freedom, 1 - level / (2 * max(1, comparisons))) + stdtrit(freedom, power)
    return float(quantiles * sample.std(ddof=1) / np.sqrt(sample.size))


@dataclass(frozen=True)
class Estimate:
    """A mean or median of `count` values with its 95 % interval; None for an interval of too few values."""

    value: float
    interval: Interval | None
    count: int
