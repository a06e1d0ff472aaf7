"""Test paired differences: sign-flip tests, the intervals that invert them, equivalence, Holm, the visible effect.

The sign-flip test assumes that differences are as likely to lie above their mean as below, by any amount (symmetry).
`skewed` finds samples that speak against it; `sign_test` assumes nothing of the shape.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Estimate",
    "Interval",
    "equivalence_test",
    "holm",
    "interval_floor",
    "outliers",
    "seed_floor",
    "sign_flip_interval",
    "sign_flip_test",
    "sign_interval",
    "sign_test",
    "skewed",
    "smallest_visible_effect",
    "visible_factor",
]

_LARGEST_EXACT = 20
"""The sign-flip test counts all 2^n sign patterns up to this many differences; each more would double its time."""
_SAMPLED_PATTERNS = 2**20
"""How many patterns it samples beyond that; more make p more precise."""
_PATTERNS_AT_ONCE = 2**15
"""How many sampled patterns it holds in memory at a time."""
_ROUNDING = 1e-12
"""A sum of differences counts as 0 up to this share of the sum of their magnitudes: sums are rounded."""
_SIMULATED = 4000
"""How many samples the visible effect and the bound on skewness are simulated from: the power is then .8 ± .013."""
_SIMULATED_EXACT = 12
"""Up to this many differences a simulation counts all sign patterns; beyond, a sample of 2^13 or more."""
_LEAST_RANK = 20
"""The sample of patterns is so large that this many of them are as extreme as the level asks."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Holds a confidence interval."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Say whether the value lies outside."""
        return not self.low <= value <= self.high


def sign_flip_test(differences: Sequence[float], alternative: str = "two-sided") -> float:
    """Return p of the paired sign-flip test (Fisher) of the hypothesis that the mean difference is 0.

    Under the null hypothesis every difference is as likely with the other sign; p is the share of the 2^n sign
    patterns whose mean is at least as extreme as the observed one. Exact up to 20 differences; beyond that a seeded
    sample of 2^20 patterns, counted as (hits + 1) / (patterns + 1) (Phipson and Smyth 2010).

    differences: n values. alternative: "two-sided" (twice the smaller of the other two, 1 at most), "greater"
    (mean > 0) or "less" (mean < 0). Raises ValueError for zero differences.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        raise ValueError("a sign-flip test needs at least one difference")
    means, patterns = _subset_means(values)
    # A pattern that flips a subset has a sum at least the observed one where the subset's own mean is at most 0.
    greater, less = ((1 + int(hits.sum())) / patterns for hits in (means <= 0, means >= 0))
    return {"greater": greater, "less": less}.get(alternative, min(1.0, 2 * greater, 2 * less))


def sign_flip_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return the interval of the means that `sign_flip_test`, two-sided, doesn't reject at level 1 - confidence.

    It excludes 0 exactly where p < 1 - confidence. Its ends are means of subsets of the differences (Hartigan 1969,
    "Using subsample values as typical values"). None where n differences are too few for that level:
    2/2^n >= 1 - confidence, so that a 95 % interval needs six.
    """
    values = np.asarray(differences, dtype=np.float64)
    level = 1 - confidence
    if values.size < interval_floor(confidence):
        return None
    means, patterns = _subset_means(values)
    rank = _rank(level, patterns)
    ends = np.partition(means, (rank - 1, means.size - rank))
    return Interval(float(ends[rank - 1]), float(ends[means.size - rank]))


def interval_floor(confidence: float = 0.95) -> int:
    """Return the fewest differences that have an interval of this confidence: 2/2^n < 1 - confidence."""
    return seed_floor(1, 1 - confidence)


def _rank(level: float, patterns: int) -> int:
    """Return the largest k so that a test whose k - 1 smallest subset means are at most 0 rejects at `level`.

    2k/patterns < level: 0 if there is none.
    """
    return math.ceil(round(level * patterns / 2, 9)) - 1


def _subset_means(values: Values) -> tuple[Values, int]:
    """Return the means of all subsets of the values but the empty one, and the number of patterns with that one.

    Beyond 20 values: of 2^20 seeded random subsets. A mean is 0 where the subset's sum is but for rounding.
    """
    both = np.stack([values, np.abs(values)], axis=1)
    drawn = _sums_of_subsets(both) if values.size <= _LARGEST_EXACT else _sums_of_samples(both)
    sums, magnitudes, sizes = drawn.T
    means = np.where(np.abs(sums) <= _ROUNDING * magnitudes, 0.0, sums) / np.maximum(sizes, 1)
    return means, means.size + 1


def _sums_of_subsets(columns: Values) -> Values:
    """Return the sums of each column's values [n, k] over every subset of the rows but the empty one, and its size."""
    sums = np.zeros((1, columns.shape[1] + 1))
    for row in np.column_stack([columns, np.ones(len(columns))]):
        sums = np.concatenate([sums, sums + row])
    return sums[1:]


