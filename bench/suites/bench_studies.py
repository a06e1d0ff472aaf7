"""A small study from its command: its runs one after the other, and a process each. Not part of the quick pass."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trans4init.bench.ledger import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite

_COMMAND = "import sys; from trans4init.ablations.cli import main\nif __name__ == '__main__': main(sys.argv[1:])"
_STUDY = """
name = "timed"
question = "How many runs an hour?"
function = "sinusoidal"
arms = ["analytic", "none", "free-table"]

[task]
source = "text.txt"

[model]
layers = 2
width = 64
heads = 4
context = 64

[training]
steps = 100
batch = 12

[evaluation]
seeds = 4
margin = 0.05

[throughput]
rounds = 2
"""
_RUNS = 12


@dataclass(frozen=True)
class _Inputs:
    folder: Path


def _cases() -> list[Case]:
    return [Case("a study", f"{_RUNS} runs of 100 steps, decoder 2×64, its report included", {"runs": _RUNS})]


def _inputs(case: Case) -> _Inputs:
    folder = Path(tempfile.mkdtemp(prefix="trans4init-bench-"))
    (folder / "text.txt").write_bytes(b"".join(bytes([32 + i * i % 91]) for i in range(40_000)))
    (folder / "timed.toml").write_text(_STUDY)
    (folder / "command.py").write_text(_COMMAND)
    return _Inputs(folder)


def _check(inputs: _Inputs, implementation: str, result: subprocess.CompletedProcess[str]) -> str:
    runs = len(list((inputs.folder / "runs" / "timed" / "results").glob("evaluate-*.parquet")))
    if result.returncode or runs != _RUNS:
        return f"exit code {result.returncode}, {runs} of {_RUNS} runs: {result.stderr.strip()[-200:]}"
    return ""


SUITE = Suite("studies", _cases, _inputs, _check, baseline="one at a time", memory=False, rounds=3)


@SUITE.implementation("one at a time")
def _inline(inputs: _Inputs) -> Call:
    return _study(inputs, "inline")


@SUITE.implementation("a process each")
def _processes(inputs: _Inputs) -> Call:
    return _study(inputs, "process")


def _study(inputs: _Inputs, executor: str) -> Call:
    words = [sys.executable, "-P", "command.py", "run", "timed.toml", "--executor", executor]

    def call() -> subprocess.CompletedProcess[str]:
        shutil.rmtree(inputs.folder / "runs", ignore_errors=True)
        return subprocess.run(words, cwd=inputs.folder, capture_output=True, text=True, check=False)

    return call
