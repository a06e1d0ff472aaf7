"""What was measured as a table for a terminal of 100 columns: time, ratio to the baseline, distance from the limit."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trans4init.bench.records import contended_rounds
from trans4init.bench.worker import Measured, Timing
from trans4init.reports.statistics import Interval, bootstrap_median

__all__ = ["floor_seconds", "ratio_to", "table_lines"]

_WIDTH = 100


def floor_seconds(measured: Measured, rates: Mapping[str, float]) -> float | None:
    """The least time that the operator can take at the machine's own rates; None where it is not counted."""
    case = measured.case
    parts = [(case.flop, rates.get("matmul")), (case.bytes, rates.get("copy"))]
    found = [amount / rate for amount, rate in parts if amount and rate]
    return max(found) if found else None


def ratio_to(baseline: Timing, timing: Timing) -> tuple[float, Interval] | None:
    """How many times faster than the baseline, round by round: the median of the ratios with its 95 % interval."""
    rounds = sorted(baseline.samples.keys() & timing.samples.keys())
    if not rounds:
        return None
    return bootstrap_median([baseline.samples[number] / timing.samples[number] for number in rounds])


def table_lines(found: Sequence[tuple[str, str, Measured]], rates: Mapping[str, float]) -> Iterator[str]:
    """The lines; every implementation has one, also where it has no time."""
    if rates:
        matmul, copy = rates.get("matmul", 0.0) / 1e9, rates.get("copy", 0.0) / 1e9
        yield f"this machine: {matmul:,.0f} GFLOP/s in matmul, {copy:,.1f} GB/s in copying"
    seen = ""
    for suite, baseline, measured in found:
        if suite != seen:
            yield ""
            head = f"{suite} (ratio: times as fast as {baseline})"
            yield f"{head:<44}{'ms':>10} {'±':>5} {'ratio [95 %]':>21} {'of limit':>8} {'MiB':>8}"
            seen = suite
        yield f"{measured.case}"[:_WIDTH]
        for name, timing in measured.timings.items():
            yield f"  {name:<42.42}{_row(measured, timing, measured.timings.get(baseline), rates)}"[:_WIDTH].rstrip()
        marked = contended_rounds(measured)
        if marked:
            yield f"  {len(marked)} of {len(measured.rounds)} rounds contended or throttled"


def _row(measured: Measured, timing: Timing, baseline: Timing | None, rates: Mapping[str, float]) -> str:
    if timing.status != "ok":
        return f"{timing.status}: {timing.error.strip().splitlines()[-1]}"
    seconds = list(timing.samples.values())
    middle = float(np.median(seconds))
    spread = float(np.subtract(*np.quantile(seconds, [0.75, 0.25]))) / middle / 2
    ratio = ratio_to(baseline, timing) if baseline is not None and baseline is not timing else None
    compared = f"{ratio[0]:.3g} [{ratio[1].low:.3g}, {ratio[1].high:.3g}]" if ratio else ""
    floor = floor_seconds(measured, rates)
    limit = f"{floor / middle:.0%}" if floor else ""
    memory = "" if timing.peak_bytes is None else f"{timing.peak_bytes / 2**20:.1f}"
    return f"{1e3 * middle:>10.4g} {spread:>5.0%} {compared:>21} {limit:>8} {memory:>8}"
