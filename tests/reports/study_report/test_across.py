"""Arms over several studies: which seeds and studies count, in which direction, and in which unit."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import trim_mean

from trans4init.reports.records.schema import CellKey, Measurement, Metric
from trans4init.reports.study_report.across import across_studies
from trans4init.reports.study_report.summary import summarise

FROZEN, TABLE = CellKey("sinusoidal", "learned-frozen", "fourier-mlp"), CellKey("learned-table", "free-table")
LOSS, ACCURACY = Metric("validation_loss", "nats/token", False), Metric("accuracy", "1", True)


@pytest.fixture
def study(make_record, card):
    """A study's summary, from the differences of each cell by seed."""

    def make(name, metric, margin, differences):
        of_study = dataclasses.replace(
            card, name=name, metric=metric.name, margin=margin, cells=(card.reference, *differences), seeds=20
        )
        records = [
            make_record(cell=cell, seed=seed, run_id=f"{cell}-{seed}", measurements=(Measurement(metric, value, 9),))
            for cell, shifts in ({card.reference: [0.0] * 20} | differences).items()
            for seed, shift in enumerate(shifts)
            for value in [3 + seed / 8 + shift]
        ]
        return summarise(records, of_study)

    return make


def test_gains_are_in_margins_in_the_direction_that_is_better(study):
    worse, better = [0.02, 0.04, 0.06, 0.08, 0.1], [0.5, 0.25, -0.25, 0.75]
    found = across_studies(
        [study("a", LOSS, 0.02, {FROZEN: worse, TABLE: worse}), study("b", ACCURACY, 0.25, {FROZEN: better})]
    )
    [frozen] = found  # the table is in one study alone
    scores = [-1, -2, -3, -4, 2, 1, -1, 3]  # of the fifth seed study b has nothing
    assert (frozen.arm, frozen.studies, frozen.seeds) == ("learned-frozen · fourier-mlp", ("a", "b"), 4)
    assert frozen.gain.value == pytest.approx(trim_mean(scores, 0.25))
    assert frozen.improvement.value == pytest.approx(3 / 8)
    assert frozen.gain.interval.low < frozen.gain.value < frozen.gain.interval.high
    share = dict(zip(np.round(frozen.profile.thresholds, 1).tolist(), frozen.profile.shares, strict=True))
    assert share[0.5].value == pytest.approx(3 / 8)
    assert share[-2.5].value == pytest.approx(6 / 8)


def test_two_studies_of_one_name_are_refused(study):
    same = [study("a", LOSS, 0.02, {FROZEN: [0.1, 0.2]}), study("a", LOSS, 0.02, {FROZEN: [0.3, 0.4]})]
    with pytest.raises(ValueError, match="two studies are called 'a'"):
        across_studies(same)


def test_single_fits_and_one_study_compare_nothing(study, make_record):
    assert across_studies([study("a", LOSS, 0.02, {FROZEN: [0.1, 0.2]})]) == ()
    fits = summarise([dataclasses.replace(make_record(phase="fit"), card=None)])
    with pytest.raises(ValueError, match="single fits have no arms"):
        across_studies([fits])
