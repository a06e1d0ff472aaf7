"""Run requests on a Ray cluster: one Ray task per unit, on as many machines as the cluster has. All goes by value."""

import os
import pickle
import socket
import time
from collections.abc import Sequence
from typing import Any, Generic

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.protocol import (
    Advanced,
    Apart,
    Died,
    Event,
    Finished,
    OnEvent,
    Parcel,
    PortableWork,
    R,
    Refused,
    T_co,
)

__all__ = ["RayExecutor"]

_CONNECT_SECONDS = 5.0
_TOLD_SECONDS = 0.5
"""How often a run tells how far it is, and the executor asks."""
_RETRIES = "RAY_task_oom_retries"
"""Ray's setting for how often a task is tried again whose worker was killed for memory: by default without end."""


class RayExecutor(Generic[R, T_co]):
    """Runs units on a cluster: the one at `address`, or that RAY_ADDRESS names, or a new one on this machine.

    What a unit needs and what it makes goes through Ray's object store. Ray tries nothing again: a lost worker, node or
    connection is one event, `Died`, and whoever asked decides.
    """

    def __init__(self, work: PortableWork[R, T_co], workers: int, address: str | None = None) -> None:
        """workers: how many units go side by side on this machine, if the cluster is made here."""
        try:
            import ray
        except ImportError:
            raise InputError("executor 'ray' needs Ray: pip install 'trans4init[cluster]'.") from None
        self._ray: Any = ray
        self._here, needed = work, work.resources()
        address = address or os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            if address is not None:
                _check_that_somebody_answers(address)
            os.environ.setdefault(_RETRIES, "0")
            cores = workers * needed.cpus if address is None else None
            try:
                ray.init(address=address or "local", num_cpus=cores, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                where = address or "this machine"
                raise InputError(f"no Ray cluster can be used at {where}: {_first_line(error)}") from None
        there = ray.cluster_resources()
        gpus = (1.0 if there.get("GPU") else 0.0) if needed.gpus is None else needed.gpus
        by_cpu = there.get("CPU", workers) / needed.cpus
        self.capacity = max(1, int(min(by_cpu, there.get("GPU", 0) / gpus) if gpus else by_cpu))
        self._parcel = ray.put(work.parcel())
        self._files: dict[str, Any] = {}
        """What requests need, in the object store, by name."""
        asked = {"num_cpus": needed.cpus, "num_gpus": gpus, "memory": needed.memory}
        self._run = ray.remote(max_retries=0, **asked)(_run)
        self._progress = ray.remote(num_cpus=0, max_restarts=-1)(_Progress).remote()
        self._asked = time.monotonic()
        self._answer: Any = None
        self._runs: dict[Any, tuple[R, ...]] = {}

    def submit(self, requests: tuple[R, ...]) -> None:
        """Hand the requests to the cluster, with what they need."""
        needed = self._here.needs(requests)
        for name in needed.keys() - self._files.keys():
            self._files[name] = self._ray.put(needed[name])
        names = list(needed)
        sent = self._run.remote(
            self._parcel, pickle.dumps(requests), names, [self._files[name] for name in names], self._progress
        )
        self._runs[sent] = requests

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Pass on a unit that has ended, if one does within `timeout` seconds, and how far the others are."""
        done, _ = self._ray.wait(list(self._runs), num_returns=1, timeout=timeout)
        for reference in done:
            requests = self._runs.pop(reference)
            try:
                event, made = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                on_event(Died(requests, f"the run's worker was lost: {_first_line(error)}"))
            else:
                self._here.take(made)
                on_event(event)
        if not done:
            self._pass_progress_on(on_event)

    def running(self) -> int:
        """Return how many units the cluster has not finished."""
        return len(self._runs)

    def forget_waiting(self) -> None:
        """Do nothing: no more units are asked for than the cluster has places for."""

    def stop(self) -> None:
        """Cancel all units."""
        for reference in self._runs:
            self._ray.cancel(reference, force=True)
        self._runs.clear()

    def _pass_progress_on(self, on_event: OnEvent[R, T_co]) -> None:
        """Pass on what runs have told, and ask again if that was a while ago; the answer comes later."""
        if self._answer is not None:
            there, _ = self._ray.wait([self._answer], num_returns=1, timeout=0)
            if not there:
                return
            answer, self._answer = self._answer, None
            try:
                told = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                told = []  # its machine is gone, and Ray starts it elsewhere
            known = {request.run_id for requests in self._runs.values() for request in requests}
            for event in told:
                if event.requests[0].run_id in known:
                    on_event(event)
        if time.monotonic() - self._asked >= _TOLD_SECONDS:
            self._asked, self._answer = time.monotonic(), self._progress.take.remote()


class _Progress:
    """Collects how far runs are, on one machine of the cluster."""

    def __init__(self) -> None:
        self._newest: dict[str, Any] = {}

    def add(self, event: Any) -> None:
        """Take an event; it replaces an older one of the same run."""
        self._newest[event.requests[0].run_id] = event

    def take(self) -> list[Any]:
        """Return what came since the last call."""
        newest, self._newest = self._newest, {}
        return list(newest.values())


def _run(
    parcel: Parcel[R, T_co], requests: bytes, names: Sequence[str], files: Sequence[Any], progress: Any
) -> tuple[Apart[R] | Finished[R, T_co] | Refused[R], dict[str, bytes]]:
    """Run the requests on a machine of the cluster; return the last event, and what they made."""
    import ray

    events: list[Event[R, T_co]] = []
    told = time.monotonic()

    def on_event(event: Event[R, T_co]) -> None:
        nonlocal told
        events[:] = [event]
        if isinstance(event, Advanced) and time.monotonic() - told >= _TOLD_SECONDS:
            told = time.monotonic()
            progress.add.remote(event)

    made = parcel.do(requests, dict(zip(names, ray.get(list(files)), strict=True)), on_event)
    [last] = events
    assert isinstance(last, Apart | Finished | Refused)
    return last, dict(made)


def _check_that_somebody_answers(address: str) -> None:
    """Raise InputError where nobody listens at HOST:PORT, which Ray itself notices after minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(f"no Ray cluster can be used at {address}: {error.strerror or error}.") from None


def _first_line(error: BaseException) -> str:
    """Return the sentence of an error that says what happened; Ray's go on with what could be done."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
