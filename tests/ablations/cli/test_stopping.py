"""A command that is told to stop says how to go on, and ends with 130 or 143, whatever it is doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trans4init.ablations.cli.stopping import TerminatedError, answered_signals, stop_handler

SCRIPT = str(Path(sys.executable).with_name("trans4init"))


def told_at_its_start(number, *words):
    """Run a command whose signal has come before it can answer."""

    def tell():
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        os.kill(os.getpid(), number)

    return subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=tell)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", [("ls", "arms"), ("bench", "--suite", "machine")])
def test_told_at_its_start_a_command_says_how_to_go_on(number, code, words):
    done = told_at_its_start(number, SCRIPT, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"Stopped; to continue: trans4init {' '.join(words)}\n"


def test_the_process_that_a_benchmark_measures_in_says_nothing():
    done = told_at_its_start(signal.SIGINT, sys.executable, "-P", "-m", "trans4init.bench.pytest_process")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)])
def test_a_signal_raises_within_and_is_answered_as_before_afterwards(number, error):
    before = signal.getsignal(number)
    with pytest.raises(error), answered_signals("trans4init ls"):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_while_a_module_is_imported_the_process_ends_at_once(tmp_path, monkeypatch):
    """An exception would be raised in the module, and many are lost there."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    (tmp_path / "told_amid_import.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGTERM, stop_handler(lambda: ended.append("said")))
    try:
        with pytest.raises(TerminatedError):  # os._exit, which ends nothing here, returns
            import told_amid_import  # noqa: F401
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == ["said", 143]
