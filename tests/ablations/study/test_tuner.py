"""The settings that tuning tries: shared by all cells, spread over every range, no two of them confounded."""

import itertools
import statistics

import pytest
from scipy import stats

from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.tuner import settings_to_try
from trans4init.reports.machine import capture
from trans4init.reports.records.tuning_design import TunedRange

RATE = TunedRange("learning_rate", 4e-3, 1.6e-2, log=True)
SLOT = TunedRange("slot_learning_rate_ratio", 0.1, 10.0, log=True)
DECAY = TunedRange("weight_decay", 0.0, 0.4)
OTHERS = [
    TunedRange("beta2", 0.9, 0.999),
    TunedRange("clip", 0.1, 10.0, log=True),
    TunedRange("slot_weight_decay", 0.0, 0.1),
]
OWN = {
    "learning_rate": 8e-3,
    "slot_learning_rate_ratio": 1.0,
    "weight_decay": 0.1,
    "beta2": 0.99,
    "clip": 1.0,
    "slot_weight_decay": 0.0,
}
BOUND = 0.4
"""The largest rank correlation of learning rate and slot rate that any number of trials from 4 on may have."""


def correlations(trials, names):
    """Spearman's, of every pair of settings, by size."""
    columns = {name: [trial[name] for trial in trials] for name in names}
    return [
        abs(stats.spearmanr(columns[one], columns[other]).statistic) for one, other in itertools.combinations(names, 2)
    ]


@pytest.mark.parametrize("own", [{}, {"slot_learning_rate_ratio": 0.1}, {"slot_learning_rate_ratio": 10.0}], ids=str)
def test_learning_rate_and_slot_rate_are_crossed_for_every_number_of_trials(own):
    """Wherever in its range the study's own slot rate is, over 100 tuning seeds."""
    for seed in range(100):
        trials = settings_to_try([RATE, SLOT], OWN | own, seed, 32)
        for count in range(4, 33):
            [correlation] = correlations(trials[:count], (RATE.name, SLOT.name))
            assert correlation <= BOUND, (seed, count)


def test_they_stay_crossed_for_hundreds_of_trials():
    trials = settings_to_try([RATE, SLOT], OWN, 0, 300)
    for count in range(32, 301, 4):
        assert correlations(trials[:count], (RATE.name, SLOT.name))[0] <= BOUND, count


@pytest.mark.parametrize("ranges", [[RATE, SLOT, DECAY], [RATE, SLOT, DECAY, *OTHERS]], ids=len)
def test_no_two_settings_of_a_larger_space_are_confounded(ranges):
    """From twice as many trials as settings on: fewer points can't all be crossed."""
    for seed in range(10):
        trials = settings_to_try(ranges, OWN, seed, 16)
        for count in range(2 * len(ranges), 17):
            assert max(correlations(trials[:count], [tuned.name for tuned in ranges])) <= 0.5, (seed, count)


@pytest.mark.parametrize("own", [{}, {"slot_learning_rate_ratio": 0.1}, {"slot_learning_rate_ratio": 10.0}], ids=str)
def test_every_half_quarter_and_eighth_of_a_range_is_tried_once(own):
    """On the scale of the range, the study's own settings included."""
    for seed in range(20):
        trials = settings_to_try([RATE, SLOT, DECAY], OWN | own, seed, 32)
        for tuned, parts in itertools.product((RATE, SLOT, DECAY), (2, 4, 8)):
            places = sorted(tuned.place(trial[tuned.name]) for trial in trials[:parts])
            for part, place in enumerate(places):  # four digits move a place a little
                assert part / parts - 1e-3 <= place <= (part + 1) / parts + 1e-3, tuned


def test_the_first_trial_is_the_studys_own_settings():
    for seed in range(3):
        first = settings_to_try([RATE, SLOT], OWN, seed, 4)[0]
        assert first == {"learning_rate": 8e-3, "slot_learning_rate_ratio": 1.0}


def test_more_trials_keep_the_first_ones_and_other_seeds_try_others():
    few, many = (settings_to_try([RATE, SLOT], OWN, 7, trials) for trials in (5, 50))
    assert many[:5] == few
    assert settings_to_try([RATE, SLOT], OWN, 8, 5)[1:] != few[1:]
    assert settings_to_try([SLOT, RATE], OWN, 7, 5) == few  # in whatever order a file names them
    assert len({tuple(trial.items()) for trial in many}) == 50


def test_one_setting_is_spread_as_well():
    rates = [trial["learning_rate"] for trial in settings_to_try([RATE], OWN, 0, 9)]
    assert len(set(rates)) == 9
    assert min(rates) < 6e-3 < statistics.median(rates) < 1.2e-2 < max(rates)


def test_nothing_to_tune_is_nothing_to_try():
    assert settings_to_try([], OWN, 0, 8) == ()
    assert settings_to_try([RATE], OWN, 0, 0) == ()


def test_settings_can_be_read_and_stay_within_their_range():
    """Four digits say them whole, and rounding leads out of no range."""
    narrow = TunedRange("learning_rate", 1.00004e-3, 1.00006e-3)
    for trial in settings_to_try([narrow], {"learning_rate": 1.00005e-3}, 0, 20):
        assert narrow.low <= trial["learning_rate"] <= narrow.high
    for trial in settings_to_try([RATE, SLOT], OWN, 3, 20):
        assert all(float(f"{value:.4g}") == value for value in trial.values())


def test_every_cell_of_a_study_tries_the_same_settings_on_the_same_seeds(tiny_study, tmp_path):
    study = ResolvedStudy(load_study(str(tiny_study()), trials=5), "f", capture(), tmp_path, "")
    tried = {}
    for run in study.tune_requests():
        tried.setdefault(run.cell, []).append((run.trial, run.seed, dict(run.parameters)))
    assert tried.keys() == set(study.spec.cells())
    [shared] = {repr(runs) for runs in tried.values()}
    assert len(tried[study.spec.reference()]) == 5
    assert "0.01" in shared  # the study's own learning rate
