"""Run requests on this machine: in the calling process, or in a process per run."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic

from trans4init.ablations.errors import FaultError, InputError
from trans4init.ablations.study.executors import server
from trans4init.ablations.study.executors.protocol import Advanced, Died, Event, OnEvent, R, T_co, Work

__all__ = ["InlineExecutor", "ProcessExecutor", "start_server"]

_SERVED = "forkserver" in multiprocessing.get_all_start_methods()
_GROUP_SECONDS = 0.5
"""How long after a worker's death it is reported: a signal to all processes of a command reaches this one too."""


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

    def forget_waiting(self) -> None:
        """Forget all but the first, which may be under way."""
        del self._waiting[1:]

    def stop(self) -> None:
        """Forget those that are still to run."""
        self._waiting.clear()


class ProcessExecutor(Generic[R, T_co]):
    """Runs each request in a process of its own, so that a run that dies takes no other run with it.

    A worker ends itself when the process that started it has ended, so that no run goes on unseen.
    """

    def __init__(
        self, work: Work[R, T_co], workers: int, preload: str, places: Sequence[Mapping[str, str]] = ()
    ) -> None:
        """places: environment variables for each of the `workers`; empty where they are alike."""
        self._work, self.capacity, self._preload = work, workers, preload
        self._free = [dict(place) for place in places] or [dict[str, str]() for _ in range(workers)]
        self._context = multiprocessing.get_context("forkserver" if _SERVED else "spawn")
        self._runs: dict[Connection, tuple[tuple[R, ...], BaseProcess, dict[str, str]]] = {}

    def submit(self, requests: tuple[R, ...]) -> None:
        """Start a process for the requests."""
        start_server("__main__", self._preload)  # if it was killed; otherwise it is there
        ours, theirs = self._context.Pipe(duplex=False)
        place = self._free.pop(0)
        process = self._context.Process(  # type: ignore[attr-defined]  # BaseContext has it at run time
            target=_worker, args=(theirs, self._work, requests, place), name=requests[0].run_id, daemon=True
        )
        try:
            process.start()
        except (EOFError, ConnectionError):
            time.sleep(_GROUP_SECONDS)
            raise FaultError(
                "the process that workers are forked from was ended, perhaps since the machine ran out of memory; "
                "the same command continues the study."
            ) from None
        theirs.close()
        self._runs[ours] = (requests, process, place)

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Read what the processes sent within `timeout` seconds."""
        for connection in multiprocessing.connection.wait(list(self._runs), timeout):
            assert isinstance(connection, Connection)
            requests, process, _ = self._runs[connection]
            try:
                event: Event[R, T_co] = connection.recv()
            except (EOFError, OSError):
                process.join()
                time.sleep(_GROUP_SECONDS)
                event = Died(requests, _reason(process.exitcode))
            if not isinstance(event, Advanced):
                self._forget(connection)
            on_event(event)

    def running(self) -> int:
        """Return how many processes there are."""
        return len(self._runs)

    def forget_waiting(self) -> None:
        """Do nothing: every run has its process at once."""

    def stop(self) -> None:
        """Kill all processes."""
        for connection, (_, process, _) in list(self._runs.items()):
            process.kill()
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        _, process, place = self._runs.pop(connection)
        self._free.append(place)
        process.join()
        connection.close()


def start_server(*modules: str) -> None:
    """Start the server that workers are forked from, so that it imports the modules while the caller works.

    Ctrl-C never reaches it, nor the workers: the process that starts them answers. Where the system has no such server,
    nothing is done. Raises InputError where no socket to it can be made.
    """
    if not _SERVED:
        return
    multiprocessing.set_forkserver_preload([server.__name__, *modules])
    os.environ[server.STARTER] = str(os.getpid())
    try:
        multiprocessing.resource_tracker.ensure_running()  # which the server needs, and which unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # processes inherit what is blocked
        multiprocessing.forkserver.ensure_running()
    except OSError as error:
        raise InputError(
            f"no worker can be started with a socket in {tempfile.gettempdir()} ({error}); "
            f"set TMPDIR to a folder with a short name."
        ) from None
    finally:
        os.environ.pop(server.STARTER, None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _worker(connection: Connection, work: Work[R, T_co], requests: tuple[R, ...], place: Mapping[str, str]) -> None:
    os.environ.update(place)
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
