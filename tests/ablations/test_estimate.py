"""What a study is said to take, against what the published studies took, from the rates that they recorded."""

import statistics
from pathlib import Path

import pytest

from trans4init.ablations.data.text import MULTIPLES
from trans4init.ablations.study.estimate import Pace, estimate
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import load_study
from trans4init.reports import metrics
from trans4init.reports.store import load_results

PUBLISHED = Path(__file__).resolve().parents[2] / "bench" / "results" / "amd-epyc-2-cores"
FACTOR = 1.5


def recorded_rate(records, metric):
    """Tokens per second of the reference, timed alone on the machine."""
    return statistics.median(
        m.value
        for record in records
        if record.phase == "throughput" and record.cell.arm == "analytic"
        for m in record.measurements
        if m.metric.name == metric.name
    )


def predicted(name, records):
    """The estimate from the rates that the study itself recorded, on two processes."""
    seeds = {record.seed for record in records if record.phase == "evaluate"}
    spec = load_study(name, seeds=len(seeds))
    step = spec.training.batch * spec.model.context / recorded_rate(records, metrics.TRAINING_THROUGHPUT)
    evaluation = spec.task.evaluation_tokens / recorded_rate(records, metrics.FORWARD_THROUGHPUT)
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
