"""Print what a study would run, and estimate its time, memory and disk from a few steps measured here."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from trans4init.ablations.data.text import MULTIPLES
from trans4init.ablations.device import parallel_runs, threads
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import FitDivergedError
from trans4init.ablations.study.agenda import FITS_AT_ONCE
from trans4init.ablations.study.disk import BYTES_PER_STUDY, bytes_per_run
from trans4init.ablations.study.display import duration
from trans4init.ablations.study.grid import Grid
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.resolving import resolve
from trans4init.ablations.study.space import shapes_runs
from trans4init.ablations.study.spec import StudySpec
from trans4init.ablations.study.together import FEWEST_STEPS, automatic_size
from trans4init.ablations.study.work import build_model, build_task, check_study, fit_nets
from trans4init.ablations.tasks import Task
from trans4init.ablations.training.array import ArrayStep, Member
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.training.stacked import NotStackableError
from trans4init.ablations.training.throughput import ROUNDS_PER_BUILD, WARM_UP_ROUNDS
from trans4init.reports.records.schema import CellKey
from trans4init.reports.statistics import seed_floor, visible_factor
from trans4init.reports.study_report.speed import FEWEST_BUILDS
from trans4init.reports.study_report.verdict import LEVEL

__all__ = ["CostEstimate", "Pace", "estimate", "print_plan"]

_WARM_UP_STEPS, _FEWEST_STEPS, _MOST_STEPS, _SECONDS = 5, 5, 20, 0.5
"""Steps of each cell that are measured: first untimed ones, then a number within these bounds, for about _SECONDS."""
_FIT_STEPS = 100
"""Steps of each fit that are measured; more make the estimate better and slower."""
_START_SECONDS = 0.3
"""Seconds from the start of a worker process until it trains."""
_UNSHARED = 0.35
"""The share of imported memory that a forked worker doesn't share with the others; measured on positional-text."""


@dataclass(frozen=True)
class Pace:
    """Holds mean seconds over all cells, and over all fits, on this machine with the study's number of threads."""

    step: float
    """Of one run, also where several are trained together."""
    evaluation: float
    final_evaluation: float
    fit: float
    together: int = 1
    """How many runs at most are trained together."""


@dataclass(frozen=True)
class CostEstimate:
    """Says what a study is estimated to cost."""

    fits: int
    runs: int
    run_seconds: float
    """Of one training run."""
    seconds: float
    """Of everything."""
    disk_bytes: float


def estimate(study: ResolvedStudy, pace: Pace, workers: int) -> CostEstimate:
    """Estimate a study's cost from the pace of a step, an evaluation and a fit, with `workers` runs at a time."""
    spec = study.spec
    runs, fits = spec.training_runs(), len(study.fit_requests())
    if shapes_runs(spec.own_settings()):
        fits *= max(1, spec.trials())  # at most: trials that choose alike share a fit
    run = (
        _START_SECONDS / pace.together
        + pace.step * spec.training.steps
        + pace.evaluation * (spec.training.evaluations - 1)
        + pace.final_evaluation
    )
    rounds = spec.throughput.rounds + WARM_UP_ROUNDS * _builds(spec)
    timing = len(study.throughput_requests()) * rounds * spec.throughput.steps_per_round * pace.step * 4 / 3
    seconds = (fits * pace.fit + runs * run) / workers + timing
    return CostEstimate(fits, runs, run, seconds, BYTES_PER_STUDY + bytes_per_run(spec) * (runs + fits))


def print_plan(
    study: StudySpec | Grid, file: str, executor: str, console: Console, array_size: int | None = None
) -> None:
    """Print the cells and an estimate; raises InputError for a study that can't be run, with the name of its `file`.

    array_size: how many runs that are alike are trained together at most; None: as many as suit the machine.
    """
    studies = resolve(study if isinstance(study, Grid) else Grid.of(study), Path(), "")
    imported = _most_memory()
    for of in studies:
        check_study(of, f"{file}: {of.block}" if of.block else file)
    console.print(_cells(studies))
    size = array_size or automatic_size()
    paces = [_measure(of, size) for of in studies]
    workers = 1 if executor == "inline" else min(parallel_runs(of.spec.training.threads) for of in studies)
    costs = [estimate(of, pace, workers) for of, pace in zip(studies, paces, strict=True)]
    seconds = duration(sum(cost.seconds for cost in costs))
    megabytes = (sum(cost.disk_bytes for cost in costs) - (len(costs) - 1) * BYTES_PER_STUDY) / 1e6
    bisections = "".join(_bisection(of, cost, workers) for of, cost in zip(studies, costs, strict=True))
    console.print(
        f"{_runs(studies, paces, costs)}.\n"
        f"About {seconds} on {workers} process{'es' if workers > 1 else ''}, {megabytes:.0f} MB of disk"
        f"{_memory(workers, imported)}.{bisections}\n{_power(studies)}",
    )


