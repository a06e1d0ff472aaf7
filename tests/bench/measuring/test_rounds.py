"""What a sample's seconds, a first call and an interruption are, by a clock of the test's own."""

from typing import ClassVar

import pytest
import torch

from trans4init.bench.measuring import conditions
from trans4init.bench.measuring import rounds as measuring
from trans4init.bench.measuring.conditions import Observer
from trans4init.bench.measuring.rounds import Checked, Plan, Planned, Round, Sample, check_and_time
from trans4init.bench.suite import Case, Suite

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is timed by its own events")

CHECKING, PREPARING, CALLING = 100.0, 10.0, 0.002


class Clock:
    """Stands in for the module `time`; also counts the seconds that threads waited for a core."""

    def __init__(self):
        self.now = self.waited = 0.0

    def perf_counter(self):
        return self.now

    monotonic = perf_counter

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (measuring, conditions):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(measuring, "seconds_waited", lambda: clock.waited)
    return clock


@pytest.fixture
def messages(clock):
    """Checks and times one implementation by the clock; returns the messages by their type."""

    def run(plan, *, cold=False, waited=0.0, calling=CALLING):
        def check(*_):
            clock.now += CHECKING
            return ""

        suite = Suite("clockwork", list, lambda case: None, check, baseline="it")

        @suite.implementation("it")
        def prepare(_):
            clock.now += PREPARING

            def call():
                clock.now += calling
                clock.waited += waited

            return call

        sent = {}
        check_and_time(suite, Case("run", cold=cold), ["it"], plan, lambda m: sent.setdefault(type(m), []).append(m))
        return sent

    return run


@pytest.mark.parametrize(("calling", "calls"), [(0.002, 5), (0.02, 1)])
def test_a_sample_is_the_mean_of_as_many_calls_as_fill_its_time(messages, clock, calling, calls):
    sent = messages(Plan(rounds=2, sample_seconds=0.01), calling=calling)
    assert [sample.seconds for sample in sent[Sample]] == pytest.approx([calling] * 2)
    before = CHECKING + PREPARING + calling * (2 + measuring._TRIES if calls > 1 else 3)  # first, peak and paced calls
    pauses = 3 * measuring._PAUSE_SECONDS
    assert clock.now == pytest.approx(before + pauses + 3 * calls * calling)  # a round warms up


def test_the_first_call_is_timed_with_its_preparation_and_without_its_check(messages):
    [checked] = messages(Plan(rounds=2))[Checked]
    assert checked.first_call == pytest.approx(PREPARING + CALLING)


def test_a_cold_call_is_timed_without_preparation_and_check(messages):
    sent = messages(Plan(rounds=3), cold=True)
    assert [sample.seconds for sample in sent[Sample]] == pytest.approx([CALLING] * 3)
    assert [checked.first_call for checked in sent[Checked]] == pytest.approx([CALLING])
    assert [checked.peak_bytes for checked in sent[Checked]] == [None]


@pytest.mark.parametrize(("share", "interrupted"), [(0.009, False), (0.011, True)])
def test_a_sample_is_interrupted_that_waited_for_a_hundredth_of_its_time(messages, share, interrupted):
    sent = messages(Plan(rounds=2, sample_seconds=0.01), waited=share * CALLING)
    assert [sample.interrupted for sample in sent[Sample]] == [interrupted] * 2


@pytest.mark.parametrize(("seconds", "rounds"), [(10.0, 20), (0.1, 10), (0.01, 8)])
def test_rounds_are_as_many_as_the_plan_has_time_for_and_at_least_eight(messages, seconds, rounds):
    sent = messages(Plan(rounds=20, seconds=seconds, sample_seconds=0.01))
    assert [planned.rounds for planned in sent[Planned]] == [rounds]
    assert [sample.round for sample in sent[Sample]] == [round_.round for round_ in sent[Round]] == list(range(rounds))


class Watched(Observer):
    """Notes the length of each stretch."""

    lengths: ClassVar[list[float]] = []

    def close(self):
        self.lengths.append(self.seconds())
        return super().close()


def test_the_last_rounds_are_not_marked_by_a_stretch_too_short_to_tell(messages, monkeypatch):
    monkeypatch.setattr(measuring, "Observer", Watched)
    monkeypatch.setattr(Watched, "lengths", [])
    sent = messages(Plan(rounds=12), calling=0.06)
    assert len(sent[Round]) == 12
    _, *stretches = Watched.lengths  # the first stretch ends before the rounds begin
    assert sum(stretches) == pytest.approx(13 * (0.06 + measuring._PAUSE_SECONDS))
    assert min(stretches) > 0.3
