"""Executors: where runs happen. Each hands back whole records; only the coordinator writes."""

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

from trans4init.ablations.study.executors.protocol import Died, Event, OnEvent, Progress, do
from trans4init.ablations.study.requests import Request, ResolvedStudy

__all__ = ["InlineExecutor", "ProcessExecutor", "worker_context"]


class InlineExecutor:
    """One run after the other in this process: for debuggers, and for a GPU that one run fills."""

    capacity = 1

    def __init__(self, study: ResolvedStudy) -> None:
        self._study = study
        self._waiting: list[tuple[Request, ...]] = []

    def submit(self, requests: tuple[Request, ...]) -> None:
        """Keep the requests for `wait`."""
        self._waiting.append(requests)

    def wait(self, on_event: OnEvent, timeout: float) -> None:
        """Run one of them."""
        if self._waiting:
            do(self._study, self._waiting[0], on_event)
            self._waiting.pop(0)

    def running(self) -> int:
        """Those not yet run."""
        return len(self._waiting)

    def stop(self) -> None:
        """Forget those not yet run."""
        self._waiting.clear()


class ProcessExecutor:
    """One process per run, forked from a server that has torch loaded: a run that dies takes no other with it.

    A worker ends itself when the coordinator is gone, so that no run goes on unseen.
    """

    def __init__(self, study: ResolvedStudy, workers: int) -> None:
        self._study, self.capacity = study, workers
        self._context = worker_context()
        self._runs: dict[Connection, tuple[tuple[Request, ...], BaseProcess]] = {}

    def submit(self, requests: tuple[Request, ...]) -> None:
        """Start a process for the requests."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(  # type: ignore[attr-defined]  # BaseContext has it at run time
            target=_worker, args=(theirs, self._study, requests), name=requests[0].run_id, daemon=True
        )
        process.start()
        theirs.close()
        self._runs[ours] = (requests, process)

    def wait(self, on_event: OnEvent, timeout: float) -> None:
        """Read what the processes sent."""
        for connection in multiprocessing.connection.wait(list(self._runs), timeout):
            assert isinstance(connection, Connection)
            requests, process = self._runs[connection]
            try:
                event: Event = connection.recv()
            except (EOFError, OSError):
                process.join()
                event = Died(requests, _last_words(process.exitcode))
            if not isinstance(event, Progress):
                self._forget(connection)
            on_event(event)

    def running(self) -> int:
        """How many processes there are."""
        return len(self._runs)

    def stop(self) -> None:
        """Kill them."""
        for connection, (_, process) in list(self._runs.items()):
            process.kill()
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        _, process = self._runs.pop(connection)
        process.join()
        connection.close()


def worker_context() -> BaseContext:
    """How worker processes start: forked from a server that has torch loaded, or spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "trans4init.ablations.study.executors.preload"])
    return context


def _worker(connection: Connection, study: ResolvedStudy, requests: tuple[Request, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the coordinator is gone: nobody to tell
        do(study, requests, connection.send)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _last_words(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ": perhaps for want of memory" if name == "SIGKILL" else ""
        return f"the run's process was ended by {name}{memory}"
    return f"the run's process ended with code {exit_code} and no result"
