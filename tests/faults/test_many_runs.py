"""A study of thousands of finished runs: going on with it takes little longer than Python needs to start."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement
from trans4init.reports.records.store import bundle, write_run

SEEDS = 10


@pytest.fixture
def many(tiny_study, tmp_path, monkeypatch, tries):
    """A finished study of 600 runs, or of 10,000 by `nox -s faults`, in bundles; returns its file and its runs."""
    monkeypatch.chdir(tmp_path)
    trials = tries(55, 995)
    path = tiny_study(
        ("seeds = 2", f"seeds = {SEEDS}"),
        ("trials = 2", f"trials = {trials}"),
        ("steps = 6", "steps = 100"),
        ("seeds_per_trial = 1", "seeds_per_trial = 2"),
        ('"learned-frozen", "learned-fine-tuned", ', ""),
    )
    spec = load_study(str(path))
    study = ResolvedStudy(
        spec, spec.task.fingerprint(), capture(), tmp_path / "runs" / "tiny", f"trans4init run {path}"
    )

    def finished(request):
        losses = [Measurement(metrics.TRAINING_LOSS, 3 - step / 100, step) for step in range(10, 101, 10)]
        value = 2 + hash((request.trial, request.seed)) % 1000 / 1000
        return study.record(request, [*losses, Measurement(metrics.VALIDATION_LOSS, value, 100)])

    records = [finished(request) for request in study.tune_requests()]
    agenda = Agenda(study, records, ())
    for cell in spec.cells():
        trial, settings = agenda._best(cell, 0)
        records += [finished(study.evaluate_request(cell, seed, trial, settings)) for seed in range(SEEDS)]
    bundle(records, study.results)
    speeds = [Measurement(metric, 1.0, 1) for metric in (metrics.TRAINING_THROUGHPUT, metrics.FORWARD_THROUGHPUT)]
    for request in study.throughput_requests():
        write_run(study.record(request, speeds, notes={"session": "one"}), study.results)
    return path, len(records)


def seconds_of(*words):
    start = time.perf_counter()
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def test_going_on_with_a_study_that_is_finished(many, run_command, tries):
    path, runs = many
    code, output = run_command("report", "runs/tiny")
    assert code == 0, output
    code, output = run_command("run", path)
    assert code == 0, output
    assert f"Nothing left to run: all {runs + 1} runs of tiny are finished." in output
    verdict = output.splitlines()[1:-2]
    times, imports = [], []
    for _ in range(5):
        needed, output = seconds_of(Path(sys.executable).with_name("trans4init"), "run", path)
        times.append(needed)
        imports.append(seconds_of(sys.executable, "-c", "import pandas, pyarrow, optuna")[0])
    assert output.splitlines()[1:-2] == verdict
    if tries(False, True):  # a busy machine needs longer, but not by this factor
        assert min(times) < 4 * min(imports), (times, imports)
