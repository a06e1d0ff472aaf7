"""Run requests on a Ray cluster: one Ray task per run, on as many machines as the cluster has."""

import os
from typing import Any, Generic

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.protocol import Apart, Died, Event, Finished, OnEvent, R, T_co, Work

__all__ = ["RayExecutor"]


class RayExecutor(Generic[R, T_co]):
    """Uses the cluster that RAY_ADDRESS names, or starts one on this machine.

    Files that runs read and write must be in a folder that all machines of the cluster share.
    """

    def __init__(self, work: Work[R, T_co], workers: int) -> None:
        try:
            import ray
        except ImportError:
            raise InputError("executor 'ray' needs Ray: pip install 'trans4init[cluster]'.") from None
        self._ray: Any = ray
        address = os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            try:
                ray.init(num_cpus=workers if address is None else None, log_to_driver=False)
            except (ConnectionError, ValueError) as error:
                raise InputError(f"no Ray cluster can be used at {address or 'this machine'}: {error}") from None
        self.capacity = max(1, int(ray.cluster_resources().get("CPU", workers)))
        self._work = ray.put(work)
        self._run = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._runs: dict[Any, tuple[R, ...]] = {}

    def submit(self, requests: tuple[R, ...]) -> None:
        """Hand the requests to the cluster."""
        self._runs[self._run.remote(self._work, requests)] = requests

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Collect a finished run, if one finishes within `timeout` seconds."""
        done, _ = self._ray.wait(list(self._runs), num_returns=1, timeout=timeout)
        for reference in done:
            requests = self._runs.pop(reference)
            try:
                on_event(self._ray.get(reference))
            except self._ray.exceptions.RayError as error:
                on_event(Died(requests, f"the run's worker was lost: {error}"))

    def running(self) -> int:
        """Return how many tasks the cluster has not finished."""
        return len(self._runs)

    def forget_waiting(self) -> None:
        """Do nothing: the cluster starts each task as soon as it can."""

    def stop(self) -> None:
        """Cancel all tasks."""
        for reference in self._runs:
            self._ray.cancel(reference, force=True)
        self._runs.clear()


def _run(work: Work[R, T_co], requests: tuple[R, ...]) -> Apart[R] | Finished[R, T_co]:
    """Run the requests on a machine of the cluster; progress stays there, the records come back."""
    events: list[Event[R, T_co]] = []
    work(requests, events.append)
    last = events[-1]
    assert isinstance(last, Apart | Finished)
    return last
