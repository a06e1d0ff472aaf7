"""Ctrl-C lets the runs under way finish; where there are none, the coordinator stops at once."""

import signal
from types import SimpleNamespace

import pytest

from trans4init.ablations.study.coordinator import Coordinator
from trans4init.ablations.study.executors.protocol import Advanced


class Runs:
    """An executor and a display: Ctrl-C comes while a run is started, or while it goes on."""

    capacity = 1

    def __init__(self, moment):
        self.moment, self.said, self.left = moment, [], 0

    def submit(self, requests):
        self.left = 3
        if self.moment == "start":
            signal.raise_signal(signal.SIGINT)

    def wait(self, on_event, timeout):
        if self.left == 3 and self.moment == "run":
            signal.raise_signal(signal.SIGINT)
        on_event(Advanced((SimpleNamespace(run_id="a"),), 1, 3, 0.5))
        self.left -= 1

    def running(self):
        return min(self.left, 1)

    def stop(self):
        self.left = 0

    def say(self, line):
        self.said.append(line)

    def started(self, requests):
        pass

    advanced = started


def coordinator(runs):
    request = SimpleNamespace(run_id="a", phase="tune")
    study = SimpleNamespace(spec=SimpleNamespace(cells=list), command="trans4init run s")
    agenda = SimpleNamespace(study=study, next=lambda *_: (request,), complete=lambda: False)
    return Coordinator(agenda, runs, SimpleNamespace(parameters=None), None, runs)


def test_ctrl_c_while_the_first_run_starts_stops_at_once(interruptible):
    runs = Runs("start")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        coordinator(runs).run()
    assert (runs.said, runs.left) == ([], 0)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_a_run_goes_on_lets_it_finish_and_is_told_once(interruptible):
    runs = Runs("run")
    assert not coordinator(runs).run()
    [line] = runs.said
    assert line.startswith("Stopping when the 1 run under way is finished; Ctrl-C again stops now.")
    assert line.endswith("To continue later: trans4init run s")
