"""What a study is said to take, against what the published studies took, from the rates that they recorded."""

import statistics
import time
from pathlib import Path

import pytest
import torch

from trans4init.ablations.data.text import MULTIPLES
from trans4init.ablations.study import estimate as estimating
from trans4init.ablations.study.estimate import Pace, estimate
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import load_study
from trans4init.ablations.study.work import build_task
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.store import load_results

PUBLISHED = Path(__file__).resolve().parents[3] / "reports" / "published" / "amd-epyc-2-cores"
FACTOR = 1.5


def recorded_seconds(records, metric):
    """Of a token, the mean of all cells, timed in turn and alone on the machine."""
    return statistics.fmean(
        1 / statistics.median(m.value for m in record.measurements if m.metric.name == metric.name)
        for record in records
        if record.phase == "throughput"
    )


def predicted(name, records):
    """The estimate from the rates that the study itself recorded, on two processes."""
    seeds = {record.seed for record in records if record.phase == "evaluate"}
    spec = load_study(name, seeds=len(seeds))
    step = spec.training.batch * spec.model.context * recorded_seconds(records, metrics.TRAINING_THROUGHPUT)
    evaluation = spec.task.evaluation_tokens * recorded_seconds(records, metrics.FORWARD_THROUGHPUT)
    [fit] = [record.last(metrics.WALL_TIME.name) for record in records if record.phase == "fit"]
    study = ResolvedStudy(spec, "", records[0].environment, Path(), "")
    return estimate(study, Pace(step, evaluation, evaluation * len(MULTIPLES), fit), 2)


@pytest.fixture(scope="module")
def published():
    names = ("positional-text", "positional-text-full")
    return {name: load_results(PUBLISHED / name / "results").records for name in names}


def test_the_estimate_of_the_study_is_within_its_factor(published):
    records = published["positional-text"]
    found = predicted("positional-text", records)
    times = [record.last(metrics.WALL_TIME.name) for record in records if record.phase in ("tune", "evaluate")]
    assert found.runs == len(times)
    assert statistics.median(times) / FACTOR < found.run_seconds < statistics.median(times) * FACTOR
    ends = [record.created_at.timestamp() for record in records]
    took = max(ends) - min(end - (r.last(metrics.WALL_TIME.name) or 0) for end, r in zip(ends, records, strict=True))
    assert took / FACTOR < found.seconds < took * FACTOR


def test_the_estimate_of_a_long_run_is_within_its_factor_of_one_that_was_not_disturbed(published):
    """The published runs of one arm take from 180 to 490 s, as others used the machine: the fastest is its pace."""
    records = published["positional-text-full"]
    times = [record.last(metrics.WALL_TIME.name) for record in records if record.phase == "evaluate"]
    found = predicted("positional-text-full", records)
    assert min(times) / FACTOR < found.run_seconds < min(times) * FACTOR


TAKEN = {"positional-text": (10, 20_301_432), "positional-text-full": (1, 13_125_887)}
"""Seeds of a study, and the bytes that it added to `runs/`: its folder, MLflow's database and artifacts."""


@pytest.mark.parametrize("name", TAKEN)
def test_the_estimate_of_the_disk_is_within_its_factor(name, published):
    seeds, taken = TAKEN[name]
    spec = load_study(name, seeds=seeds)
    study = ResolvedStudy(spec, "", published[name][0].environment, Path(), "")
    found = estimate(study, Pace(0.01, 0.1, 0.1, 1.0), 2).disk_bytes
    assert taken / FACTOR < found < taken * FACTOR


class Sleeping:
    """In place of a training step: as long as it is told, however often."""

    calls = 0

    def __init__(self, *_):
        pass

    def __call__(self, batch):
        type(self).calls += 1
        time.sleep(0.02)
        return torch.zeros(())


def test_a_cell_is_measured_by_its_own_steps(monkeypatch, tiny_study):
    spec = load_study(str(tiny_study()))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), Path(), "")
    monkeypatch.setattr(estimating, "TrainingStep", Sleeping)
    found = estimating._step_seconds(study, spec.reference(), build_task(study))
    assert 0.02 <= found < 0.06
    assert estimating._WARM_UP_STEPS + estimating._FEWEST_STEPS <= Sleeping.calls <= 30


def test_arms_that_take_longer_make_the_study_longer(monkeypatch, tiny_study):
    spec = load_study(str(tiny_study()))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), Path(), "")
    seconds = {"analytic": 0.1}
    monkeypatch.setattr(estimating, "_step_seconds", lambda _, cell, task: seconds.get(cell.arm, 0.3))
    pace = estimating._measure(study)
    cells = len(spec.cells())
    assert pace.step == pytest.approx((0.1 + 0.3 * (cells - 1)) / cells)
    assert pace.final_evaluation == pytest.approx(len(MULTIPLES) * pace.evaluation)
    assert pace.fit > 0


def test_memory_counts_the_workers(monkeypatch):
    monkeypatch.setattr(estimating, "_most_memory", lambda: 500e6)
    one, three = (float(estimating._memory(workers, 400e6).split()[1]) for workers in (1, 3))
    assert one == pytest.approx(2 * 0.4 + 0.1 + 0.35 * 0.4, abs=0.06)
    assert three - one == pytest.approx(2 * (0.1 + 0.35 * 0.4), abs=0.11)
