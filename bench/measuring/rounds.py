"""Measure one case: every implementation is checked once, then all take turns, round after round.

This runs in a process of its own (`worker.py`) and sends every result as a message at once: an implementation that
ends the process doesn't take the earlier results with it.
"""

import contextlib
import gc
import math
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trans4init.bench.measuring.allocations import Allocations, allocations
from trans4init.bench.measuring.conditions import Conditions, Observer
from trans4init.bench.suite import Call, Case, Implementation, MissingError, Suite

__all__ = [
    "Checked",
    "Failed",
    "Plan",
    "Planned",
    "Round",
    "Sample",
    "Send",
    "Started",
    "check_and_time",
    "seconds_waited",
]

_PAUSE_SECONDS = 0.002
"""Seconds to wait before each sample: the parent process, which is told what comes next, briefly uses a core."""
_INTERRUPTED = 0.01
"""A sample is marked as interrupted if its threads waited for a core for more than this share of its time."""
_WINDOW_SECONDS = 0.5
"""Shortest stretch over which other processes' share is taken, several short rounds together: Linux counts processor
time in hundredths of a second."""
_FEWEST_ROUNDS = 8
"""Rounds that are measured even if the plan's seconds don't suffice for them."""
_TRIES = 3
"""Calls before the first round; their time decides how many calls make a sample."""


@dataclass(frozen=True)
class Plan:
    """Says how many rounds and calls are measured of each implementation of a case."""

    rounds: int = 20
    """The largest number of rounds."""
    seconds: float = math.inf
    """Time for all rounds of a case together: fewer rounds are measured if calls are long, but at least eight."""
    sample_seconds: float = 0.01
    """Length of a sample on a CPU: the mean of as many calls as take about this long."""
    limit_seconds: float = 120
    """An implementation that sends no message for this long is given up."""


@dataclass(frozen=True)
class Planned:
    """Message: this many rounds follow, with this many of PyTorch's threads."""

    rounds: int
    threads: int


@dataclass(frozen=True)
class Started:
    """Message: the work on this implementation begins."""

    implementation: str


@dataclass(frozen=True)
class Failed:
    """Message: an implementation has no time. `status` is `missing`, `oom`, or `failed`, also for a wrong result."""

    implementation: str
    status: str
    error: str


@dataclass(frozen=True)
class Checked:
    """Message: an implementation's result is right, with the seconds until it and the peak bytes above the inputs."""

    implementation: str
    first_call: float
    peak_bytes: float | None


@dataclass(frozen=True)
class Sample:
    """Message: the seconds of one call, the mean over a sample's calls."""

    implementation: str
    round: int
    seconds: float
    interrupted: bool
    """Whether it had to wait for a core that the system had given to another process."""


@dataclass(frozen=True)
class Round:
    """Message: the machine's state while a round was measured."""

    round: int
    conditions: Conditions


Message = Planned | Started | Failed | Checked | Sample | Round
Send = Callable[[Message], None]


@dataclass(frozen=True)
class Ready:
    """Stands for an implementation that can be timed."""

    time: Callable[[], float]
    """Takes a sample and returns the seconds of one call."""
    calls: int
    """How many calls make a sample."""
    seconds: float
    """About how long a sample takes."""


def check_and_time(suite: Suite, case: Case, names: Sequence[str], plan: Plan, send: Send) -> None:
    """Check and time the named implementations of a case; every result is sent, nothing is returned."""
    try:
        inputs = suite.inputs(case)
    except Exception as error:  # noqa: BLE001  without inputs nothing can be timed: every row gets the error
        for name in names:
            send(_failure(name, error))
        return
    with Observer(_gpu()) as observer:
        if case.cold:
            _measure_cold(suite, case, names, inputs, plan, observer, send)
            return
        ready = _check_all(suite, case, names, inputs, plan, send)
        rounds = _rounds(ready, plan)
        send(Planned(rounds, torch.get_num_threads()))
        observer.close()
        _take_turns(ready, range(-1, rounds), observer, send)  # round -1 warms up


def _check_all(suite: Suite, case: Case, names: Sequence[str], inputs: Any, plan: Plan, send: Send) -> dict[str, Ready]:
    """Check every implementation, and return those whose result is right, ready to be timed."""
    ready: dict[str, Ready] = {}
    for implementation in suite.implementations(case):
        if implementation.name not in names:
            continue
        send(Started(implementation.name))
        try:
            call, result, first, kept = _first_call(implementation, inputs, counts_prepared=case.counts_prepared)
            _check(suite, inputs, implementation.name, result)
            del result
            peak_bytes = kept + _peak_bytes(call) if implementation.counts_memory else None
            send(Checked(implementation.name, first, peak_bytes))
            ready[implementation.name] = _paced(call, plan)
        except Exception as error:  # noqa: BLE001  the error goes into the row; the others go on
            send(_failure(implementation.name, error))
            _wait()  # raises if the GPU is lost, which ends this process: the others are measured in a new one
    return ready


def _measure_cold(
    suite: Suite, case: Case, names: Sequence[str], inputs: Any, plan: Plan, observer: Observer, send: Send
) -> None:
    """Time calls that are processes of their own, and check every result: checking is cheap compared with a process."""
    send(Planned(plan.rounds, torch.get_num_threads()))
    ready: dict[str, Ready] = {}
    for implementation in suite.implementations(case):
        if implementation.name not in names:
            continue
        try:
            call = _Cold(suite, inputs, implementation, send)
        except Exception as error:  # noqa: BLE001  the error goes into the row; the others go on
            send(_failure(implementation.name, error))
            continue
        ready[implementation.name] = Ready(call, 1, 0.0)
    observer.close()
    _take_turns(ready, range(plan.rounds), observer, send)


