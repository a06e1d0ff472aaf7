"""Is one set of timings slower than another? On simulated timings, and on what a machine gave."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.bench.cli import CompareSides
from trans4init.bench.comparing.regression import compare_timings
from trans4init.bench.comparing.sides import timings_of
from trans4init.reports.records.store import read_runs

PROCESSES = 10
RECORD = Path(__file__).with_name("recorded_timings.parquet")
TURNS = CompareSides.processes
"""Processes of each side."""


def simulated(generator, factor):
    """Processes that differ by 1.5 %, calls that take up to some percent longer than their best, with rare outliers."""
    found = []
    for _ in range(PROCESSES):
        calls = np.exp(np.abs(generator.normal(0, 0.02, 20)) + 0.3 * (generator.random(20) < 0.02))
        found.append(list(factor * np.exp(generator.normal(0, 0.015)) * calls))
    return found


def test_no_more_than_one_false_alarm_in_two_hundred_simulated_pairs():
    generator = np.random.default_rng(0)
    words = [compare_timings(simulated(generator, 1), simulated(generator, 1)).word for _ in range(200)]
    assert words.count("slower") + words.count("faster") <= 1


def test_a_planted_five_percent_is_found_in_ninety_five_of_a_hundred_simulated_pairs():
    generator = np.random.default_rng(1)
    words = [compare_timings(simulated(generator, 1), simulated(generator, 1.05)).word for _ in range(200)]
    assert words.count("slower") >= 190


@settings(deadline=None)
@given(st.floats(0.5, 2.0), st.integers(0, 2**32 - 1))
def test_the_ratio_scales_and_turns_round(factor, seed):
    generator = np.random.default_rng(seed)
    a, b = simulated(generator, 1), simulated(generator, factor)
    there, back = compare_timings(a, b), compare_timings(b, a)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert compare_timings(a, [[2 * time for time in times] for times in b]).ratio == pytest.approx(2 * there.ratio)
    assert there.interval.low <= there.ratio <= there.interval.high


def test_a_certain_difference_that_is_small_is_none():
    a = [[1 + 1e-4 * number] for number in range(10)]
    b = [[1.02 * time for time in times] for times in a]
    found = compare_timings(a, b)
    assert found.interval.low > 1
    assert found.word == "no different"


@pytest.fixture(scope="module")
def recorded():
    """What a busy machine gave: processes in their order, by name of the work (`recorded_suite.py`)."""
    records = sorted(read_runs(RECORD), key=lambda record: record.created_at)
    return timings_of(records)


def taken_in_turn(generator, processes, factor):
    """Two sides of recorded processes that followed each other, of each two one for either side; B times the factor."""
    start = generator.integers(len(processes) - 2 * TURNS + 1)
    sides = [], []
    for turn in range(TURNS):
        order = generator.permutation(2)
        for side, index in zip(sides, order, strict=True):
            side.append(processes[start + 2 * turn + index])
    a, b = sides
    return a, [[factor * time for time in times] for times in b]


def words_on_recorded(recorded, factor):
    """Of 200 comparisons, as many of each kind of work."""
    generator = np.random.default_rng(0)
    count = 200 // len(recorded)
    return [
        compare_timings(*taken_in_turn(generator, processes, factor)).word
        for processes in recorded.values()
        for _ in range(count)
    ]


def test_no_more_than_one_false_alarm_in_two_hundred_recorded_pairs(recorded):
    words = words_on_recorded(recorded, 1.0)
    assert len(words) == 200
    assert words.count("slower") + words.count("faster") <= 1


def test_a_planted_five_percent_is_found_in_ninety_five_of_a_hundred_recorded_pairs(recorded):
    words = words_on_recorded(recorded, 1.05)
    assert words.count("slower") >= 190
    assert "faster" not in words


def test_without_room_for_doubt_there_is_a_word_and_with_it_there_is_none():
    assert compare_timings([[1.0]] * 6, [[1.0]] * 6).word == "no different"
    wide = [[0.8], [0.9], [1.0], [1.0], [1.1], [1.2]]
    assert compare_timings(wide, wide).word == "inconclusive"


def test_where_few_processes_could_agree_by_chance_there_is_no_word():
    """Of 5 a side one comparison in 126 has all of one above all of the other, of 6 one in 462."""
    for count, word in ((5, "too few"), (6, "slower")):
        a, b = ([[seconds + 0.01 * process] for process in range(count)] for seconds in (1, 2))
        assert compare_timings(a, b).word == word


@pytest.mark.parametrize("processes", [6, 8])
def test_few_noisy_processes_raise_no_false_alarm_either(processes):
    generator = np.random.default_rng(2)
    words = [
        compare_timings(*(np.exp(generator.normal(0, 0.05, (processes, 1))).tolist() for _ in range(2))).word
        for _ in range(200)
    ]
    assert words.count("slower") + words.count("faster") <= 1


@pytest.mark.parametrize("bad", [[], [[]], [[1.0], [0.0]]])
def test_what_is_no_timing_is_refused(bad):
    with pytest.raises(ValueError, match="positive timings"):
        compare_timings(bad, [[1.0]])
