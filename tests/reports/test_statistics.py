"""Statistics against brute force, against scipy, and against what their names promise."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trans4init.reports.statistics import (
    bca_interval,
    bootstrap_median,
    equivalence_test,
    holm,
    seed_floor,
    sign_flip_test,
    smallest_visible_effect,
)

DIFFERENCES = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=1, max_size=9)


@settings(deadline=None)
@given(DIFFERENCES)
def test_sign_flip_counts_every_pattern(differences):
    observed = sum(differences)
    patterns = itertools.product((1, -1), repeat=len(differences))
    sums = [sum(sign * d for sign, d in zip(signs, differences, strict=True)) for signs in patterns]
    near = 1e-9
    assert sign_flip_test(differences) == sum(abs(s) >= abs(observed) - near for s in sums) / len(sums)
    assert sign_flip_test(differences, "greater") == sum(s >= observed - near for s in sums) / len(sums)
    assert sign_flip_test(differences, "less") == sum(s <= observed + near for s in sums) / len(sums)


def test_sign_flip_is_scipys_permutation_test():
    differences = np.random.default_rng(1).normal(0.3, 1, 12)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_test(list(differences)) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sign_flip_beyond_twenty_seeds_is_a_sample_close_to_the_t_test():
    differences = np.random.default_rng(2).normal(0.25, 1, 40)
    assert sign_flip_test(list(differences)) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.2)


def test_ten_seeds_with_one_sign_give_two_in_two_to_the_tenth():
    assert sign_flip_test([0.1 + i for i in range(10)]) == 2 / 2**10


def test_no_difference_is_no_evidence():
    assert sign_flip_test([0.0] * 10) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        sign_flip_test([])


def test_equivalence_needs_both_sides():
    inside = [0.001, -0.002, 0.0, 0.003, -0.001, 0.002, 0.001, -0.001, 0.0, 0.001]
    assert equivalence_test(inside, 0.05) == 1 / 2**10
    assert equivalence_test([value + 0.1 for value in inside], 0.05) > 0.99
    assert equivalence_test([value - 0.1 for value in inside], 0.05) > 0.99


@pytest.mark.parametrize(
    ("given_p", "expected"),
    [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5], [0.5]), ([0.9, 0.6], [1.0, 1.0]), ([], [])],
)
def test_holm_by_hand(given_p, expected):
    assert holm(given_p) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_ordered_and_never_smaller(p_values):
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert [a for _, a in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (7, 9), (8, 9), (12, 9), (13, 10)])
def test_seed_floor_is_the_arithmetic(comparisons, seeds):
    assert seed_floor(comparisons) == seeds
    assert 2 / 2**seeds < 0.05 / comparisons <= 2 / 2 ** (seeds - 1)


def test_bca_interval_covers_the_mean_of_a_skewed_distribution():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(120):
        interval = bca_interval(list(generator.exponential(1, 20)))
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
    assert 0.86 <= covered / 120 <= 1.0


@pytest.mark.parametrize("count", [2, 3, 10, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bca_interval_is_scipys(count, confidence):
    sample = np.random.default_rng(count).exponential(1, count)
    theirs = stats.bootstrap(
        (sample,), np.mean, method="BCa", n_resamples=10_000, confidence_level=confidence, rng=np.random.default_rng(0)
    ).confidence_interval
    ours = bca_interval(list(sample), confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_bca_interval_of_equal_values_is_the_value_and_of_one_value_is_unknown():
    interval = bca_interval([0.25] * 5)
    assert interval is not None
    assert (interval.low, interval.high) == (0.25, 0.25)
    assert bca_interval([1.0]) is None
    assert bca_interval([]) is None


def test_median_and_its_interval():
    median, interval = bootstrap_median([1.0, 2.0, 3.0, 4.0, 100.0])
    assert median == 3.0
    assert 1.0 <= interval.low <= 3.0 <= interval.high <= 100.0


def test_values_that_share_something_are_drawn_together():
    """Five rounds on one build of the models say little more than one: the interval is that of the builds."""
    builds = np.random.default_rng(0).normal(1, 0.02, 8)
    rounds = np.repeat(builds, 5)
    median, alone = bootstrap_median(list(rounds))
    again, together = bootstrap_median(list(rounds), block=5)
    assert median == again
    assert together.high - together.low > 1.3 * (alone.high - alone.low)
    of_builds = bootstrap_median(list(builds))[1]
    assert together.high - together.low == pytest.approx(of_builds.high - of_builds.low, rel=0.1)
    assert bootstrap_median([1.0, 2.0, 3.0], block=2)[0] == 2.0


def test_smallest_visible_effect_is_found_four_times_out_of_five():
    """Plant exactly that effect in normal differences of the assumed spread, and count how often the test sees it."""
    generator, seeds, found = np.random.default_rng(4), 12, 0
    for _ in range(400):
        noise = generator.normal(0, 1, seeds)
        planted = 1.0 * (stats.t.ppf(0.975, seeds - 1) + stats.t.ppf(0.8, seeds - 1)) / math.sqrt(seeds)
        found += sign_flip_test(list(noise + planted)) < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.08)
    sample = list(generator.normal(0, 1, seeds))
    expected = (stats.t.ppf(0.975, 11) + stats.t.ppf(0.8, 11)) * np.std(sample, ddof=1) / math.sqrt(seeds)
    assert smallest_visible_effect(sample, 1) == pytest.approx(expected)
    assert smallest_visible_effect([1.0], 1) is None