class _WrongError(Exception):
    """An implementation's result isn't the operator's."""


def _check(suite: Suite, inputs: Any, name: str, result: Any) -> None:
    if complaint := suite.check(inputs, name, result):
        raise _WrongError(complaint)


class _Cold:
    """Runs a call that is a process of its own, and times and checks it."""

    def __init__(self, suite: Suite, inputs: Any, implementation: Implementation, send: Send) -> None:
        self.suite, self.inputs, self.name, self.send = suite, inputs, implementation.name, send
        self.call, self.reported = implementation.prepare(inputs), False

    def __call__(self) -> float:
        """Return the seconds of a call."""
        began = time.perf_counter()
        result = self.call()
        seconds = time.perf_counter() - began
        _check(self.suite, self.inputs, self.name, result)
        if not self.reported:
            self.send(Checked(self.name, seconds, None))
            self.reported = True
        return seconds


def _first_call(
    implementation: Implementation, inputs: Any, *, counts_prepared: bool
) -> tuple[Call, Any, float, float]:
    """Return a call, its result, the seconds until the first result, and the bytes kept between calls if counted."""
    with allocations() if counts_prepared and implementation.counts_memory else nullcontext(Allocations()) as counted:
        start = time.perf_counter()
        call = implementation.prepare(inputs)
        result = call()
        _wait()
        first = time.perf_counter() - start
        if not counts_prepared:
            return call, result, first, 0.0
        del result  # a result is counted as part of the next call
    return call, call(), first, max(0.0, counted.kept)


def _peak_bytes(call: Call) -> float:
    """Return the most bytes that one call holds at a time, its result included."""
    with allocations() as counted:
        result = call()
    del result
    return counted.peak


def _rounds(ready: dict[str, Ready], plan: Plan) -> int:
    """Return the number of rounds that the plan has time for."""
    round_seconds = sum(implementation.seconds for implementation in ready.values())
    if round_seconds * plan.rounds <= plan.seconds:
        return plan.rounds
    return min(plan.rounds, max(_FEWEST_ROUNDS, int(plan.seconds / round_seconds)))


def _take_turns(ready: dict[str, Ready], rounds: range, observer: Observer, send: Send) -> None:
    """Time every call once a round, in an order drawn anew each round; samples before round 0 aren't sent."""
    order, unmarked = random.Random(0), list[int]()
    began = time.monotonic()
    for done, round_ in enumerate(rounds, 1):
        for name in order.sample(sorted(ready), len(ready)):
            send(Started(name))
            time.sleep(_PAUSE_SECONDS)
            try:
                before = seconds_waited()
                seconds = ready[name].time()
                interrupted = seconds_waited() - before > _INTERRUPTED * seconds * ready[name].calls
            except Exception as error:  # noqa: BLE001  the error goes into the row; the others go on
                send(_failure(name, error))
                _wait()
                del ready[name]
                continue
            if round_ >= 0:
                send(Sample(name, round_, seconds, interrupted))
        unmarked += [round_] if round_ >= 0 else []
        to_come = (len(rounds) - done) * (time.monotonic() - began) / done
        if min(observer.seconds(), to_come) >= _WINDOW_SECONDS or done == len(rounds):
            conditions = observer.close()
            for number in unmarked:
                send(Round(number, conditions))
            unmarked = []


def seconds_per_call(call: Call, calls: int) -> float:
    """Return the seconds of one call: on a GPU by CUDA events after a flush of its L2 cache, else a mean of `calls`."""
    with _no_collection():
        if torch.cuda.is_available():
            flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
            flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            call()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls


def seconds_waited() -> float:
    """Return how long this process's threads have been ready to run but without a core; 0 if the system doesn't say.

    Linux counts this for each thread (proc(5), `schedstat`), to the nanosecond.
    """
    waited = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has ended
            waited += int(task.read_text().split()[1])
    return waited / 1e9


def _paced(call: Call, plan: Plan) -> Ready:
    """Choose how many calls make a sample: on a GPU one, else as many as fill `plan.sample_seconds`."""
    start = time.perf_counter()
    for tried in range(1, _TRIES + 1):
        call()
        _wait()
        if (taken := (time.perf_counter() - start) / tried) > plan.sample_seconds or torch.cuda.is_available():
            return Ready(partial(seconds_per_call, call, 1), 1, taken)
    calls = max(1, round(plan.sample_seconds / taken))
    return Ready(partial(seconds_per_call, call, calls), calls, calls * taken)


def _failure(name: str, error: Exception) -> Failed:
    if isinstance(error, _WrongError):
        return Failed(name, "failed", f"wrong result, so no time: {error}")
    if isinstance(error, MissingError):
        return Failed(name, "missing", str(error))
    # On a CPU PyTorch raises a plain RuntimeError.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return Failed(name, "oom", str(error).split("\n")[0] or "out of memory")
    return Failed(name, "failed", "".join(traceback.format_exception(error)))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _gpu() -> str:
    """Return the GPU that is measured, as nvidia-smi names it; empty without a GPU."""
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}" if torch.cuda.is_available() else ""


@contextmanager
def _no_collection() -> Iterator[None]:
    """Turn Python's garbage collector off, so that its pauses aren't timed."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
