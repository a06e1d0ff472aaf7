"""What a study is said to take, against what the published studies took, from the rates that they recorded."""

import io
import statistics
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from trans4init.ablations.data.text import MULTIPLES
from trans4init.ablations.study import estimate as estimating
from trans4init.ablations.study.estimate import Pace, estimate, print_plan
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
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


def published_spec(records):
    """The study as it was published: with one tuning seed where its file says nothing of them."""
    seeds = {record.seed for record in records if record.phase == "evaluate"}
    fields = {key: value for key, value in records[0].spec.items() if key not in ("fingerprint", "spec_hash")}
    fields["evaluation"] |= {"seeds": len(seeds)}
    fields["tuning"].setdefault("seeds_per_trial", 1)
    if not fields["tuning"]["space"]:
        del fields["tuning"]
    return StudySpec.model_validate(fields)


def predicted(records):
    """The estimate from the rates that the study itself recorded, on two processes."""
    spec = published_spec(records)
    step = spec.training.batch * spec.model.context * recorded_seconds(records, metrics.TRAINING_THROUGHPUT)
    evaluation = spec.task.evaluation_tokens * recorded_seconds(records, metrics.FORWARD_THROUGHPUT)
    fit = max(record.last(metrics.WALL_TIME.name) for record in records if record.phase == "fit")
    study = ResolvedStudy(spec, "", records[0].environment, Path(), "")
    return estimate(study, Pace(step, evaluation, evaluation * len(MULTIPLES), fit), 2)


@pytest.fixture(scope="module")
def published():
    names = ("first-look", "positional-text-full")
    return {name: load_results(PUBLISHED / name / "results").records for name in names}


def test_the_estimate_of_the_study_is_within_its_factor(published):
    records = published["first-look"]
    found = predicted(records)
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
    found = predicted(records)
    assert min(times) / FACTOR < found.run_seconds < min(times) * FACTOR


TAKEN = {"first-look": (9, 21_699_324), "positional-text-full": (1, 13_125_887)}
"""Seeds of a study, and the bytes that it added to `runs/`: its folder, MLflow's database and artifacts."""


@pytest.mark.parametrize("name", TAKEN)
def test_the_estimate_of_the_disk_is_within_its_factor(name, published):
    seeds, taken = TAKEN[name]
    spec = published_spec(published[name])
    spec = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"seeds": seeds})})
    study = ResolvedStudy(spec, "", published[name][0].environment, Path(), "")
    found = estimate(study, Pace(0.01, 0.1, 0.1, 1.0), 2).disk_bytes
    assert taken / FACTOR < found < taken * FACTOR


def test_the_budget_counts_every_seed_of_a_trial_and_every_fit(tiny_study):
    plain = load_study(str(tiny_study()))
    many = load_study(
        str(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 3"), ("[fit]\n", '[fit]\nseeds = "per-run"\n')))
    )
    few, more = (
        estimate(ResolvedStudy(spec, "", capture(), Path(), ""), Pace(0.5, 0.25, 0.75, 7.0), 2)
        for spec in (plain, many)
    )
    assert (few.fits, few.runs) == (1, 5 * (2 + 2))
    assert (more.fits, more.runs) == (3 + 2, 5 * (2 * 3 + 2))
    assert more.seconds - few.seconds == pytest.approx((4 * 7.0 + 20 * few.run_seconds) / 2)
    assert more.disk_bytes > few.disk_bytes


def test_the_plan_says_how_many_seeds_a_trial_has(tiny_study):
    console = Console(file=io.StringIO(), width=200)
    path = str(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 3"), ("[fit]\n", '[fit]\nseeds = "per-run"\n')))
    print_plan(load_study(path, trials=5), path, "inline", console)
    plan = console.file.getvalue()
    assert plan.count("5 on 3 seeds") == 5
    assert "5 fits, 85 runs of 6 steps" in plan


class Sleeping:
    """Stands in for a training step: sleeps as long as it is told, however often."""

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
    pace = estimating._measure(study, 1)
    cells = len(spec.cells())
    assert pace.step == pytest.approx((0.1 + 0.3 * (cells - 1)) / cells)
    assert pace.final_evaluation == pytest.approx(len(MULTIPLES) * pace.evaluation)
    assert pace.fit > 0


@pytest.mark.parametrize(("in_array", "together"), [(0.2, 4), (0.5, 1)])
def test_runs_that_are_trained_together_take_less_where_they_do(monkeypatch, tiny_study, in_array, together):
    """Four seeds of each cell, whose step by itself takes .3 s."""
    spec = load_study(
        str(tiny_study(("steps = 6", "steps = 60"), ("seeds = 2", "seeds = 4"), ("trials = 2", "trials = 1")))
    )
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), Path(), "")
    monkeypatch.setattr(estimating, "_step_seconds", lambda _, cell, task: 0.3)
    monkeypatch.setattr(estimating, "_mean_seconds", lambda step: step() and in_array * 4)
    pace = estimating._measure(study, 8)
    assert (pace.step, pace.together) == (pytest.approx(min(in_array, 0.3)), together)
    assert estimating._measure(study, 1).step == pytest.approx(0.3)
    few, many = (estimate(study, Pace(1.0, 0.0, 0.0, 0.0, count), 1).run_seconds for count in (8, 1))
    assert many - few == pytest.approx(0.3 * 7 / 8)


def test_speeds_take_all_rounds_and_a_warm_up_for_each_build_of_every_cell_and_of_the_second_copy(tiny_study):
    """Ten rounds are three builds; six models, a training step and a forward pass for each."""
    spec = load_study(str(tiny_study(("rounds = 2", "rounds = 10"))))
    cost = estimate(ResolvedStudy(spec, "", capture(), Path(), ""), Pace(3.0, 0.0, 0.0, 0.0), 1)
    assert cost.seconds - cost.runs * cost.run_seconds == pytest.approx(6 * (10 + 3) * 3.0 * 4 / 3)


def test_memory_counts_the_workers(monkeypatch):
    monkeypatch.setattr(estimating, "_most_memory", lambda: 500e6)
    one, three = (float(estimating._memory(workers, 400e6).split()[1]) for workers in (1, 3))
    assert one == pytest.approx(2 * 0.4 + 0.1 + 0.35 * 0.4, abs=0.06)
    assert three - one == pytest.approx(2 * (0.1 + 0.35 * 0.4), abs=0.11)
