"""The live view and the plain lines say the same things of a study."""

import io

import pytest
from rich.console import Console

from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.display import Clock, LiveDisplay, PlainDisplay, duration, make_display
from trans4init.ablations.study.executors.protocol import Advanced
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement

ANALYTIC = CellKey("sinusoidal", "analytic")


@pytest.fixture
def agenda(tiny_study, tmp_path):
    return Agenda(ResolvedStudy(load_study(str(tiny_study())), "f", capture(), tmp_path, "again"), [], [])


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, force_interactive=False)


def play(agenda, display):
    """One trial that runs and ends well, one that diverges."""
    with display:
        for trial, (value, status, error) in enumerate([(2.5, "ok", ""), (None, "diverged", "the loss is nan")]):
            request = next(run for run in agenda.study.tune_requests() if (run.cell, run.trial) == (ANALYTIC, trial))
            display.started((request,))
            display.advanced(Advanced((request,), 4, 6, 3.25))
            if isinstance(display, LiveDisplay):
                display._console.print(display._view())
            record = agenda.study.record(request, [Measurement(VALIDATION_LOSS, value, 6)], status=status, error=error)
            agenda.add(record)
            display.finished(record)
        display.say("a line of its own")
        if isinstance(display, LiveDisplay):
            display._console.print(display._view())
    return display._console.file.getvalue()


def test_a_terminal_gets_the_live_view_and_a_pipe_plain_lines(agenda):
    assert isinstance(make_display(agenda, console(True)), LiveDisplay)
    assert isinstance(make_display(agenda, console(False)), PlainDisplay)


def test_plain_lines(agenda):
    lines = play(agenda, PlainDisplay(agenda, console(False))).splitlines()
    assert lines[0].startswith("[ 1/22] tune analytic trial 0 seed 1000: validation_loss 2.5000, ")
    assert lines[1].startswith("[ 2/22] tune analytic trial 1 seed 1000: diverged (the loss is nan)")
    assert lines[2] == "a line of its own"


def test_a_fit_says_nothing_of_how_long_the_runs_will_take(agenda):
    clock = Clock(agenda)
    fit = agenda.study.fit_request("fourier-mlp")
    agenda.add(agenda.study.record(fit, [Measurement(VALIDATION_LOSS, 1.0)]))
    assert clock.remaining() is None
    trial = agenda.study.tune_requests()[0]
    agenda.add(agenda.study.record(trial, [Measurement(VALIDATION_LOSS, 1.0)]))
    assert clock.remaining() > 10 * clock.elapsed()  # 20 of 22 are left


def test_the_live_view_shows_how_far_what_runs_what_failed_and_the_best(agenda):
    shown = play(agenda, LiveDisplay(agenda, console(True)))
    for words in ("tiny", "0/22 done", "1 running", "step 4/6, loss 3.25", "2/22 done", "1 failed", "2.5000", "2/2"):
        assert words in shown, words
    assert "learned-table (free-table)" in shown


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (125, "2 min 05 s"), (12000, "3 h 20 min")])
def test_durations_are_said_as_a_person_says_them(seconds, words):
    assert duration(seconds) == words
