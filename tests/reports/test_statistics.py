"""Statistics against brute force, against scipy, and against what their names promise."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trans4init.reports.statistics import (
    equivalence_test,
    holm,
    interval_floor,
    outliers,
    seed_floor,
    sign_flip_interval,
    sign_flip_test,
    sign_interval,
    sign_test,
    skewed,
    smallest_visible_effect,
    visible_factor,
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


def test_magnitudes_of_other_differences_hide_nothing():
    """A sum is 0 but for rounding in relation to what is summed: one huge difference doesn't make the others equal."""
    assert sign_flip_test([1e12, 0.1, 0.2, 0.3, 0.4]) == 2 / 2**5
    assert sign_flip_test([1e-13, 2e-13, -1e-13, 3e-13]) == sign_flip_test([1, 2, -1, 3])
    interval = sign_flip_interval([value * 1e-13 for value in range(1, 11)])
    assert 0 < interval.low < 5.5e-13 < interval.high < 1e-12


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 1)), min_size=1, max_size=9), st.sampled_from([0.8, 0.95]))
def test_an_interval_excludes_zero_exactly_where_its_test_rejects(differences, confidence):
    for test, interval_of in ((sign_flip_test, sign_flip_interval), (sign_test, sign_interval)):
        interval = interval_of(differences, confidence)
        if interval is None:
            assert len(differences) < interval_floor(confidence)
            assert 2 / 2 ** len(differences) >= 1 - confidence - 1e-12
        else:
            assert interval.excludes(0) == (test(differences) < 1 - confidence)


def test_an_interval_holds_the_means_that_are_not_rejected():
    differences = list(np.random.default_rng(5).normal(0.4, 1, 8))
    interval, near = sign_flip_interval(differences), 1e-9
    for end, outwards in ((interval.low, -near), (interval.high, near)):
        assert sign_flip_test([d - end - outwards for d in differences]) < 0.05
        assert sign_flip_test([d - end + outwards for d in differences]) >= 0.05


@pytest.mark.parametrize("seeds", [6, 8, 10, 14])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds):
    generator = np.random.default_rng(seeds)
    for draw in (generator.normal, lambda size: generator.standard_t(3, size)):
        held = sum(not sign_flip_interval(list(draw(size=seeds))).excludes(0) for _ in range(1500))
        assert held / 1500 >= 0.94 - 0.012  # two standard errors of the simulation


def test_beyond_twenty_differences_interval_and_test_use_the_same_sample_of_patterns():
    generator = np.random.default_rng(6)
    for mean in (0.0, 0.35):
        differences = list(generator.normal(mean, 1, 40))
        interval = sign_flip_interval(differences)
        assert interval.excludes(0) == (sign_flip_test(differences) < 0.05)
        expected = stats.ttest_1samp(differences, 0).confidence_interval()
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.03)


@pytest.mark.parametrize(("differences", "p"), [([1, 2, 3, -1], 5 / 16), ([0, 1, 2, 3], 5 / 16), ([-1] * 6, 1.0)])
def test_the_sign_test_is_the_binomial(differences, p):
    assert sign_test(differences, "greater") == p
    assert sign_test([-d for d in differences], "less") == p
    assert sign_test(differences) == min(1, 2 * min(p, sign_test(differences, "less")))


def test_skewed_samples_are_found_and_normal_ones_one_time_in_twenty():
    generator = np.random.default_rng(7)
    normal = [list(generator.normal(size=10)) for _ in range(1000)]
    assert np.mean([skewed(sample) for sample in normal]) == pytest.approx(0.05, abs=0.025)
    bad = [[*sample[:9], 8.0] for sample in normal[:200]]
    assert np.mean([skewed(sample) for sample in bad]) > 0.95
    assert all(9 in outliers(sample) for sample in bad if outliers(sample))
    assert np.mean([outliers(sample) == (9,) for sample in bad]) > 0.8
    assert not skewed([0.5] * 10)
    assert not skewed([1.0, 2.0])
    assert outliers([float(value) for value in range(10)]) == ()


@pytest.mark.parametrize(("seeds", "comparisons"), [(6, 1), (9, 8), (10, 12), (14, 8)])
def test_the_smallest_visible_effect_is_found_four_times_out_of_five(seeds, comparisons):
    """Plant exactly that effect in normal differences, and count how often the test sees it."""
    generator, planted, studies = np.random.default_rng(4), visible_factor(seeds, comparisons), 300
    found = sum(sign_flip_test(list(generator.normal(planted, 1, seeds))) * comparisons < 0.05 for _ in range(studies))
    assert found / studies == pytest.approx(0.8, abs=0.06)


def test_the_visible_effect_is_in_units_of_the_spread_without_bias():
    generator = np.random.default_rng(5)
    effects = [smallest_visible_effect(list(generator.normal(0, 2, 10)), 8) for _ in range(2000)]
    assert np.mean(effects) == pytest.approx(2 * visible_factor(10, 8), rel=0.02)


def test_below_the_seed_floor_nothing_is_visible():
    assert smallest_visible_effect([1.0, 2.0], 1) is None
    assert smallest_visible_effect([], 1) is None
    assert visible_factor(8, 8) is None
    assert visible_factor(9, 8) is not None
