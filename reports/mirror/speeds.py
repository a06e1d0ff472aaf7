"""Mirror benchmarks in MLflow, to compare commits: experiment `bench` has a run for each time a suite was measured."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trans4init.reports.mirror.store import Store, locked_store, metric_key
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.speed.speeds import STUDY, SuiteSpeeds, speeds

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["mirror_speeds"]

_SESSION_TAG, _SUITE_TAG = "trans4init.session", "suite"


def mirror_speeds(runs: Path, records: Iterable[RunRecord]) -> tuple[int, list[str]]:
    """Write the measurements of suites that MLflow doesn't have yet.

    Return how many there were, and what was put right that somebody had deleted in MLflow, a sentence each. runs: the
    folder of all studies, without links. Raises MirrorError where MLflow fails.
    """
    sessions: dict[str, list[RunRecord]] = {}
    for record in records:
        sessions.setdefault(record.spec_hash, []).append(record)
    measured = [suite for session in sessions.values() for suite in speeds(session)]
    with locked_store(runs):
        store = Store(runs)
        experiment = store.experiment(STUDY)
        asked, mirrored = {(suite.session, suite.suite) for suite in measured}, set()
        for run in store.search(experiment):
            key = run.data.tags.get(_SESSION_TAG), run.data.tags.get(_SUITE_TAG)
            deleted = run.info.lifecycle_stage == "deleted"
            if run.info.status == "RUNNING":  # its writer was stopped half way
                if not deleted:
                    store.client.delete_run(run.info.run_id)
            elif key in asked:
                if deleted and key not in mirrored:
                    store.client.restore_run(run.info.run_id)
                    store.mended.append(f"run {run.info.run_name} had been deleted and was restored")
                mirrored.add(key)
        new = [suite for suite in measured if (suite.session, suite.suite) not in mirrored]
        for suite in new:
            _write(store.client, experiment, suite)
    return len(new), store.mended


def _write(client: "MlflowClient", experiment: str, suite: SuiteSpeeds) -> None:
    """Write a suite as one run, with the time, ratio and memory of each implementation and the machine's rates."""
    from mlflow.entities import Metric, Param

    first = min(record.created_at for record in suite.records)
    last = max(record.created_at for record in suite.records)
    moments = [int(moment.timestamp() * 1000) for moment in (first, last)]
    commit = suite.commit[:12]
    tags = {_SESSION_TAG: suite.session, _SUITE_TAG: suite.suite, "device": suite.machine, "commit": suite.commit}
    run = client.create_run(experiment, start_time=moments[0], tags=tags, run_name=f"{suite.suite} {commit}".strip())
    metrics = {}
    for case in suite.cases:
        for speed in case.speeds:
            if speed.milliseconds is not None:
                metrics[metric_key(case.operator, case.size, speed.implementation, "ms")] = speed.milliseconds.median
            if speed.ratio is not None:
                metrics[metric_key(case.operator, case.size, speed.implementation, "ratio")] = speed.ratio
            if speed.peak_bytes is not None:
                metrics[metric_key(case.operator, case.size, speed.implementation, "MiB")] = speed.peak_bytes / 2**20
    for name, value in (("matmul GFLOP per s", suite.matmul_rate), ("copy GB per s", suite.copy_rate)):
        if value is not None:
            metrics[f"machine/{name}"] = value / 1e9
    rounds = sum(case.rounds for case in suite.cases)
    if rounds:
        metrics["machine/contended share of rounds"] = sum(case.contended for case in suite.cases) / rounds
    values = [Metric(name, value, moments[1], 0) for name, value in metrics.items()]
    params = [
        Param(name, value) for name, value in (("suite", suite.suite), ("device", suite.machine), ("commit", commit))
    ]
    for start in range(0, max(1, len(values)), 1000):
        client.log_batch(run.info.run_id, metrics=values[start : start + 1000], params=params if start == 0 else [])
    client.set_terminated(run.info.run_id, end_time=moments[1])
