"""Measure how long commands take to start: imports, `--help`, a finished study, a report of a million rows."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite, scratch_folder
from trans4init.bench.suites.processes import run_python
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord, StudyCard
from trans4init.reports.records.store import write_together

_ROWS = 1_000_000
_RUNS = 200
_STUDY = """
name = "finished"
question = "Is there nothing to do?"
function = "sinusoidal"
arms = ["analytic", "none"]

[task]
source = "text.txt"
evaluation_tokens = 64

[model]
layers = 1
width = 8
heads = 2
context = 8

[training]
steps = 4
batch = 2
learning_rate = 1e-2
evaluations = 2

[evaluation]
seeds = 2
margin = 0.05

[throughput]
rounds = 2
steps_per_round = 1
"""
_COMMAND = "import sys; from trans4init.ablations.cli import main; main(sys.argv[1:])"


@dataclass(frozen=True)
class _Inputs:
    words: list[str]
    folder: Path
    answer: str
    """Text that the output of a command that worked contains."""


def _cases() -> list[Case]:
    return [
        Case("python -c 'import torch'", quick=True, rounds=3, cold=True),
        Case("import trans4init.ablations.transformer", rounds=5, cold=True),
        Case("trans4init --help", quick=True, rounds=5, cold=True),
        Case("trans4init run", "a study of which nothing is left to run", quick=True, rounds=3, cold=True),
        Case("trans4init report", f"{_ROWS:,} rows", {"rows": _ROWS}, rounds=3, cold=True),
    ]


def _inputs(case: Case) -> _Inputs:
    folder = scratch_folder()
    if case.operator.startswith("python"):
        return _Inputs(["-c", "import torch; print('done')"], folder, "done")
    if case.operator.startswith("import"):
        return _Inputs(["-c", "import trans4init.ablations.transformer; print('done')"], folder, "done")
    if case.operator == "trans4init --help":
        return _Inputs(["-c", _COMMAND, "--help"], folder, "doctor")
    if case.operator == "trans4init run":
        return _finished_study(folder)
    _write_rows(folder)
    return _Inputs(["-c", _COMMAND, "report", str(folder)], folder, "report.html")


def _finished_study(folder: Path) -> _Inputs:
    """Run a study to its end; the inputs are the same command again."""
    (folder / "text.txt").write_bytes(b"".join(bytes([32 + i * i % 91]) for i in range(4000)))
    (folder / "finished.toml").write_text(_STUDY)
    words = ["-c", _COMMAND, "run", "finished.toml", "--executor", "inline"]
    first = run_python(words, folder)
    if first.returncode:
        raise RuntimeError(first.stderr)
    return _Inputs(words, folder, "Nothing left to run")


def _write_rows(folder: Path) -> None:
    """Write the results of a finished study of two arms with a million rows."""
    cells = (CellKey("sinusoidal", "analytic"), CellKey("sinusoidal", "none"))
    environment, now = capture(), datetime.now(UTC)
    card = StudyCard("large", "Is it quick?", "validation_loss", 0.1, cells[0], cells, _RUNS // 2, "none", "no task")
    each = _ROWS // _RUNS
    runs = [
        RunRecord(
            run_id=f"evaluate-{cells[number % 2].arm}-{number // 2}",
            study="large",
            spec_hash="large",
            cell=cells[number % 2],
            task="text",
            model="none",
            trial=0,
            seed=number // 2,
            phase="evaluate",
            status="ok",
            device="cpu",
            created_at=now,
            measurements=(
                *(Measurement(metrics.TRAINING_LOSS, 3 - step / each, step) for step in range(1, each)),
                Measurement(metrics.VALIDATION_LOSS, 2 + (number * 37 % 11) / 100, each),
            ),
            environment=environment,
            card=card,
        )
        for number in range(_RUNS)
    ]
    write_together(runs, folder / "results" / "runs.parquet")


def _check(inputs: _Inputs, implementation: str, result: subprocess.CompletedProcess[str]) -> str:
    if result.returncode:
        return f"exit code {result.returncode}: {result.stderr.strip()[-200:]}"
    return "" if inputs.answer in result.stdout else f"its output lacks {inputs.answer!r}"


SUITE = Suite("startup", _cases, _inputs, _check, baseline="a new process", counts_memory=False)


@SUITE.implementation("a new process")
def _new_process(inputs: _Inputs) -> Call:
    return lambda: run_python(inputs.words, inputs.folder)
