"""Fixtures: a suite of a few implementations, some of which fail, pytest on it, and the command `trans4init bench`."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

SUITE = '''
"""A suite for tests."""

import os
import time

import torch

from trans4init.bench.replay import test_implementation
from trans4init.bench.suite import Case, MissingError, Suite


def check(inputs, implementation, result):
    return "" if torch.equal(result, inputs * 2) else "it is not twice the input"


SMALL = Case("double", "1k", {"length": 1000}, flop=1e3, bytes=8e3, quick=True)
CASES = [SMALL, Case("double", "2k", {"length": 2000})]
SUITE = Suite("doubling", lambda: CASES, lambda case: torch.arange(case.shape["length"]), check, baseline="times")


@SUITE.implementation("times")
def times(inputs):
    return lambda: inputs * 2


@SUITE.implementation("plus")
def plus(inputs):
    return lambda: inputs + inputs
'''
TROUBLE = """

@SUITE.implementation("wrong")
def wrong(inputs):
    return lambda: inputs * 3


@SUITE.implementation("absent")
def absent(inputs):
    raise MissingError("needs a GPU")


@SUITE.implementation("raising")
def raising(inputs):
    raise RuntimeError("no such luck")


@SUITE.implementation("hungry")
def hungry(inputs):
    raise torch.OutOfMemoryError("all 3 GiB are gone")


@SUITE.implementation("hungry on the processor")
def hungry_on_the_processor(inputs):
    return lambda: torch.empty(2**58)


@SUITE.implementation("dying")
def dying(inputs):
    return lambda: os._exit(7)


@SUITE.implementation("hanging")
def hanging(inputs):
    return lambda: time.sleep(1000)
"""


@pytest.fixture
def suite_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the suite with more source text after it, and returns its file."""

    def write(more: str = "") -> Path:
        path = tmp_path / "bench_doubling.py"
        path.write_text(SUITE + more)
        return path

    return write


@pytest.fixture
def trouble() -> str:
    """Source text of implementations that fail, each in another way."""
    return TROUBLE


@pytest.fixture
def start_benchmark(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `python -m pytest FILE …` with the benchmark's plugin, and with the lock in the test's folder."""

    def start(file: Path, *words: object) -> subprocess.Popen[str]:
        # pytest-xdist sets these in its processes, and pytest-benchmark then doesn't measure.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        folders = filter(None, [os.environ.get("PYTHONPATH", ""), str(tmp_path)])
        blocker = ["blocker"] if (tmp_path / "blocker.py").exists() else []
        plugins = [word for name in (*blocker, "trans4init.bench.plugin", "no:cacheprovider") for word in ("-p", name)]
        options = ["--rootdir", tmp_path, "--out", tmp_path / "out", "--minutes", 60, *words]  # no case is left out
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", *plugins, *map(str, [file, *options])],
            cwd=tmp_path,
            env=clean | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A test run in a script's background ignores Ctrl-C, and so would the processes that it starts.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.fixture
def run_benchmark(start_benchmark: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str]]:
    """Runs it to its end, and returns the exit code and everything it printed."""

    def run(file: Path, *words: object) -> tuple[int, str]:
        process = start_benchmark(file, *words)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    return run


@pytest.fixture
def run_bench(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs `trans4init bench …` with the lock in the test's folder; returns the exit code and everything it printed."""

    def run(*words: str, folder: Path | str = tmp_path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trans4init.bench.cli", *words],
            cwd=folder,
            env=os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run