def _runs(studies: Sequence[ResolvedStudy], paces: Sequence[Pace], costs: Sequence[CostEstimate]) -> str:
    """Say what is run, without the end of the sentence."""
    fits, runs = (sum(counts) for counts in zip(*((cost.fits, cost.runs) for cost in costs), strict=True))
    most = "up to " if any(shapes_runs(study.spec.own_settings()) for study in studies) else ""
    counted = f"{most}{fits} fit{'s' if fits != 1 else ''}, {runs} runs"
    spec, together = studies[0].spec, _together(paces)
    if len(studies) == 1:
        return (
            f"{counted} of {spec.training.steps} steps ({1000 * paces[0].step:.1f} ms a step here{together}), then "
            f"{len(spec.cells())} cells and a second copy of {spec.reference().arm} timed in turn"
            f"{_without_intervals(spec)}"
        )
    steps = sorted({of.spec.training.steps for of in studies})
    milliseconds = sorted(1000 * pace.step for pace in paces)
    cells = sum(len(of.spec.cells()) for of in studies)
    return (
        f"{counted} of {_range(steps)} steps "
        f"({milliseconds[0]:.1f} to {milliseconds[-1]:.1f} ms a step here{together}) in {len(studies)} "
        f"blocks, then block by block all {cells} cells and a second copy of {spec.reference().arm} "
        f"timed in turn{_without_intervals(spec)}"
    )


