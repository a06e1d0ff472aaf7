"""Measure a case in a process of its own, which may crash, hang or be killed without harm to the others."""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import torch

from trans4init.ablations.study.executors.local import start_server
from trans4init.bench.measuring.rounds import (
    Checked,
    Failed,
    Message,
    Plan,
    Planned,
    Round,
    Sample,
    Started,
    check_and_time,
)
from trans4init.bench.suite import SCRATCH, Case, Suite

__all__ = ["Measured", "Timing", "load_suite", "measure_case"]

_START_SECONDS = 120
"""A worker that hasn't imported torch and the suite after this time is given up."""
_PRELOADED = ["torch", "torch._dynamo"]
"""Modules that the forkserver imports once for all workers: each takes about a second. torch._dynamo is imported by the
profiler, which counts memory."""


@dataclass
class Timing:
    """Holds the times of one implementation of a case, or the reason why there are none."""

    status: str = "failed"
    """`ok`, `missing`, `oom` or `failed`."""
    error: str = "it was not reached"
    first_call: float | None = None
    peak_bytes: float | None = None
    samples: dict[int, float] = field(default_factory=dict)
    """Seconds of a call, by round."""
    interrupted: set[int] = field(default_factory=set)
    """Rounds in which it had to wait for a core."""
    settled: bool = False
    """Whether the implementation itself failed: it isn't tried again in a new worker."""


@dataclass
class Measured:
    """Holds the measurement of a case: every implementation's timing, and the machine's state in each round."""

    case: Case
    timings: dict[str, Timing]
    rounds: dict[int, Round] = field(default_factory=dict)
    planned: int = 0
    """How many rounds the worker planned; 0 until it says so."""
    threads: int = 0
    """The number of PyTorch's threads; 0 until the worker says so."""


def measure_case(suite_file: Path, suite: Suite, case: Case, names: Sequence[str], plan: Plan) -> Measured:
    """Measure the named implementations of a case in a worker.

    If an implementation crashes the worker, or sends no message for `plan.limit_seconds`, it is given up, and the
    others are measured in a new worker. KeyboardInterrupt ends the worker too.
    """
    plan = replace(plan, rounds=min(plan.rounds, case.rounds or plan.rounds))
    measured = Measured(case, {name: Timing() for name in names})
    to_measure = list(names)
    with tempfile.TemporaryDirectory(prefix="trans4init-bench-", ignore_cleanup_errors=True) as scratch:
        while to_measure:
            lost = _attempt(suite_file, suite, case, to_measure, plan, measured, scratch)
            if lost is None:
                break
            lost_name, reason = lost
            if not measured.timings[lost_name].settled:
                measured.timings[lost_name] = Timing(error=reason)
            to_measure = [name for name in to_measure if name != lost_name and not measured.timings[name].settled]
    planned = measured.planned or plan.rounds
    for timing in measured.timings.values():
        if timing.status == "ok" and len(timing.samples) < planned:
            timing.status, timing.error = "failed", f"{len(timing.samples)} of {planned} rounds were measured"
    return measured


def _attempt(
    suite_file: Path, suite: Suite, case: Case, names: list[str], plan: Plan, measured: Measured, scratch: str
) -> tuple[str, str] | None:
    """Measure in one worker. If the worker is lost, return the implementation that was being measured, and the reason.

    A worker ends when its pipe is closed, so that none is left over if the parent is killed or Ctrl-C comes early.
    """
    context = _context()
    here, there = context.Pipe()
    number = [str(other) for other in suite.cases(quick=False)].index(str(case))
    worker = context.Process(target=_work, args=(suite_file, number, names, plan, there, scratch), daemon=True)
    current, limit = names[0], float(_START_SECONDS)
    measured.rounds.clear()
    try:
        worker.start()
        there.close()
        while True:
            if not here.poll(limit):
                return current, f"it hung: no message for {limit:.0f} s"
            message: Message | None = here.recv()
            limit = plan.limit_seconds
            if message is None:
                return None
            if isinstance(message, Started):
                current = message.implementation
            else:
                _note(measured, message)
    except EOFError:
        worker.join()
        return current, f"its process ended with code {worker.exitcode}"
    finally:
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)  # with all that it started, even if it has ended itself
            worker.kill()
            worker.join()
        here.close()


def _context() -> SpawnContext | ForkServerContext:
    """Use forkserver where it works; processes with CUDA, or on macOS, can't be forked, and are spawned."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    start_server(*_PRELOADED)
    return multiprocessing.get_context("forkserver")


def _note(measured: Measured, message: Message) -> None:
    match message:
        case Planned(rounds, threads):
            measured.planned, measured.threads = rounds, threads
        case Failed(name, status, error):
            measured.timings[name] = Timing(status, error, settled=True)
        case Checked(name, first_call, peak):
            measured.timings[name] = Timing("ok", "", first_call, peak)
        case Sample(name, round_, seconds, interrupted):
            timing = measured.timings[name]
            timing.samples[round_] = seconds
            if interrupted:
                timing.interrupted.add(round_)
        case Round(round_):
            measured.rounds[round_] = message


def load_suite(file: Path) -> Suite:
    """Import a suite's file and return its `SUITE`."""
    spec = importlib.util.spec_from_file_location(f"trans4init_suite_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    suite: Suite = module.SUITE
    return suite


def _work(file: Path, number: int, names: list[str], plan: Plan, pipe: Connection, scratch: str) -> None:
    """In the worker: measure, and send None at the end."""
    os.setsid()  # so that Ctrl-C reaches the parent alone
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    os.environ[SCRATCH] = scratch
    suite = load_suite(file)
    check_and_time(suite, suite.cases(quick=False)[number], names, plan, pipe.send)
    pipe.send(None)


def _end_with(pipe: Connection) -> None:
    """In the worker: wait until the parent closes its end of the pipe, then kill this process and its children."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.killpg(0, signal.SIGKILL)
