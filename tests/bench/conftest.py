"""A suite of a few implementations, among them some that go wrong, and pytest on it as a user would start it."""

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
    """Writes the suite, with more words after it; its file."""

    def write(more: str = "") -> Path:
        path = tmp_path / "bench_doubling.py"
        path.write_text(SUITE + more)
        return path

    return write


@pytest.fixture
def trouble() -> str:
    """Implementations that go wrong, each in another way."""
    return TROUBLE


@pytest.fixture
def start_benchmark(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `python -m pytest FILE …` with the benchmark's plugin, and a lock of the test's own."""

    def start(file: Path, *words: object) -> subprocess.Popen[str]:
        # A process of a parallel test run tells pytest-benchmark by these not to measure.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        found = filter(None, [os.environ.get("PYTHONPATH", ""), str(tmp_path)])
        first = ["-p", "blocker"] if (tmp_path / "blocker.py").exists() else []
        known = [
            "-m",
            "pytest",
            *first,
            "-p",
            "trans4init.bench.plugin",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            tmp_path,
        ]
        return subprocess.Popen(
            [sys.executable, "-P", *map(str, known), str(file), "--out", str(tmp_path / "out"), *map(str, words)],
            cwd=tmp_path,
            env=clean | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(found)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A test run that a script has put into the background ignores Ctrl-C, and so would what it starts.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.fixture
def run_benchmark(start_benchmark: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str]]:
    """Runs it to its end: exit code and everything it printed."""

    def run(file: Path, *words: object) -> tuple[int, str]:
        process = start_benchmark(file, *words)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    return run
