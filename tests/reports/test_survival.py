"""Times of which some are only known to be longer: textbook values, and what has no value."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from trans4init.reports.survival import MedianTime, kaplan_meier, log_rank

REMISSION = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
RELAPSED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
"""Weeks in remission under 6-mercaptopurine, and whether they ended (Freireich et al. 1963; Cox and Oakes 1984,
Analysis of Survival Data, table 1.1)."""
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
"""Under placebo; all ended."""


def test_kaplan_meiers_curve_of_the_remission_times():
    left = kaplan_meier(REMISSION, RELAPSED)
    shares = dict(zip(left.times, left.shares, strict=True))
    textbook = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {time: round(shares[time], 3) for time in textbook} == textbook
    by_hand = [18 / 21, 16 / 17, 14 / 15, 11 / 12, 10 / 11, 6 / 7, 5 / 6]
    assert left.shares[-1] == pytest.approx(math.prod(by_hand))
    assert left.times == tuple(sorted(set(REMISSION)))


def test_the_intervals_are_greenwoods_on_the_log_log_scale():
    left = kaplan_meier(REMISSION, RELAPSED)
    at = left.times.index(10)
    greenwood = 3 / (21 * 18) + 1 / (17 * 16) + 1 / (15 * 14)
    reach = 1.959964 * math.sqrt(greenwood) / abs(math.log(left.shares[at]))
    expected = [left.shares[at] ** math.exp(sign * reach) for sign in (1, -1)]
    assert [left.low[at], left.high[at]] == pytest.approx(expected, rel=1e-5)


def test_the_medians_are_the_textbooks():
    assert kaplan_meier(REMISSION, RELAPSED).median() == MedianTime(23, 13, None)
    assert kaplan_meier(PLACEBO, [1] * 21).median() == MedianTime(8, 4, 11)


def test_a_median_that_no_one_was_watched_for_long_enough_is_none():
    assert kaplan_meier([3, 5, 5, 5], [True, False, False, False]).median().value is None
    never = kaplan_meier([5, 5, 5], [False] * 3)
    assert (never.shares, never.low, never.high) == ((1.0,), (1.0,), (1.0,))
    assert never.median() == MedianTime(None, None, None)


def test_leaving_out_the_censored_would_shorten_the_median():
    all_times = kaplan_meier(REMISSION, RELAPSED).median().value
    ended = [time for time, end in zip(REMISSION, RELAPSED, strict=True) if end]
    assert kaplan_meier(ended, [True] * len(ended)).median().value < all_times


def test_all_at_once_have_a_median_whose_upper_end_is_the_exact_one():
    assert kaplan_meier([4, 4, 4], [True] * 3).median() == MedianTime(4, 4, None)  # three are too few for an upper end
    assert kaplan_meier([4] * 6, [True] * 6).median() == MedianTime(4, 4, 4)
    later = kaplan_meier([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], [True] * 10)
    assert (later.low[-1], later.high[-1]) == (0.0, later.high[-2])  # 1 - .025^(1 / 2) would be more


def test_the_log_rank_test_of_the_remission_times():
    """Chi-squared is 16.79 on 1 degree of freedom (Kleinbaum and Klein, Survival Analysis, chapter 2)."""
    p = log_rank(REMISSION, RELAPSED, PLACEBO, [1] * 21)
    assert chi2.isf(p, 1) == pytest.approx(16.79, abs=0.005)
    assert log_rank(PLACEBO, [1] * 21, REMISSION, RELAPSED) == pytest.approx(p)


def test_the_log_rank_test_by_hand():
    """Two groups of two: observed minus expected over the root of the hypergeometric variances."""
    events = [(4, 2, 1), (3, 1, 0), (2, 1, 1)]  # at risk, of them in the first group, and of these who reached it
    expected = sum(first / risk for risk, first, _ in events)
    variance = sum(first * (risk - first) / risk**2 for risk, first, _ in events)
    z = (sum(reached for *_, reached in events) - expected) / math.sqrt(variance)
    assert chi2.isf(log_rank([1, 3], [True, True], [2, 9], [True, False]), 1) == pytest.approx(z**2)


def test_groups_that_can_not_differ():
    assert log_rank([5, 5], [False, False], [5], [False]) is None
    assert log_rank([5, 5], [True, True], [5], [True]) == 1.0
    assert log_rank([0, 0, 0], [False] * 3, [100, 120], [True, True]) is None  # all had left when the first reached it


def test_alike_groups_are_called_different_in_one_of_twenty():
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        times = generator.exponential(size=(2, 20))
        reached = times < 1.5
        first, second = np.minimum(times, 1.5).tolist()
        p_values.append(log_rank(first, reached[0].tolist(), second, reached[1].tolist()))
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_nothing_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="0 and 0 were given"):
        kaplan_meier([], [])
    with pytest.raises(ValueError, match="2 and 1 were given"):
        log_rank([1, 2], [True], [1], [True])
