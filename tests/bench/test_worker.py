"""A case measured in a process of its own."""

import pytest
import torch

from trans4init.bench.measure import Plan, peak_bytes
from trans4init.bench.worker import load_suite, measure_case

PLAN = Plan(rounds=3, sample_seconds=0.001, limit_seconds=5)


@pytest.fixture
def measured(suite_file, trouble):
    file = suite_file(trouble)
    suite = load_suite(file)
    case = suite.cases(quick=True)[0]
    return measure_case(file, suite, case, [one.name for one in suite.implementations(case)], PLAN)


def test_what_goes_wrong_is_that_ones_alone_and_the_others_go_on(measured):
    found = {name: (timing.status, timing.error.strip().splitlines()[-1:]) for name, timing in measured.timings.items()}
    assert found == {
        "times": ("ok", []),
        "plus": ("ok", []),
        "wrong": ("failed", ["wrong result, so no time: it is not twice the input"]),
        "absent": ("missing", ["needs a GPU"]),
        "raising": ("failed", ["RuntimeError: no such luck"]),
        "hungry": ("oom", ["all 3 GiB are gone"]),
        "dying": ("failed", ["its process ended with code 7"]),
        "hanging": ("failed", ["it was not heard of for 5 s"]),
    }
    for name in ("times", "plus"):
        timing = measured.timings[name]
        assert sorted(timing.samples) == [0, 1, 2]
        assert 0 < max(timing.samples.values()) < 1
        assert timing.first_call > 0
        assert timing.peak_bytes == pytest.approx(8 * 1000, abs=100)
    assert not any(measured.timings[name].samples for name in ("wrong", "absent", "raising", "hungry"))
    assert sorted(measured.rounds) == [0, 1, 2]


def test_the_baseline_is_first_and_only_the_named_are_measured(suite_file):
    file = suite_file()
    suite = load_suite(file)
    case = suite.cases(quick=True)[0]
    assert [one.name for one in suite.implementations(case)] == ["times", "plus"]
    assert list(measure_case(file, suite, case, ["plus"], PLAN).timings) == ["plus"]


def test_the_peak_counts_what_is_held_at_once_and_not_what_was_there():
    inputs = torch.ones(2**18)  # 1 MiB

    def call():
        one = inputs + 1
        two = one * 2
        del one
        return two + 3

    assert peak_bytes(call) == pytest.approx(2 * 2**20, abs=100)
