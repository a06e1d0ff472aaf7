"""When a run's steps were measured is told from the seconds that it recorded."""

from datetime import timedelta

import pytest

from trans4init.reports.records.metrics import VALIDATION_LOSS, WALL_TIME
from trans4init.reports.records.moments import began_at, measured_at
from trans4init.reports.records.schema import Measurement


@pytest.mark.parametrize(
    ("seconds_by_step", "took", "after"),
    [
        ({10: 4.0, 30: 12.0}, 12.0, {0: 0.0, 5: 2.0, 10: 4.0, 20: 8.0, 30: 12.0}),
        ({0: 7.0}, 7.0, {0: 7.0, 10: 7.0, 30: 7.0}),  # as older runs have it
        ({}, 0.0, {0: 0.0, 30: 0.0}),
    ],
)
def test_a_step_was_measured_after_its_seconds(make_record, seconds_by_step, took, after):
    rows = [Measurement(VALIDATION_LOSS, 2.0, 30)]
    rows += [Measurement(WALL_TIME, seconds, step) for step, seconds in seconds_by_step.items()]
    record = make_record(measurements=tuple(rows))
    assert began_at(record) == record.created_at - timedelta(seconds=took)
    assert {step: (measured_at(record)(step) - began_at(record)).total_seconds() for step in after} == after
