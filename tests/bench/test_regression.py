"""Is one set of timings slower than another? On simulated timings, and on what a machine gave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trans4init.bench.regression import compare

PROCESSES = 10


def simulated(generator, factor):
    """Processes that differ by 1.5 %, calls that take up to some percent longer than their best, with rare outliers."""
    found = []
    for _ in range(PROCESSES):
        calls = np.exp(np.abs(generator.normal(0, 0.02, 20)) + 0.3 * (generator.random(20) < 0.02))
        found.append(list(factor * np.exp(generator.normal(0, 0.015)) * calls))
    return found


def test_no_more_than_one_false_alarm_in_two_hundred_simulated_pairs():
    generator = np.random.default_rng(0)
    words = [compare(simulated(generator, 1), simulated(generator, 1)).word for _ in range(200)]
    assert words.count("slower") + words.count("faster") <= 1


def test_a_planted_five_percent_is_found_in_ninety_five_of_a_hundred_simulated_pairs():
    generator = np.random.default_rng(1)
    words = [compare(simulated(generator, 1), simulated(generator, 1.05)).word for _ in range(200)]
    assert words.count("slower") >= 190


@given(st.floats(0.5, 2.0), st.integers(0, 2**32 - 1))
def test_the_ratio_scales_and_turns_round(factor, seed):
    generator = np.random.default_rng(seed)
    a, b = simulated(generator, 1), simulated(generator, factor)
    there, back = compare(a, b), compare(b, a)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert compare(a, [[2 * time for time in times] for times in b]).ratio == pytest.approx(2 * there.ratio)
    assert there.interval.low <= there.ratio <= there.interval.high


def test_a_certain_difference_that_is_small_is_none():
    a = [[1 + 1e-4 * number] for number in range(10)]
    b = [[1.02 * time for time in times] for times in a]
    found = compare(a, b)
    assert found.interval.low > 1
    assert found.word == "no different"


def test_without_room_for_doubt_there_is_a_word_and_with_it_there_is_none():
    assert compare([[1.0]] * 5, [[1.0]] * 5).word == "no different"
    wide = [[0.8], [0.9], [1.0], [1.1], [1.2]]
    assert compare(wide, wide).word == "inconclusive"


def test_two_processes_are_too_few_for_a_word():
    assert compare([[1.0], [1.0]], [[2.0], [2.0], [2.0]]).word == "too few"


@pytest.mark.parametrize("bad", [[], [[]], [[1.0], [0.0]]])
def test_what_is_no_timing_is_refused(bad):
    with pytest.raises(ValueError, match="positive timings"):
        compare(bad, [[1.0]])
