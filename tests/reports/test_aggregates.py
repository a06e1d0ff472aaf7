"""Aggregates over tasks: the numbers of their definitions, computed another way, and intervals that hold."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from trans4init.reports.aggregates import (
    interquartile_mean,
    normalised,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)


def scores_of(seed, runs=7, tasks=5):
    generator = np.random.default_rng(seed)
    return generator.normal(generator.normal(size=tasks), 1 + generator.random(tasks), (runs, tasks))


def test_the_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([[8.0, 1.0], [100.0, 4.0], [6.0, -50.0], [5.0, 7.0]])) == (4 + 5 + 6 + 7) / 4
    assert interquartile_mean(np.array([[3.0], [1.0], [20.0]])) == 8.0  # a quarter of three is less than one


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 1), (5, 3), (10, 7)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape):
    scores = scores_of(sum(shape), *shape)
    assert interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None))


def test_the_probability_of_improvement_counts_pairs_and_ties_as_halves():
    x, y = np.array([[1.0, 0.0], [3.0, 2.0]]), np.array([[1.0, 5.0], [2.0, 6.0], [0.0, 7.0]])
    # first task: 1 > 0, 1 = 1, 3 > all; second task: none
    assert probability_of_improvement(x, y) == pytest.approx(((1 + 0.5 + 3) / 6 + 0) / 2)


def test_the_probability_of_improvement_is_the_mean_of_mann_whitneys():
    x, y = scores_of(1, runs=6).round(0), scores_of(2, runs=9).round(0)
    tasks = range(x.shape[1])
    expected = np.mean([mannwhitneyu(x[:, task], y[:, task]).statistic / (6 * 9) for task in tasks])
    assert probability_of_improvement(x, y) == pytest.approx(expected)
    assert probability_of_improvement(y, x) == pytest.approx(1 - expected)
    assert probability_of_improvement(x, x) == pytest.approx(0.5)


def test_a_profile_is_the_mean_over_tasks_of_the_share_above_each_threshold():
    scores = scores_of(3)
    thresholds = (-1.0, float(scores[2, 3]), 0.7, 9.0)
    profile = performance_profile(scores, thresholds)
    for threshold, share in zip(thresholds, profile.shares, strict=True):
        by_task = [sum(value > threshold for value in column) / len(column) for column in scores.T]
        assert share.value == pytest.approx(np.mean(by_task))
        assert share.interval.low <= share.value <= share.interval.high
    assert profile.thresholds == thresholds
    assert profile.shares[-1].value == 0


def test_the_bootstrap_draws_within_tasks():
    """Tasks that differ by far more than their runs leave the interval of the mean narrow."""
    scores = 100.0 * np.arange(5) + scores_of(4)
    drawn = stratified_bootstrap(lambda sample: float(sample.mean()), scores)
    spread = np.sqrt((scores.var(axis=0) / len(scores)).sum()) / scores.shape[1]
    assert drawn.value == pytest.approx(scores.mean())
    assert drawn.interval.high - drawn.interval.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_the_bootstrap_is_that_of_all_equally_likely_resamples():
    """Two runs of two tasks have 16 resamples: the interval's ends are quantiles of these."""
    scores = np.array([[0.0, 10.0], [1.0, 14.0]])
    means = [
        np.mean([scores[a, 0], scores[b, 0], scores[c, 1], scores[d, 1]])
        for a, b, c, d in itertools.product((0, 1), repeat=4)
    ]
    drawn = stratified_bootstrap(lambda sample: float(sample.mean()), scores, confidence=0.75)
    low, high = np.quantile(means, [0.125, 0.875], method="inverted_cdf")
    assert (drawn.interval.low, drawn.interval.high) == (low, high)


def test_two_samples_are_drawn_independently():
    """Where both have the same runs, the probability of improvement varies about a half."""
    scores = scores_of(5, runs=10, tasks=1)
    drawn = stratified_bootstrap(probability_of_improvement, scores, scores)
    assert drawn.value == 0.5
    assert drawn.interval.low < 0.35
    assert drawn.interval.high > 0.65


def test_intervals_of_the_interquartile_mean_hold_it():
    """The truth of normal scores about 0 is 0; Agarwal et al. 2021 find 95 % intervals good from ten runs on."""
    generator = np.random.default_rng(6)
    held = [
        not stratified_bootstrap(interquartile_mean, generator.normal(size=(10, 6)), seed=n).interval.excludes(0.0)
        for n in range(150)
    ]
    assert np.mean(held) > 0.88


def test_normalising_puts_the_worst_at_0_and_the_best_at_1_in_either_direction():
    losses = np.array([[2.0, 0.5], [3.0, 0.9]])
    np.testing.assert_allclose(normalised(losses, [4.0, 0.0], [2.0, 1.0]), [[1.0, 0.5], [0.5, 0.9]])
    with pytest.raises(ValueError, match="task 1 has the same low and high"):
        normalised(losses, [4.0, 1.0], [2.0, 1.0])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(3), r"scores are \[runs, tasks\], and \[3\] was given"),
        (np.zeros((0, 2)), r"and \[0, 2\] was given"),
        (np.array([[1.0, np.nan]]), "NaN or infinite"),
    ],
)
def test_what_is_no_table_of_scores_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        interquartile_mean(scores)
    with pytest.raises(ValueError, match=message):
        probability_of_improvement(scores, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="the same tasks, and 2 and 3 were given"):
        probability_of_improvement(np.zeros((4, 2)), np.zeros((4, 3)))
