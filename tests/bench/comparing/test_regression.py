"""Slowdowns are found, and false alarms are rare, on simulated timings and on timings recorded on a busy machine."""

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
    """Simulate processes that differ by 1.5 %; calls take a few percent longer than the best, with rare outliers."""
    processes = []
    for _ in range(PROCESSES):
        calls = np.exp(np.abs(generator.normal(0, 0.02, 20)) + 0.3 * (generator.random(20) < 0.02))
        processes.append(list(factor * np.exp(generator.normal(0, 0.015)) * calls))
    return processes


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
    ratio = compare_timings(a, b)
    assert ratio.interval.low > 1
    assert ratio.word == "no different"


@pytest.fixture(scope="module")
def recorded():
    """Timings recorded on a busy machine by `recorded_suite.py`: processes in order, by the name of the work."""
    records = sorted(read_runs(RECORD), key=lambda record: record.created_at)
    return timings_of(records)


def taken_in_turn(generator, processes, factor):
    """Draw two sides from recorded processes: of each two in succession, one for A, and one, slowed, for B."""
    start = generator.integers(len(processes) - 2 * TURNS + 1)
    sides = [], []
    for turn in range(TURNS):
        order = generator.permutation(2)
        for side, index in zip(sides, order, strict=True):
            side.append(processes[start + 2 * turn + index])
    a, b = sides
    return a, [[factor * time for time in times] for times in b]


def words_on_recorded(recorded, factor):
    """Return the words of 200 comparisons, equally many of each kind of work."""
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


def test_a_process_counts_with_its_quickest_sample():
    a, b = [[1.0, 1.5, 7.0]] * 6, [[5.0, 1.5, 9.0]] * 6
    assert compare_timings(a, b).ratio == pytest.approx(1.5)


def test_a_difference_below_five_percent_that_is_not_certain_is_no_different():
    a = [[1 + 0.01 * process] for process in range(8)]
    ratio = compare_timings(a, [[1.01 * time for time in times] for times in a])
    assert 1.03 < ratio.interval.high < 1.05
    assert ratio.word == "no different"


def test_faster_is_the_mirror_of_slower():
    a, b = ([[seconds + 0.01 * process] for process in range(6)] for seconds in (1, 2))
    assert (compare_timings(a, b).word, compare_timings(b, a).word) == ("slower", "faster")


def test_where_few_processes_could_agree_by_chance_there_is_no_word():
    """With 5 a side, one comparison in 126 has all of one side above all of the other by chance; with 6, one in 462."""
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
