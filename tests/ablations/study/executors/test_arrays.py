"""The executor of arrays: which requests go together, how many, and what becomes of those that can't."""

import dataclasses
from dataclasses import dataclass

import pytest

from trans4init.ablations.study.executors.arrays import ArrayExecutor
from trans4init.ablations.study.executors.protocol import Apart, Died, Finished


@dataclass(frozen=True)
class Wanted:
    run_id: str
    kind: str | None
    anew: tuple[str, ...] = ()

    def begun_anew(self, why):
        return dataclasses.replace(self, anew=(*self.anew, why))


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
        (wanted("x", "abcdefghi"), ["abc", "def", "gh", "i"]),  # at most four; the last shared out
        (wanted("x", "abcd"), ["ab", "cd"]),  # for both places
        (wanted("x", "abcd") + wanted("y", "efgh"), ["abcd", "efgh"]),
        (wanted("x", "a") + wanted("y", "b") + wanted("x", "c"), ["ac", "b"]),  # those alike needn't come in a row
        (wanted("x", "a") + wanted("y", "bc"), ["a", "bc"]),
        (wanted(None, "ab") + wanted("x", "cd"), ["a", "b", "c", "d"]),
        (wanted("x", "abcd") + wanted("y", "efgh") + wanted("z", "ijkl"), ["abcd", "efgh", "ij", "k", "l"]),
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
    assert said == ["Too large.", "Too large."]  # four don't fit, and two don't


def test_an_array_whose_process_dies_is_begun_anew_half_as_many_at_a_time(play):
    def died(unit):
        return Died(unit, "The run's process was ended by SIGKILL")

    started, said = play(wanted("x", "abcd"), capacity=1, answers=[died])
    assert started == ["abcd", "ab", "cd"]
    assert said == ["The run's process was ended by SIGKILL; 4 runs are begun anew, 2 at a time."]


def test_runs_that_are_begun_anew_say_why_and_those_that_are_only_split_do_not():
    for answer, why in ((Died, "Killed."), (lambda unit, why: Apart(unit, why, True), "Killed."), (Apart, None)):
        places, events = Places(1), []
        places.answers = [lambda unit, answer=answer: answer(unit, "Killed" if answer is Died else "Killed.")]
        executor = ArrayExecutor(places, lambda request: request.kind, 2)
        for unit in wanted("x", "ab"):
            executor.submit(unit)
        while executor.running():
            executor.wait(events.append, 0)
        assert [event.requests[0].anew for event in events] == [(why,) if why else ()] * 2


def test_single_runs_and_units_of_another_kind_that_die_are_told():
    for unit in (wanted("x", "a")[0], (Wanted("a", None), Wanted("b", None))):
        places, events = Places(1), []
        places.answers = [Died(unit, "why")]
        executor = ArrayExecutor(places, lambda request: request.kind, 4)
        executor.submit(unit)
        executor.wait(events.append, 0)
        assert events == [Died(unit, "why")]


def test_a_limit_that_was_lowered_is_not_raised_again(play):
    answers = [lambda unit: Apart(unit, "Slower."), lambda unit: Apart(unit, "Too large.", smaller=True)]
    started, _ = play(wanted("x", "abcdefgh"), capacity=2, answers=answers)
    assert [len(unit) for unit in started] == [4, 4, 1, 1, 1, 1, 1, 1, 1, 1]


def test_what_is_given_back_after_a_stop_is_not_started():
    places = Places(1)
    places.answers = [lambda unit: Apart(unit, "Slower.")]
    executor = ArrayExecutor(places, lambda request: request.kind, 2)
    for unit in wanted("x", "abcd"):
        executor.submit(unit)
    places.capacity = 1
    executor._executor.submit(executor._next(2))
    executor.forget_waiting()
    executor.wait(lambda event: None, 0)
    assert (places.started, executor.running()) == (["ab"], 0)


def test_units_that_were_begun_before_are_started_first_and_as_they_were():
    places = Places(2)
    begun = [["b", "e", "f"], ["a", "z"]]
    executor = ArrayExecutor(places, lambda request: request.kind, 4, begun=begun)
    for unit in wanted("x", "abcdef"):
        executor.submit(unit)
    executor.wait(lambda event: None, 0)
    assert places.started == ["bef", "acd"]


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
