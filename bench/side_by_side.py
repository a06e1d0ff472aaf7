"""Implementations timed in turn, as a Markdown table and rows of the results' schema: for the kernels' benchmarks."""

import gc
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from trans4init.reports.environment import Environment, capture
from trans4init.reports.schema import CellKey, Measurement, Metric, RunRecord
from trans4init.reports.store import write_bundle
from trans4init.reports.vocabulary import Status

__all__ = [
    "COPY_RATE",
    "MATMUL_RATE",
    "Call",
    "Case",
    "MissingError",
    "Parts",
    "Timing",
    "in_turns",
    "machine_rates",
    "print_table",
    "save",
    "timed",
]

LATENCY = Metric("latency", "ms", higher_is_better=False)
PEAK_MEMORY = Metric("peak_memory", "byte", higher_is_better=False)
MATMUL_RATE = Metric("matmul_rate", "FLOP/s")
COPY_RATE = Metric("copy_rate", "byte/s")
WARM_UP = 3
FLUSHED = 2**28  # bytes: more than the L2 cache of any GPU

Call = Callable[[], object]


class MissingError(Exception):
    """An implementation that this machine can't run, and why."""


@dataclass(frozen=True)
class Case:
    """An operator at one size."""

    operator: str
    size: str


@dataclass
class Timing:
    """What was found of one part of one implementation: milliseconds by round, or why there are none."""

    name: str
    part: str
    milliseconds: list[float] = field(default_factory=list)
    peak_bytes: float | None = None
    status: Status = "ok"
    error: str = ""
    missing: bool = False

    @property
    def median(self) -> float | None:
        """The median of all rounds, in milliseconds."""
        return statistics.median(self.milliseconds) if self.milliseconds else None


Parts = Mapping[str, Call]
"""What is timed of an implementation, by name, in this order."""


def in_turns(implementations: Mapping[str, Callable[[], Parts]], rounds: int, device: str) -> list[Timing]:
    """Time every part of every implementation once a round, `rounds` times, after rounds that don't count.

    One that raises, runs out of memory or is missing becomes a row that says so; the others go on.
    """
    found: dict[str, dict[str, Timing]] = {}
    ready: dict[str, Parts] = {}
    for name, prepare in implementations.items():
        try:
            ready[name] = prepare()
            found[name] = {part: Timing(name, part) for part in ready[name]}
        except Exception as error:  # noqa: BLE001  it is the implementation's row
            found[name] = {"all": _failed(Timing(name, "all"), error)}
    for turn in range(-WARM_UP, rounds):
        for name in list(ready):
            for part, call in ready[name].items():
                timing = found[name][part]
                try:
                    taken, peak = timed(call, device)
                except Exception as error:  # noqa: BLE001  as above
                    del ready[name]
                    found[name] = {part: _failed(timing, error) for part, timing in found[name].items()}
                    gc.collect()
                    break
                if turn >= 0:
                    timing.milliseconds.append(taken)
                    timing.peak_bytes = peak
    return [timing for parts in found.values() for timing in parts.values()]


def _failed(timing: Timing, error: Exception) -> Timing:
    lines = str(error).splitlines() or [type(error).__name__]
    oom = isinstance(error, MemoryError | torch.OutOfMemoryError)
    status: Status = "oom" if oom else "failed"
    return Timing(timing.name, timing.part, status=status, error=lines[0], missing=isinstance(error, MissingError))


def timed(call: Call, device: str) -> tuple[float, float | None]:
    """Milliseconds of a call, and on a GPU, whose L2 cache is flushed before, the most bytes that it held besides."""
    if device == "cpu":
        # One thread's own time leaves out what else the machine does; of several, only the clock on the wall is speed.
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        began = clock()
        call()
        return 1e3 * (clock() - began), None
    flush = torch.empty(FLUSHED, dtype=torch.int8, device=device)
    flush.zero_()
    del flush
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)), float(torch.cuda.max_memory_allocated() - before)


def machine_rates(device: str, rounds: int = 10) -> dict[Metric, float]:
    """This machine's matmul rate, of bfloat16 on a GPU and of float32 on a CPU, and its copy rate."""
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    large = torch.randn(2**28 if device == "cuda" else 2**24, device=device)
    spare = torch.empty_like(large)
    calls: dict[str, Callable[[], Parts]] = {
        "matmul": lambda: {"": lambda: a @ b},
        "copy": lambda: {"": lambda: spare.copy_(large)},
    }
    matmul, copy = in_turns(calls, rounds, device)
    assert matmul.median is not None
    assert copy.median is not None
    moved = 2 * large.numel() * large.element_size()
    return {MATMUL_RATE: 2e3 * side**3 / matmul.median, COPY_RATE: 1e3 * moved / copy.median}


def print_table(
    title: str,
    timings: Sequence[Timing],
    baseline: str,
    column: str = "",
    limits: Mapping[str, float] | None = None,
) -> None:
    """Markdown: the time of each part, and how many times the baseline's it is.

    limits: by part, the least milliseconds that the machine's rates allow; `column` says of which rate that is a share.
    """
    limits = limits or {}
    base = {timing.part: timing.median for timing in timings if timing.name == baseline}
    print(f"\n{title}\n\n| implementation | pass | median ms | quartiles | times {baseline} | {column} |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for timing in timings:
        if timing.median is None or len(timing.milliseconds) < 2:
            word = "missing" if timing.missing else "out of memory" if timing.status == "oom" else "failed"
            print(f"| {timing.name} | {timing.part} | {word}: {timing.error[:80]} | | | |")
            continue
        low, _, high = statistics.quantiles(timing.milliseconds, n=4)
        against = base.get(timing.part)
        times = "" if against is None else f"{timing.median / against:.2f}"
        share = f"{limits[timing.part] / timing.median:.2f}" if timing.part in limits else ""
        row = (timing.name, timing.part, f"{timing.median:.3g}", f"{low:.3g} to {high:.3g}", times, share)
        print(f"| {' | '.join(row)} |", flush=True)


def save(found: Sequence[tuple[Case, Sequence[Timing]]], rates: Mapping[Metric, float], folder: Path) -> list[Path]:
    """Write one record for each implementation, part and case, with the machine's rates and environment."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    environment, session = capture(accelerator), uuid.uuid4().hex
    records = [_record(case, timing, rates, environment, session) for case, timings in found for timing in timings]
    return write_bundle(records, folder)


def _record(
    case: Case, timing: Timing, rates: Mapping[Metric, float], environment: Environment, session: str
) -> RunRecord:
    measured = [Measurement(LATENCY, value, turn) for turn, value in enumerate(timing.milliseconds)]
    measured += [Measurement(PEAK_MEMORY, timing.peak_bytes)] if timing.peak_bytes is not None else []
    measured += [Measurement(metric, rate) for metric, rate in rates.items()]
    return RunRecord(
        run_id=f"bench-{uuid.uuid4().hex}",
        study="bench",
        spec_hash=session,
        cell=CellKey(case.operator, timing.name),
        task=timing.part,
        model=case.size,
        trial=None,
        seed=0,
        phase="throughput",
        status=timing.status,
        device=environment.accelerator or "cpu",
        created_at=datetime.now(UTC),
        measurements=tuple(measured if timing.status == "ok" else [Measurement(LATENCY, None)]),
        environment=environment,
        notes={"missing": timing.error} if timing.missing else {},
        error=timing.error,
    )
