"""Runs on a Ray cluster: one task per run, on as many machines as the cluster has."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.protocol import Died, Event, Finished, do
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.machine import capture

__all__ = ["RayExecutor"]


class RayExecutor:
    """Uses the cluster that RAY_ADDRESS names, or starts one here. The study's folder must be shared by its nodes."""

    def __init__(self, study: ResolvedStudy, workers: int) -> None:
        try:
            import ray
        except ImportError:
            raise InputError("executor 'ray' needs Ray: pip install 'trans4init[cluster]'.") from None
        self._ray: Any = ray
        if not ray.is_initialized():
            ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers, log_to_driver=False)
        self.capacity = max(1, int(ray.cluster_resources().get("CPU", workers)))
        self._study = ray.put(study)
        self._run = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._runs: dict[Any, tuple[Request, ...]] = {}

    def submit(self, requests: tuple[Request, ...]) -> None:
        """Give the requests to the cluster."""
        self._runs[self._run.remote(self._study, requests)] = requests

    def wait(self, on_event: Callable[[Event], None], timeout: float) -> None:
        """Collect what is done."""
        done, _ = self._ray.wait(list(self._runs), num_returns=1, timeout=timeout)
        for reference in done:
            requests = self._runs.pop(reference)
            try:
                on_event(self._ray.get(reference))
            except self._ray.exceptions.RayError as error:
                on_event(Died(requests, f"the run's worker was lost: {error}"))

    def running(self) -> int:
        """How many the cluster has."""
        return len(self._runs)

    def stop(self) -> None:
        """Cancel them."""
        for reference in self._runs:
            self._ray.cancel(reference, force=True)
        self._runs.clear()


def _run(study: ResolvedStudy, requests: tuple[Request, ...]) -> Finished:
    events: list[Event] = []
    here = dataclasses.replace(study, environment=capture())  # the node's, not the coordinator's
    do(here, requests, events.append)
    finished = events[-1]
    assert isinstance(finished, Finished)
    return finished
