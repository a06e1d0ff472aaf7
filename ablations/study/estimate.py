"""`--dry-run`: what a study would run, and how long and how much that takes, from a few steps measured here."""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from trans4init.ablations.data.text import MULTIPLES
from trans4init.ablations.device import parallel_runs
from trans4init.ablations.study.live import duration
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
from trans4init.ablations.study.work import build_model, build_task, check_study, fit_function
from trans4init.ablations.threads import threads
from trans4init.ablations.training import TrainingStep
from trans4init.reports.environment import capture

__all__ = ["Estimate", "Pace", "estimate", "print_plan"]

_WARM_UP_STEPS, _STEPS = 10, 20
_FIT_STEPS = 100
_START_SECONDS = 0.3
"""Of a worker process, until it trains."""
_UNSHARED = 0.35
"""Of what is imported, the share that a forked worker makes its own: measured on positional-text."""
_BYTES_PER_STUDY, _BYTES_PER_RUN, _BYTES_PER_LOGGED_STEP = 10_500_000, 46_000, 1_300
"""Of a study's report, twice since MLflow keeps it too, databases and checkpoints; of a run, and of each loss that it
logs, in Parquet and MLflow: measured on positional-text and positional-text-full."""


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine, on the study's number of threads."""

    step: float
    evaluation: float
    final_evaluation: float
    fit: float


@dataclass(frozen=True)
class Estimate:
    """What a study will take."""

    fits: int
    runs: int
    run_seconds: float
    """Of one run."""
    timing_seconds: float
    """Of all cells timed in turn, alone on the machine."""
    seconds: float
    """Of everything."""
    disk_bytes: float


def estimate(study: ResolvedStudy, pace: Pace, workers: int) -> Estimate:
    """From the pace of a step, an evaluation and a fit, with so many runs at a time."""
    spec = study.spec
    runs, fits = len(spec.cells()) * (spec.trials() + spec.evaluation.seeds), len(study.fits_needed())
    run = (
        _START_SECONDS
        + pace.step * spec.training.steps
        + pace.evaluation * (spec.training.evaluations - 1)
        + pace.final_evaluation
    )
    rounds = (spec.throughput.rounds + 2) * spec.throughput.steps_per_round
    timing = len(spec.cells()) * rounds * pace.step * 4 / 3
    seconds = (fits * pace.fit + runs * run) / workers + timing
    per_run = _BYTES_PER_RUN + _BYTES_PER_LOGGED_STEP * (spec.training.steps // spec.training.log_every)
    return Estimate(fits, runs, run, timing, seconds, _BYTES_PER_STUDY + per_run * (runs + fits))


def print_plan(spec: StudySpec, file: str, executor: str, console: Console) -> None:
    """Print the cells and an estimate; raises InputError for a study that can't be run."""
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), Path(), "")
    imported = _held()
    check_study(study, file)
    console.print(_cells(spec))
    pace = _measure(study)
    workers = 1 if executor == "inline" else parallel_runs(spec.training.threads)
    found = estimate(study, pace, workers)
    console.print(
        f"{found.fits} fit{'s' if found.fits != 1 else ''}, {found.runs} runs of {spec.training.steps} steps "
        f"({1000 * pace.step:.1f} ms a step here), then {len(spec.cells())} cells timed in turn.\n"
        f"About {duration(found.seconds)} on {workers} process{'es' if workers > 1 else ''}, "
        f"{found.disk_bytes / 1e6:.0f} MB of disk"
        f"{_memory(workers, imported)}.",
        highlight=False,
    )


def _memory(workers: int, imported: float) -> str:
    """Of this process with its report, the server that workers are forked from, and each worker's own.

    imported: bytes that this process held before it measured.
    """
    held = 2 * imported + workers * (_held() - imported + _UNSHARED * imported)
    on_gpu = (
        f" and {torch.cuda.max_memory_reserved() * workers / 1e9:.1f} GB of the GPU's"
        if torch.cuda.is_available()
        else ""
    )
    return f", {held / 1e9:.1f} GB of memory{on_gpu}"


def _held() -> float:
    """The most bytes that this process had at a time."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _cells(spec: StudySpec) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title in ("function", "arm", "net", "trials", "seeds"):
        table.add_column(title, justify="right" if title in ("trials", "seeds") else "left", no_wrap=True)
    for cell in spec.cells():
        table.add_row(cell.function, cell.arm, cell.net or "–", str(spec.trials()), str(spec.evaluation.seeds))
    return table


def _measure(study: ResolvedStudy) -> Pace:
    """Time a few steps of the reference, its evaluations, and the beginning of a fit."""
    spec = study.spec
    task = build_task(study)
    model, record = build_model(study, spec.reference(), 0, task)
    step = TrainingStep(model, task, spec.training, record.moves)
    batches = task.batches(0, spec.training.batch, "evaluate", unit=spec.training.batch_unit)
    with threads(spec.training.threads):
        for _ in range(_WARM_UP_STEPS):
            step(next(batches)).item()
        start = time.perf_counter()
        for _ in range(_STEPS):
            step(next(batches)).item()
        per_step = (time.perf_counter() - start) / _STEPS
        start = time.perf_counter()
        task.evaluate(model, "tune", 0, final=False)
        evaluation = time.perf_counter() - start
    fit = 0.0
    for net in study.fits_needed()[:1]:
        start = time.perf_counter()
        fit_function(study, net, _FIT_STEPS)
        fit = (time.perf_counter() - start) * spec.fit.steps / _FIT_STEPS
    return Pace(per_step, evaluation, evaluation * len(MULTIPLES), fit)
