"""Run requests on this machine: in the calling process, or in a process per run."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Generic

from trans4init.ablations.study.executors.protocol import Advanced, Died, Event, OnEvent, R, T_co, Work

__all__ = ["InlineExecutor", "ProcessExecutor", "worker_context"]


class InlineExecutor(Generic[R, T_co]):
    """Runs one request after the other in the calling process: for debuggers, and for a GPU that one run fills."""

    capacity = 1

    def __init__(self, work: Work[R, T_co]) -> None:
        self._work = work
        self._waiting: list[tuple[R, ...]] = []

    def submit(self, requests: tuple[R, ...]) -> None:
        """Keep the requests until `wait` runs them."""
        self._waiting.append(requests)

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Run the first of the waiting requests."""
        if self._waiting:
            self._work(self._waiting[0], on_event)
            self._waiting.pop(0)

    def running(self) -> int:
        """Return how many are still to run."""
        return len(self._waiting)

    def stop(self) -> None:
        """Forget those that are still to run."""
        self._waiting.clear()


class ProcessExecutor(Generic[R, T_co]):
    """Runs each request in a process of its own, so that a run that dies takes no other run with it.

    A worker ends itself when the process that started it has ended, so that no run goes on unseen.
    """

    def __init__(self, work: Work[R, T_co], workers: int, preload: str) -> None:
        self._work, self.capacity = work, workers
        self._context = worker_context(preload)
        self._runs: dict[Connection, tuple[tuple[R, ...], BaseProcess]] = {}

    def submit(self, requests: tuple[R, ...]) -> None:
        """Start a process for the requests."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(  # type: ignore[attr-defined]  # BaseContext has it at run time
            target=_worker, args=(theirs, self._work, requests), name=requests[0].run_id, daemon=True
        )
        process.start()
        theirs.close()
        self._runs[ours] = (requests, process)

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Read what the processes sent within `timeout` seconds."""
        for connection in multiprocessing.connection.wait(list(self._runs), timeout):
            assert isinstance(connection, Connection)
            requests, process = self._runs[connection]
            try:
                event: Event[R, T_co] = connection.recv()
            except (EOFError, OSError):
                process.join()
                event = Died(requests, _reason(process.exitcode))
            if not isinstance(event, Advanced):
                self._forget(connection)
            on_event(event)

    def running(self) -> int:
        """Return how many processes there are."""
        return len(self._runs)

    def stop(self) -> None:
        """Kill all processes."""
        for connection, (_, process) in list(self._runs.items()):
            process.kill()
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        _, process = self._runs.pop(connection)
        process.join()
        connection.close()


def worker_context(preload: str) -> BaseContext:
    """Return how workers start: forked from a server that has imported `preload`; spawned where there is no server."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", preload])
    return context


def _worker(connection: Connection, work: Work[R, T_co], requests: tuple[R, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one answers Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # that process has ended: nobody reads the events
        work(requests, connection.send)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _reason(exit_code: int | None) -> str:
    """Say why a process ended that sent no record."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ": perhaps the machine ran out of memory" if name == "SIGKILL" else ""
        return f"the run's process was ended by {name}{memory}"
    return f"the run's process ended with code {exit_code} and sent no record"
