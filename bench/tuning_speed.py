"""Measure Optuna's part of a study: `python -m trans4init.bench.tuning_speed` says what trials cost.

A trial is counted from its settings, which the tuner chooses, to its row in `optuna.db`; nothing is trained.
"""

import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.optuna_database import OptunaDatabase
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
from trans4init.ablations.study.tuner import settings_to_try
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord
from trans4init.reports.records.tuning_design import Setting
from trans4init.reports.study_report.tuning import Trial

STUDY = """
extends = "first-look"
name = "speed"
arms = ["analytic"]
nets = []
[tuning]
trials = 2
"""
CELLS, TRIALS = 8, 200
FEW, MANY, SAMPLES = 100, 10_000, 100


def resolved(folder: Path, trials: int) -> ResolvedStudy:
    """Return the study with so many trials, in a folder."""
    path = folder / "speed.toml"
    path.write_text(STUDY)
    return ResolvedStudy(load_study(str(path), trials=trials), "", capture(), folder, "")


def runs_of(study: ResolvedStudy) -> list[RunRecord]:
    """Return the runs of one trial, a run for each tuning seed with a curve of five values."""
    rows = [Measurement(study.spec.metric(), 2.0 + step / 100, step) for step in range(2, 12, 2)]
    requests = study.tune_requests()[: len(study.spec.tuning_seeds())]
    return [study.record(request, rows) for request in requests]


def trial(number: int, settings: dict[str, Setting], runs: Sequence[RunRecord]) -> Trial:
    """Return a trial; few of them are the best so far."""
    values = {run.seed: 2.0 + 7919 * (number + 1) % 10007 / 1e4 for run in runs}
    renamed = [dataclasses.replace(run, run_id=f"{run.run_id[:-6]}{number:06d}") for run in runs]
    return Trial(number, settings, tuple(renamed), values)


def settings_of(spec: StudySpec) -> Sequence[dict[str, Setting]]:
    """Return what the tuner asks for: the settings of every trial."""
    return settings_to_try(spec.tuning.ranges(), spec.own_settings(), spec.tuning.seed, spec.trials())


def seconds_of_processor() -> float:
    """Return the processor time that this process has used: it isn't longer while others use the machine."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def trials_per_second(folder: Path) -> tuple[float, float]:
    """Return how many trials are asked for and kept in a second, and in a second of processor time."""
    study = resolved(folder, TRIALS)
    runs, database = runs_of(study), OptunaDatabase(study.spec, folder)
    began, used = time.perf_counter(), seconds_of_processor()
    for number, settings in enumerate(settings_of(study.spec)):
        for cell in range(CELLS):
            database.keep(CellKey("sinusoidal", f"arm-{cell}"), [trial(number, settings, runs)])
    return CELLS * TRIALS / (time.perf_counter() - began), CELLS * TRIALS / (seconds_of_processor() - used)


def cost_of_one_more(folder: Path) -> dict[int, float]:
    """Return the median seconds that one more trial of a cell costs, by the number of trials before it."""
    study = resolved(folder, 2)
    runs, database, cell = runs_of(study), OptunaDatabase(study.spec, folder), study.spec.reference()
    settings, number, costs = settings_of(study.spec)[0], 0, {}
    for before in (FEW, MANY):
        while number < before:
            database.keep(cell, [trial(number, settings, runs)])
            number += 1
        times = []
        for _ in range(SAMPLES):
            one_more = trial(number, settings, runs)
            began = time.perf_counter()
            database.keep(cell, [one_more])
            times.append(time.perf_counter() - began)
            number += 1
        costs[before] = statistics.median(times)
    return costs


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        rate, alone = trials_per_second(Path(folder))
        print(f"{CELLS} cells of {TRIALS}: {rate:.0f} trials/s, {alone:.0f} per second of processor time", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        costs = cost_of_one_more(Path(folder))
    for before, cost in costs.items():
        print(f"one more after {before}: {1000 * cost:.1f} ms")
    print(f"ratio {costs[MANY] / costs[FEW]:.2f}")


if __name__ == "__main__":
    main()
