"""Aggregate scores over several tasks: interquartile mean, probability of improvement, performance profiles.

Definitions, with stratified bootstrap intervals, of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of
the Statistical Precipice", sections 4.1 to 4.3, as its library rliable computes them. Scores are [runs, tasks], higher
is better; a task's scores should be normalised first, so that they can be compared with another's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trans4init.reports.statistics import Estimate, Interval

__all__ = [
    "Profile",
    "interquartile_mean",
    "normalised",
    "performance_profile",
    "probability_of_improvement",
    "stratified_bootstrap",
]

_RESAMPLES = 2000
"""How often the bootstrap draws again, as in rliable for aggregates; more make the ends of intervals more exact."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """Says which share of runs, averaged over tasks, whose score is above each threshold, with 95 % intervals."""

    thresholds: tuple[float, ...]
    shares: tuple[Estimate, ...]


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all scores [runs, tasks]: a quarter of them is left out at each end.

    Of n scores, floor(n / 4) at each end, as scipy.stats.trim_mean and rliable do.
    """
    ordered = np.sort(_checked(scores), axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """Return the probability that a run of X is better than one of Y, both with [runs, tasks]: the mean over tasks.

    Of one task it is the share of pairs of runs in which X's score is higher, where equal scores count half
    (Mann and Whitney's U over the number of pairs).
    """
    x, y = _checked(scores), _checked(others)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both need the same tasks, and {x.shape[1]} and {y.shape[1]} were given")
    higher = np.sign(x[:, None, :] - y[None, :, :])  # [runs of X, runs of Y, tasks]
    return float(((1 + higher) / 2).mean())


def performance_profile(scores: Scores, thresholds: Sequence[float], *, seed: int = 0) -> Profile:
    """Return the share of scores [runs, tasks] above each threshold, which is the mean over tasks of their shares."""
    limits = np.asarray(thresholds, dtype=np.float64)

    def shares(sample: Scores) -> Scores:
        above: Scores = (sample[..., None] > limits).mean(axis=(0, 1))
        return above

    point, low, high = _bootstrap([_checked(scores)], lambda drawn: shares(drawn[0]), seed)
    count = int(np.shape(scores)[0])
    found = [Estimate(float(p), Interval(float(a), float(b)), count) for p, a, b in zip(point, low, high, strict=True)]
    return Profile(tuple(float(limit) for limit in limits), tuple(found))


def stratified_bootstrap(
    aggregate: Callable[..., float], *samples: Scores, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Return an aggregate of the samples, each [runs, tasks], with its percentile interval by stratified bootstrap.

    Runs are drawn again within each task, independently for each task and sample: tasks are not drawn again, since
    they were chosen and not sampled. aggregate: such as `interquartile_mean` of one sample, or
    `probability_of_improvement` of two.
    """
    checked = [_checked(sample) for sample in samples]
    point, low, high = _bootstrap(checked, lambda drawn: np.array([aggregate(*drawn)]), seed, confidence)
    return Estimate(float(point[0]), Interval(float(low[0]), float(high[0])), min(len(sample) for sample in checked))


def normalised(scores: Scores, low: Sequence[float], high: Sequence[float]) -> Scores:
    """Return scores [runs, tasks] so that each task's `low` becomes 0 and its `high` 1: what is worst, what is best.

    For losses `low` is the larger number, such as the loss without the function, and `high` the reference's.
    """
    bottom, top = (np.asarray(values, dtype=np.float64) for values in (low, high))
    if (bottom == top).any():
        raise ValueError(f"task {int(np.flatnonzero(bottom == top)[0])} has the same low and high")
    scaled: Scores = (_checked(scores) - bottom) / (top - bottom)
    return scaled


def _bootstrap(
    samples: Sequence[Scores], aggregate: Callable[[list[Scores]], Scores], seed: int, confidence: float = 0.95
) -> tuple[Scores, Scores, Scores]:
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        picks = [generator.integers(len(sample), size=sample.shape) for sample in samples]
        drawn.append(aggregate([np.take_along_axis(s, pick, axis=0) for s, pick in zip(samples, picks, strict=True)]))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return aggregate(list(samples)), low, high


def _checked(scores: Scores) -> Scores:
    """Return the scores as an array; raises ValueError where they aren't [runs, tasks], or one is NaN or infinite."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores are [runs, tasks], and {list(array.shape)} was given")
    if not np.isfinite(array).all():
        raise ValueError("a score is NaN or infinite: give a run that ended without a value the worst score")
    return array
