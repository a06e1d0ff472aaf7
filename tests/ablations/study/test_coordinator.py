"""Ctrl-C lets the runs under way finish; where there are none, the coordinator stops at once."""

import errno
import signal
from types import SimpleNamespace

import pytest

from trans4init.ablations.errors import FaultError
from trans4init.ablations.study.coordinator import Coordinator
from trans4init.ablations.study.executors.protocol import Advanced, Finished
from trans4init.reports.records.store import load_results


class Runs:
    """Is an executor and a display: Ctrl-C comes while a run is started, or while it goes on."""

    capacity = 1
    forgotten = False

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

    def forget_waiting(self):
        self.forgotten = True

    def stop(self):
        self.left = 0

    def say(self, line):
        self.said.append(line)

    def started(self, requests):
        pass

    advanced = started


def coordinator(runs):
    request = SimpleNamespace(run_id="a", phase="tune")
    study = SimpleNamespace(spec=SimpleNamespace(cells=list), command="trans4init run s", spec_hash="h")
    agenda = SimpleNamespace(study=study, next=lambda *_: (request,), lost=list, stopped=list, complete=lambda: False)
    agenda.blocks, agenda.block_of = (agenda,), lambda run: agenda
    return Coordinator(agenda, runs, {"h": SimpleNamespace(behind="", was_replaced=lambda: False)}, None, runs)


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
    assert line.startswith("Stopping when the runs under way are finished; Ctrl-C again stops now.")
    assert line.endswith("To continue later: trans4init run s")


class Finishing(Runs):
    """Is an executor whose one run finishes at once, and keeps something of its slots."""

    def __init__(self, record):
        super().__init__("never")
        self.record = record

    def wait(self, on_event, timeout):
        self.left = 0
        on_event(Finished((SimpleNamespace(run_id="a"),), (self.record,), {"a": b"kept"}))

    def finished(self, record):
        pass


@pytest.fixture
def finishing(tmp_path, make_record):
    """A coordinator of one run, in a folder."""
    record = make_record(run_id="a")
    runs = Finishing(record)
    made = coordinator(runs)
    agenda, asked = made._agenda, []
    agenda.study.folder, agenda.study.results = tmp_path, tmp_path / "results"
    agenda.next = lambda *_: () if asked else asked.append(1) or (SimpleNamespace(run_id="a", phase="tune"),)
    agenda.add, agenda.trials, agenda.complete = lambda record: None, lambda cell: [], lambda: True
    made._mirror = SimpleNamespace(add=lambda record: None)
    return made


def test_what_a_run_kept_is_written_with_its_record(finishing, tmp_path):
    assert finishing.run()
    assert (tmp_path / "slots" / "a.safetensors").read_bytes() == b"kept"
    assert [record.run_id for record in load_results(tmp_path / "results").records] == ["a"]


def test_a_run_whose_slots_can_not_be_written_is_not_finished(finishing, tmp_path, monkeypatch):
    """As on a full disk: one sentence, and no record that would make a resumed study take it for done."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trans4init.ablations.study.coordinator.write_kept", refuse)
    with pytest.raises(
        FaultError, match=r"^the result of a run can't be written to .*results: No space left on device$"
    ):
        finishing.run()
    assert load_results(tmp_path / "results").records == ()


@pytest.mark.parametrize(
    ("status", "fail_fast", "started"), [("failed", True, 1), ("failed", False, 3), ("diverged", True, 3)]
)
def test_fail_fast_starts_no_run_after_one_that_failed(finishing, make_record, status, fail_fast, started):
    """One that diverged is a result, as any other."""
    asked = []
    finishing._fail_fast = fail_fast
    finishing._executor.record = make_record(run_id="a", status=status)
    finishing._agenda.next = lambda *_: (
        asked.append(1) or (SimpleNamespace(run_id="a", phase="tune"),) if len(asked) < 3 else ()
    )
    finishing.run()
    assert len(asked) == started
    assert finishing._executor.forgotten == (started == 1)  # else an executor of arrays starts those that wait