def _sums_of_samples(columns: Values) -> Values:
    """Return the same of 2^20 random subsets, which are the same in every call."""
    generator, count = np.random.default_rng(0), len(columns)
    sums = []
    for _ in range(_SAMPLED_PATTERNS // _PATTERNS_AT_ONCE):
        packed = generator.integers(256, size=(_PATTERNS_AT_ONCE, -(-count // 8)), dtype=np.uint8)
        bits = np.unpackbits(packed, axis=1, count=count).astype(np.float64)
        sums.append(np.column_stack([bits @ columns, bits.sum(axis=1)]))
    return np.concatenate(sums)


def sign_test(differences: Sequence[float], alternative: str = "two-sided") -> float:
    """Return p of the exact sign test of the hypothesis that the median difference is 0; zeros speak for it.

    It assumes nothing of the shape of the differences, and looks at their signs alone: one bad run weighs no more than
    any other. Alternatives are those of `sign_flip_test`.
    """
    if alternative == "two-sided":
        return min(1.0, 2 * sign_test(differences, "greater"), 2 * sign_test(differences, "less"))
    wrong = sum(d <= 0 if alternative == "greater" else d >= 0 for d in differences)
    return _binomial(wrong, len(differences))


def sign_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return the interval of the medians that `sign_test` doesn't reject at level 1 - confidence.

    None where the differences are too few to reject any median at that level.
    """
    count, ordered = len(differences), sorted(differences)
    if count < interval_floor(confidence):
        return None
    wrong = next(k for k in range(1, count + 1) if 2 * _binomial(k, count) >= 1 - confidence)  # so many aren't rejected
    return Interval(float(ordered[wrong - 1]), float(ordered[count - wrong]))


def _binomial(most: int, count: int) -> float:
    """Return the probability of at most so many heads in `count` throws of a coin."""
    return float(sum(math.comb(count, k) for k in range(most + 1)) / 2**count)


def skewed(differences: Sequence[float]) -> bool:
    """Say whether the differences speak against symmetry, which the sign-flip test assumes.

    That is where their skewness, the mean of their standardised cubes, is further from 0 than in 95 % of normal samples
    of this size.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 3 or np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return False
    return abs(float(_skewness(values[None])[0])) > _skewness_bound(values.size)


def outliers(differences: Sequence[float]) -> tuple[int, ...]:
    """Return the places of differences that lie far from the others; none where the differences aren't skewed.

    Their distance from the median is more than 3.5 / .6745 times the median of all such distances (Iglewicz and
    Hoaglin 1993, "How to Detect and Handle Outliers", section 3.3). By itself that rule finds one in 13 % of normal
    samples of ten.
    """
    if not skewed(differences):
        return ()
    values = np.asarray(differences, dtype=np.float64)
    distances = np.abs(values - np.median(values))
    return tuple(int(place) for place in np.flatnonzero(0.6745 * distances > 3.5 * np.median(distances)))


def _skewness(samples: Values) -> Values:
    """Return the skewness of each row."""
    centred = samples - samples.mean(axis=1, keepdims=True)
    cubes: Values = (centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5
    return cubes


@lru_cache
def _skewness_bound(count: int) -> float:
    samples = np.random.default_rng(0).normal(size=(_SIMULATED, count))
    return float(np.quantile(np.abs(_skewness(samples)), 0.95))


def equivalence_test(
    differences: Sequence[float], margin: float, test: Callable[[list[float], str], float] = sign_flip_test
) -> float:
    """Return the larger p of two one-sided tests that the mean difference is within ±margin.

    Schuirmann 1987. Small p: the mean is certainly above -margin and certainly below +margin. test: `sign_flip_test` or
    `sign_test`.
    """
    values = np.asarray(differences, dtype=np.float64)
    return max(test(list(values + margin), "greater"), test(list(values - margin), "less"))


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
    """Return the mean difference that a study of this many pairs and this spread finds with probability `power`.

    Found means that the two-sided sign-flip test rejects at level/m, the strictest of Holm's levels, where m is
    `comparisons` and the differences are normal. The factor of their standard deviation is simulated with that very
    test; the standard deviation is the unbiased estimate s / c4(n). None below the seed floor, where no difference
    can be found.
    """
    sample = np.asarray(differences, dtype=np.float64)
    factor = visible_factor(sample.size, comparisons, level, power)
    if factor is None:
        return None
    unbiased = math.exp(math.lgamma(sample.size / 2) - math.lgamma((sample.size - 1) / 2))
    return float(factor * sample.std(ddof=1) * math.sqrt((sample.size - 1) / 2) / unbiased)


@lru_cache
def visible_factor(count: int, comparisons: int, level: float = 0.05, power: float = 0.8) -> float | None:
    """Return the smallest visible effect of `count` pairs in standard deviations of a difference.

    A sample's test finds a shift where the smallest mean that it doesn't reject lies above 0, hence every shift
    beyond minus that mean of the sample without it: the effect is a quantile of it. None below the seed floor.
    """
    if count < seed_floor(comparisons, level):
        return None
    generator, simulated = np.random.default_rng(0), _SIMULATED
    share = _rank(level / max(1, comparisons), 2**count) / (2**count - 1)
    if count <= _SIMULATED_EXACT:
        subsets = (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1
    else:
        sampled = min(2**17, max(2**13, math.ceil(_LEAST_RANK / share)))
        simulated = max(500, simulated * 2**13 // sampled)
        subsets = generator.integers(0, 2, size=(sampled, count))
        subsets = subsets[subsets.any(axis=1)]
    samples = generator.normal(size=(simulated, count))
    rank = max(1, round(share * len(subsets)))
    subsets = subsets / subsets.sum(axis=1, keepdims=True)
    lowest = [np.partition(part @ subsets.T, rank - 1)[:, rank - 1] for part in np.array_split(samples, 20)]
    return float(np.quantile(-np.concatenate(lowest), power))


@dataclass(frozen=True)
class Estimate:
    """Holds a mean or median of `count` values with its 95 % interval; None for an interval of too few values."""

    value: float
    interval: Interval | None
    count: int