def _together(paces: Sequence[Pace]) -> str:
    most = max(pace.together for pace in paces)
    return f", {most} runs together" if most > 1 else ""


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _builds(spec: StudySpec) -> int:
    """Return how often a throughput session builds the models."""
    return -(-spec.throughput.rounds // ROUNDS_PER_BUILD)


def _without_intervals(spec: StudySpec) -> str:
    """Say what it takes to give speeds intervals, where the study's rounds are too few for them."""
    if _builds(spec) >= FEWEST_BUILDS:
        return ""
    return (
        f"; {spec.throughput.rounds} rounds give speeds no interval, [throughput] rounds = "
        f"{FEWEST_BUILDS * ROUNDS_PER_BUILD} do"
    )


def _bisection(study: ResolvedStudy, cost: CostEstimate, workers: int) -> str:
    """Say what an error budget's bisection adds; an empty string for other studies."""
    spec = study.spec
    steps = spec.error_budget.steps() if spec.error_budget else 0
    if not steps:
        return ""
    seconds = steps * spec.evaluation.seeds * cost.run_seconds / workers
    block = f" of {study.block}" if study.block else ""
    return f"\nThen bisection{block} adds up to {steps} cells: about {duration(seconds)} more."


def _memory(workers: int, imported: float) -> str:
    """Write the memory of this process, of the server that workers are forked from, and of the workers.

    imported: bytes that this process had before it measured.
    """
    total = 2 * imported + workers * (_most_memory() - imported + _UNSHARED * imported)
    on_gpu = (
        f" and {torch.cuda.max_memory_reserved() * workers / 1e9:.1f} GB of the GPU's"
        if torch.cuda.is_available()
        else ""
    )
    return f", {total / 1e9:.1f} GB of memory{on_gpu}"


def _most_memory() -> float:
    """Return the most bytes that this process had at a time."""
    status = Path("/proc/self/status")  # Linux's getrusage counts the memory of the program that started this one
    if status.is_file():
        [most] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return 1024 * float(most)
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _cells(studies: Sequence[ResolvedStudy]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    grid = len(studies) > 1
    for title in (*(("block", "cell") if grid else ("function", "arm", "net")), "trials", "seeds"):
        table.add_column(title, justify="right" if title in ("trials", "seeds") else "left", no_wrap=True)
    for study in studies:
        spec = study.spec
        times = f"{spec.times_tuned()} × " if spec.times_tuned() > 1 else ""
        on = f" on {len(spec.tuning_seeds())} seeds" if spec.trials() else ""
        for place, cell in enumerate(spec.cells()):
            trials = f"{times if on else ''}{spec.trials(cell)}{on}"
            in_grid = ("" if place else study.block, cell.label(spec.function))
            names = in_grid if grid else (cell.function, cell.arm, cell.net or "–")
            table.add_row(*names, trials, f"{times}{spec.evaluation.seeds}")
    return table


def _power(studies: Sequence[ResolvedStudy]) -> str:
    """Say how many seeds words take, and which difference so many seeds as are asked for find."""
    words = sum(study.card().own_words() for study in studies)
    if not words:
        return "Nothing is compared: the study has no cell but the reference."
    level = min(LEVEL / max(1, len(study.spec.evaluation.looks)) for study in studies)
    floor, fewest = seed_floor(words, level), min(study.spec.evaluation.seeds for study in studies)
    together = f"{words} comparisons are corrected together: " if words > 1 else ""
    factor = visible_factor(fewest, words, level)
    if factor is None:
        return f"{together}a word takes {floor} seeds, and {fewest} are asked for."
    return (
        f"{together}a word takes {floor} seeds, and {fewest} find a difference of {factor:.1f} standard deviations of "
        "a pair's with probability 0.8."
    )


def _measure(study: ResolvedStudy, size: int) -> Pace:
    """Time a few steps of every cell, the reference's evaluation, and the beginning of each fit.

    size: how many runs are trained together at most.
    """
    spec = study.spec
    task = build_task(study)
    with TemporaryDirectory(prefix="trans4init-estimate-") as folder, threads(spec.training.threads):
        study = replace(study, folder=Path(folder))  # its nets are hardly fitted, which costs as much
        nets = dict.fromkeys(fit.cell.net for fit in study.fit_requests())
        fits = [_fit_seconds(study, net) for net in nets]
        steps = [_step_seconds(study, cell, task) for cell in spec.cells()]
        alike = [min(size, _runs_alike(study, cell)) for cell in spec.cells()]
        timed = [_together_seconds(study, *of, task) for of in zip(spec.cells(), alike, steps, strict=True)]
        model, _ = build_model(study, spec.reference(), 0, task)
        start = time.perf_counter()
        task.evaluate(model, "tune", 0, final=False)
        evaluation = time.perf_counter() - start
    evaluation *= statistics.fmean(steps) / steps[0]  # a cell with longer steps has longer evaluations
    step, together = statistics.fmean(seconds for seconds, _ in timed), max(count for _, count in timed)
    fitting = statistics.fmean(fits) if fits else 0.0
    return Pace(step, evaluation, evaluation * len(MULTIPLES), fitting, together)


def _fit_seconds(study: ResolvedStudy, net: str) -> float:
    """Estimate the seconds of one fit of a net from the first steps of as many as are done together.

    The net of seed 0 is saved for the cells.
    """
    first = study.fit_request(net).seed
    seeds = dict.fromkeys([first, *(fit.seed for fit in study.fit_requests() if fit.cell.net == net)])
    together = list(seeds)[:FITS_AT_ONCE]
    start = time.perf_counter()
    outcomes = dict(fit_nets(study, net, together, _FIT_STEPS))
    seconds = time.perf_counter() - start
    fitted = outcomes[0]
    if isinstance(fitted, FitDivergedError):
        raise InputError(f"the fit of {net} diverges: {fitted}.")
    fitted.save(study.checkpoint(net))
    done = 1 if study.spec.error_budget else study.spec.fit.steps / _FIT_STEPS  # a budget's nets aren't trained
    return seconds / len(together) * done


def _step_seconds(study: ResolvedStudy, cell: CellKey, task: Task) -> float:
    """Measure the seconds of a training step of a cell."""
    training = study.spec.training
    model, record = build_model(study, cell, 0, task)
    step = TrainingStep(model, task, training, record.moves)
    batches = task.batches(0, training.batch, "evaluate", unit=training.batch_unit)
    return _mean_seconds(lambda: step(next(batches)).item())


def _runs_alike(study: ResolvedStudy, cell: CellKey) -> int:
    """Return how many runs of a cell may be trained together: those of its trials, or of its evaluation."""
    spec = study.spec
    if spec.training.steps < FEWEST_STEPS or spec.training.why_alone():
        return 1
    tuned = 0 if shapes_runs(spec.own_settings()) else spec.trials(cell) * len(spec.tuning_seeds())
    return max(tuned, spec.evaluation.seeds)


def _together_seconds(study: ResolvedStudy, cell: CellKey, count: int, alone: float, task: Task) -> tuple[float, int]:
    """Measure the seconds of a run's step where `count` are trained together; return them, and how many are.

    alone: those of a run by itself, which stay where runs can't be trained together, or gain nothing.
    """
    if count < 2:
        return alone, 1
    training = study.spec.training
    models = [build_model(study, cell, 0, task) for _ in range(count)]
    batches = task.batches(0, training.batch, "evaluate", unit=training.batch_unit)
    try:
        step = ArrayStep([Member(model, training, record, 0, task) for model, record in models])
        together = _mean_seconds(lambda: step([next(batches)] * count).sum().item()) / count
    except (NotStackableError, MemoryError, torch.OutOfMemoryError):
        return alone, 1
    return (together, count) if together < alone else (alone, 1)


def _mean_seconds(step: Callable[[], float]) -> float:
    for _ in range(_WARM_UP_STEPS):
        step()
    start, done = time.perf_counter(), 0
    while done < _FEWEST_STEPS or (time.perf_counter() - start < _SECONDS and done < _MOST_STEPS):
        step()
        done += 1
    return (time.perf_counter() - start) / done
