"""Studies from their command: runs one after the other, a process each, and as arrays of trials where there are any."""

import shutil
import string
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("pydantic", reason="a study's sizes need pydantic")

from trans4init.ablations.model_config import ModelSize
from trans4init.bench.floors import training_floor
from trans4init.bench.ledger import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, MissingError, Suite, scratch_folder

_COMMAND = "import sys; from trans4init.ablations.cli import main\nif __name__ == '__main__': main(sys.argv[1:])"
_STUDY = string.Template("""
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
steps = $steps
batch = 12

[evaluation]
seeds = $seeds
margin = 0.05

[throughput]
rounds = 2
""")
_ARMS, _LAYERS, _WIDTH, _CONTEXT, _BATCH, _VOCABULARY = 3, 2, 64, 64, 12, 256


@dataclass(frozen=True)
class _Inputs:
    folder: Path
    runs: int


def _cases() -> list[Case]:
    return [_case(seeds=1, steps=20, quick=True), _case(seeds=4, steps=100, quick=False)]


def _case(*, seeds: int, steps: int, quick: bool) -> Case:
    runs = _ARMS * seeds
    model = ModelSize(layers=_LAYERS, width=_WIDTH, heads=4, context=_CONTEXT)
    step = training_floor(model, _VOCABULARY, _BATCH)
    return Case(
        "a study",
        f"{runs} runs of {steps} steps, decoder {_LAYERS}×{_WIDTH}, its report included",
        {"runs": runs, "seeds": seeds, "steps": steps},
        flop=runs * steps * step.flop,
        bytes=runs * steps * step.bytes,
        runs=runs,
        quick=quick,
    )


def _inputs(case: Case) -> _Inputs:
    folder = scratch_folder()
    (folder / "text.txt").write_bytes(b"".join(bytes([32 + i * i % 91]) for i in range(40_000)))
    (folder / "timed.toml").write_text(_STUDY.substitute(case.shape))
    (folder / "command.py").write_text(_COMMAND)
    return _Inputs(folder, case.shape["runs"])


def _check(inputs: _Inputs, implementation: str, result: subprocess.CompletedProcess[str]) -> str:
    runs = len(list((inputs.folder / "runs" / "timed" / "results").glob("evaluate-*.parquet")))
    if result.returncode or runs != inputs.runs:
        return f"exit code {result.returncode}, {runs} of {inputs.runs} runs: {result.stderr.strip()[-200:]}"
    return ""


SUITE = Suite("studies", _cases, _inputs, _check, baseline="one at a time", memory=False, rounds=3)


@SUITE.implementation("one at a time")
def _inline(inputs: _Inputs) -> Call:
    return _study(inputs, "inline")


@SUITE.implementation("a process each")
def _processes(inputs: _Inputs) -> Call:
    return _study(inputs, "process")


@SUITE.implementation("trial arrays")
def _arrays(inputs: _Inputs) -> Call:
    raise MissingError("not available: a study trains its runs one model at a time")


def _study(inputs: _Inputs, executor: str) -> Call:
    words = [sys.executable, "-P", "command.py", "run", "timed.toml", "--executor", executor]

    def call() -> subprocess.CompletedProcess[str]:
        shutil.rmtree(inputs.folder / "runs", ignore_errors=True)
        return subprocess.run(words, cwd=inputs.folder, capture_output=True, text=True, check=False)

    return call
