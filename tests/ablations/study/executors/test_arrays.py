"""The executor of arrays: which requests go together, how many, and what becomes of those that can't."""

from dataclasses import dataclass

import pytest

from trans4init.ablations.study.executors.arrays import ArrayExecutor
from trans4init.ablations.study.executors.protocol import Apart, Finished


@dataclass(frozen=True)
class Wanted:
    run_id: str
    kind: str | None


class Places:
    """An executor whose units end when the test says so."""

    def __init__(self, capacity):
        self.capacity, self.units, self.started, self.answers = capacity, [], [], []

    def submit(self, requests):
        self.units.append(requests)
        self.started.append("".join(request.run_id for request in requests))

    def wait(self, on_event, timeout):
        if self.units:
            unit = self.units.pop(0)
            answer = self.answers.pop(0) if self.answers else Finished(unit, unit)
            on_event(answer(unit) if callable(answer) else answer)

    def running(self):
        return len(self.units)

    def forget_waiting(self):
        self.forgotten = True

    def stop(self):
        self.units.clear()


def wanted(kind, ids):
    return [(Wanted(run_id, kind),) for run_id in ids]


@pytest.fixture
def play():
    """Submits units, runs all of them, and returns what was started in which order, and what was said."""

    def run(submissions, capacity=2, size=4, answers=()):
        places, said, events = Places(capacity), [], []
        places.answers = list(answers)
        executor = ArrayExecutor(places, lambda request: request.kind, size, said.append)
        for unit in submissions:
            executor.submit(unit)
        assert executor.running() == len(submissions)
        while executor.running():
            executor.wait(events.append, 0)
        assert sorted(r.run_id for event in events for r in event.requests) == sorted(
            r.run_id for unit in submissions for r in unit
        )
        return places.started, said

    return run


@pytest.mark.parametrize(
    ("submissions", "started"),
    [
        (wanted("x", "abcdefghi"), ["abc", "def", "ghi"]),  # nine of at most four: three units of three
        (wanted("x", "abcd"), ["ab", "cd"]),  # for both places
        (wanted("x", "abcd") + wanted("y", "efgh"), ["abcd", "efgh"]),
        (wanted("x", "a") + wanted("y", "b") + wanted("x", "c"), ["ac", "b"]),  # those alike needn't come in a row
        (wanted("x", "a") + wanted("y", "bc"), ["a", "bc"]),
        (wanted(None, "ab") + wanted("x", "cd"), ["a", "b", "cd"]),
        ([(Wanted("a", "x"), Wanted("b", "x")), *wanted("x", "c")], ["ab", "c"]),  # a unit stays as it is
    ],
)
def test_requests_that_are_alike_start_together_shared_out_evenly(play, submissions, started):
    assert play(submissions)[0] == started


def test_what_gains_nothing_together_is_run_alone_and_so_is_all_of_its_kind(play):
    def apart(unit):
        return Apart(unit, "Slower.")

    started, said = play(wanted("x", "abcdef") + wanted("y", "ghij"), capacity=1, answers=[apart])
    assert started[0] == "abc"
    assert sorted(started[1:]) == sorted(["a", "b", "c", "d", "e", "f", "ghij"])
    assert said == ["Slower."]


def test_what_doesnt_fit_into_memory_is_halved_until_it_does(play):
    def apart(unit):
        return Apart(unit, "Too large.", smaller=True)

    started, said = play(wanted("x", "abcd"), capacity=1, answers=[apart, apart])
    assert started == ["abcd", "ab", "a", "b", "c", "d"]
    assert said == ["Too large."]


def test_waiting_requests_can_be_forgotten_and_all_be_stopped():
    places = Places(1)
    executor = ArrayExecutor(places, lambda request: request.kind, 2)
    for unit in wanted("x", "abcdef") + wanted(None, "g"):
        executor.submit(unit)
    executor.wait(lambda event: None, 0)
    assert (places.started, executor.running()) == (["g"], 6)
    executor.forget_waiting()
    assert executor.running() == 0
    assert places.forgotten
    for unit in wanted("x", "ab"):
        executor.submit(unit)
    executor.stop()
    assert executor.running() == 0
