"""Turn the measurement of a case into records: one for each implementation, of phase `throughput`."""

import statistics
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from trans4init.bench.measuring.worker import Measured, Timing
from trans4init.bench.suite import Suite
from trans4init.reports.machine import CONTENDED_SHARE, Environment
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement, Metric, RunRecord
from trans4init.reports.records.vocabulary import Status
from trans4init.reports.speed.speeds import BASELINE_NOTE, COLOUR_NOTE, MISSING_NOTE, STUDY, THREADS_NOTE

__all__ = ["contended_rounds", "facts", "records"]

_STATUSES: dict[str, Status] = {"ok": "ok", "oom": "oom", "failed": "failed", "missing": "failed"}


def records(
    suite: Suite, measured: Measured, rates: dict[str, float], environment: Environment, session: str
) -> Iterator[RunRecord]:
    """Yield a record for each implementation of a case.

    rates: the machine's rates in the same session, "matmul" in FLOP/s and "copy" in bytes/s; may lack either.
    session: an id that all records of one command share.
    """
    case = measured.case
    colours = {implementation.name: implementation.colour for implementation in suite.implementations(case)}
    for name, timing in measured.timings.items():
        status = _STATUSES[timing.status]
        notes = {BASELINE_NOTE: suite.baseline, THREADS_NOTE: str(measured.threads)} | _throttled(measured)
        if colours.get(name):
            notes[COLOUR_NOTE] = colours[name]
        if timing.status == "missing":
            notes[MISSING_NOTE] = timing.error
        yield RunRecord(
            run_id=f"bench-{uuid.uuid4().hex}",
            study=STUDY,
            spec_hash=session,
            cell=CellKey(case.operator, name),
            task=suite.name,
            model=case.size,
            trial=None,
            seed=0,
            phase="throughput",
            status=status,
            device=environment.accelerator or "cpu",
            created_at=datetime.now(UTC),
            measurements=tuple(_measurements(measured, timing, rates)),
            environment=environment,
            parameters={key: float(value) for key, value in case.shape.items()},
            notes=notes,
            error="" if status == "ok" else timing.error,
        )


def facts(suite: str, measured: Measured, implementation: str, rates: dict[str, float]) -> dict[str, Any]:
    """Return the extra information that pytest-benchmark stores beside an implementation's times; rates as above."""
    case, timing = measured.case, measured.timings[implementation]
    median = statistics.median(timing.samples.values()) if timing.samples else None
    flop_rate, byte_rate = (amount / median if amount and median else None for amount in (case.flop, case.bytes))
    of_matmul, of_copy = (
        rate / rates[name] if rate and name in rates else None
        for rate, name in ((flop_rate, "matmul"), (byte_rate, "copy"))
    )
    return {
        "suite": suite,
        "operator": case.operator,
        "shape": dict(case.shape),
        "threads": measured.threads,
        "least_flop": case.flop,
        "least_bytes": case.bytes,
        "flop_per_s": flop_rate,
        "bytes_per_s": byte_rate,
        "of_matmul_rate": of_matmul,
        "of_copy_rate": of_copy,
        "first_call_s": timing.first_call,
        "peak_bytes": timing.peak_bytes,
        "machine_rates": dict(rates),
        "contended_rounds": sorted(contended_rounds(measured) | timing.interrupted),
        "conditions": {number: asdict(round_.conditions) for number, round_ in sorted(measured.rounds.items())},
    }


def contended_rounds(measured: Measured) -> set[int]:
    """Return the rounds in which other processes used the machine, or its GPU was slowed down."""
    return {
        number
        for number, round_ in measured.rounds.items()
        if round_.conditions.throttled or (round_.conditions.others_share or 0.0) > CONTENDED_SHARE
    }


def _throttled(measured: Measured) -> dict[str, str]:
    """Return a note of the reasons for which the GPU was slowed down in any round; empty if it wasn't."""
    reasons = sorted({round_.conditions.throttled for round_ in measured.rounds.values()} - {""})
    return {"throttled": "; ".join(reasons)} if reasons else {}


def _measurements(measured: Measured, timing: Timing, rates: dict[str, float]) -> Iterator[Measurement]:
    case, marked = measured.case, contended_rounds(measured)
    if timing.status != "ok":
        yield Measurement(metrics.LATENCY, None)
        return
    for number, seconds in sorted(timing.samples.items()):
        yield Measurement(metrics.LATENCY, 1e3 * seconds, number)
        yield Measurement(metrics.CONTENDED, float(number in marked | timing.interrupted), number)
        yield Measurement(metrics.INTERRUPTED, float(number in timing.interrupted), number)
    for number, round_ in sorted(measured.rounds.items()):
        conditions = round_.conditions
        yield Measurement(metrics.OTHERS_SHARE, conditions.others_share, number)
        yield Measurement(metrics.LOAD_AVERAGE, conditions.load, number)
        yield Measurement(metrics.CLOCK, conditions.clock, number)
        yield Measurement(metrics.TEMPERATURE, conditions.temperature, number)
    single_values: dict[Metric, float | None] = {
        metrics.FIRST_CALL_TIME: timing.first_call,
        metrics.PEAK_MEMORY: timing.peak_bytes,
        metrics.LEAST_FLOP: case.flop,
        metrics.LEAST_BYTES: case.bytes,
        metrics.TOKENS_PER_CALL: None if case.tokens is None else float(case.tokens),
        metrics.RUNS_PER_CALL: None if case.runs is None else float(case.runs),
        metrics.MATMUL_RATE: rates.get("matmul"),
        metrics.COPY_RATE: rates.get("copy"),
    }
    yield from (Measurement(metric, value) for metric, value in single_values.items() if value is not None)
