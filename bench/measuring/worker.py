"""A case measured in a process of its own, which may crash, hang or be killed without taking anything with it."""

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
from trans4init.bench.suite import ROOM, Case, Suite

__all__ = ["Measured", "Timing", "load_suite", "measure_case"]

_START_SECONDS = 120
"""A worker that has not imported torch and the suite by then is given up."""
_PRELOADED = ["torch", "torch._dynamo"]
"""What every worker imports, the second with the profiler that memory is counted by: two seconds that only the first
worker takes where the others can be forked."""


@dataclass
class Timing:
    """What is known of one implementation of a case."""

    status: str = "failed"
    """`ok`, `missing`, `oom` or `failed`."""
    error: str = "it was not reached"
    first_call: float | None = None
    peak_bytes: float | None = None
    samples: dict[int, float] = field(default_factory=dict)
    """Seconds of a call, by round."""
    interrupted: set[int] = field(default_factory=set)
    """Rounds in which it waited for a processor meanwhile."""
    settled: bool = False
    """Whether the implementation's own trouble is known: it is not tried again."""


@dataclass
class Measured:
    """What is known of a case: every implementation's timing, and the machine's conditions in each round."""

    case: Case
    timings: dict[str, Timing]
    rounds: dict[int, Round] = field(default_factory=dict)
    planned: int = 0
    """How many rounds there were to be; 0 until that is known."""
    threads: int = 0
    """PyTorch's, on the processor; 0 until that is known."""


def measure_case(suite_file: Path, suite: Suite, case: Case, names: Sequence[str], plan: Plan) -> Measured:
    """Measure the named implementations of a case in a worker.

    One that crashes the worker, or is not heard of for `plan.limit_seconds`, is given up, and the others are measured
    in a new one. KeyboardInterrupt ends the worker too.
    """
    plan = replace(plan, rounds=min(plan.rounds, case.rounds or plan.rounds))
    measured = Measured(case, {name: Timing() for name in names})
    left = list(names)
    with tempfile.TemporaryDirectory(prefix="trans4init-bench-", ignore_cleanup_errors=True) as room:
        while left:
            lost = _attempt(suite_file, suite, case, left, plan, measured, room)
            if lost is None:
                break
            name, why = lost
            if not measured.timings[name].settled:
                measured.timings[name] = Timing(error=why)
            left = [one for one in left if one != name and not measured.timings[one].settled]
    planned = measured.planned or plan.rounds
    for timing in measured.timings.values():
        if timing.status == "ok" and len(timing.samples) < planned:
            timing.status, timing.error = "failed", f"{len(timing.samples)} of {planned} rounds were measured"
    return measured


def _attempt(
    suite_file: Path, suite: Suite, case: Case, names: list[str], plan: Plan, measured: Measured, room: str
) -> tuple[str, str] | None:
    """Measure in one worker; the implementation that was at work when it was lost, and how.

    A worker ends with its pipe, so that neither a parent that is killed nor Ctrl-C while it is started leaves it alone.
    """
    context = _context()
    here, there = context.Pipe()
    number = [str(one) for one in suite.cases(quick=False)].index(str(case))
    worker = context.Process(target=_work, args=(suite_file, number, names, plan, there, room), daemon=True)
    at, limit = names[0], float(_START_SECONDS)
    measured.rounds.clear()
    try:
        worker.start()
        there.close()
        while True:
            if not here.poll(limit):
                return at, f"it was not heard of for {limit:.0f} s"
            message: Message | None = here.recv()
            limit = plan.limit_seconds
            if message is None:
                return None
            if isinstance(message, Started):
                at = message.implementation
            else:
                _note(measured, message)
    except EOFError:
        worker.join()
        return at, f"its process ended with code {worker.exitcode}"
    finally:
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)  # with what it started, also where it is gone itself
            worker.kill()
            worker.join()
        here.close()


def _context() -> SpawnContext | ForkServerContext:
    """Forked from a process that has done nothing but import, where that works: CUDA is none to fork, nor is macOS."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


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
    """The suite that a file declares as `SUITE`."""
    spec = importlib.util.spec_from_file_location(f"trans4init_suite_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    suite: Suite = module.SUITE
    return suite


def _work(file: Path, number: int, names: list[str], plan: Plan, pipe: Connection, room: str) -> None:
    """In the worker: measure, and say when it is done. A session of its own: Ctrl-C is the parent's to answer."""
    os.setsid()
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    os.environ[ROOM] = room
    suite = load_suite(file)
    check_and_time(suite, suite.cases(quick=False)[number], names, plan, pipe.send)
    pipe.send(None)


def _end_with(pipe: Connection) -> None:
    """In the worker: wait until the parent's end is closed, and end with all that was started here."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.killpg(0, signal.SIGKILL)
