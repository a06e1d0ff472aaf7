"""What a benchmark's rows say: times, ratios to the baseline of the same rounds, distance from the machine's limit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.statistics import Interval, bootstrap_median

__all__ = [
    "BASELINE_NOTE",
    "MISSING_NOTE",
    "STUDY",
    "THREADS_NOTE",
    "CaseSpeeds",
    "Speed",
    "Spread",
    "SuiteSpeeds",
    "Work",
    "speeds",
]

STUDY = "bench"
"""The word in a benchmark's rows where others have their study."""
BASELINE_NOTE, COLOUR_NOTE, MISSING_NOTE, THREADS_NOTE = "baseline", "colour", "missing", "threads"
"""Notes of a benchmark's record: which implementation the others are measured against; this one's colour in figures;
what this one would need; on how many of the processor's threads PyTorch ran."""
_FEWEST_FOR_AN_INTERVAL = 6
"""Rounds: a median's widest interval is from the least to the greatest of n, which covers 1 − 2/2^n: 95 % from 6 on."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Work:
    """How much of it is done in a time."""

    rate: float
    unit: str


@dataclass(frozen=True)
class Speed:
    """One implementation of a case."""

    implementation: str
    status: str
    """`ok`, `missing`, `oom` or `failed`."""
    error: str
    """Why there is no time, in one line; empty where there is one."""
    milliseconds: Spread | None
    ratio: float | None
    """How many times as fast as the baseline: the median of the rounds' ratios; None for the baseline itself."""
    ratio_interval: Interval | None
    """95 %, by bootstrap of the rounds; None for fewer than six of them."""
    first_call_seconds: float | None
    peak_bytes: float | None
    work: "Work | None"
    """Tokens per second or runs per hour, where the operator is measured in these."""
    flop_rate: float | None
    """FLOP/s: the operator's least operations over the time."""
    byte_rate: float | None
    """Bytes/s, likewise."""
    floor_share: float | None
    """The least time by the machine's own rates over the time taken."""
    colour: str = ""
    """Its colour in figures, #RRGGBB; empty where it has none of its own."""


@dataclass(frozen=True)
class CaseSpeeds:
    """An operator at one size, and everything that did it."""

    operator: str
    size: str
    shape: Mapping[str, float]
    speeds: tuple[Speed, ...]
    rounds: int
    contended: int
    """Rounds in which others used the machine, or its GPU was slowed down."""
    flop: float | None
    bytes: float | None
    floor_milliseconds: float | None


@dataclass(frozen=True)
class SuiteSpeeds:
    """A suite as one command measured it."""

    suite: str
    baseline: str
    session: str
    machine: str
    """The GPU; else the processor and how many of its cores there were."""
    settings: str
    """PyTorch's version, and on how many of the processor's threads it ran."""
    commit: str
    matmul_rate: float | None
    """FLOP/s."""
    copy_rate: float | None
    """Bytes/s."""
    cases: tuple[CaseSpeeds, ...]
    records: tuple[RunRecord, ...]


def speeds(records: Iterable[RunRecord]) -> list[SuiteSpeeds]:
    """The newest measurement of every suite on every machine, in the order in which they were measured.

    Runs of studies among the records are passed over.
    """
    sessions: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    benchmarks = (record for record in records if record.study == STUDY)
    for record in sorted(benchmarks, key=lambda record: record.created_at):
        suite = record.task, record.environment.machine()
        sessions.setdefault(suite, {}).setdefault(record.spec_hash, []).append(record)
    return [_suite(list(by_session.values())[-1]) for by_session in sessions.values()]


def _suite(records: Sequence[RunRecord]) -> SuiteSpeeds:
    first = records[0]
    cases: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        cases.setdefault((record.cell.function, record.model), []).append(record)
    return SuiteSpeeds(
        first.task,
        first.notes[BASELINE_NOTE],
        first.spec_hash,
        first.environment.machine(),
        _settings(records),
        first.environment.git_commit,
        _known(records, metrics.MATMUL_RATE.name),
        _known(records, metrics.COPY_RATE.name),
        tuple(_case(found) for found in cases.values()),
        tuple(records),
    )


def _settings(records: Sequence[RunRecord]) -> str:
    version = records[0].environment.versions.get("torch")
    threads = max((int(record.notes.get(THREADS_NOTE, 0)) for record in records), default=0)
    words = [f"torch {version}"] if version else []
    words += [f"{threads} thread{'s' if threads != 1 else ''}"] if threads else []
    return ", ".join(words)


def _case(records: Sequence[RunRecord]) -> CaseSpeeds:
    first = records[0]
    flop, least = _known(records, metrics.LEAST_FLOP.name), _known(records, metrics.LEAST_BYTES.name)
    limits = [
        amount / rate
        for amount, rate in (
            (flop, _known(records, metrics.MATMUL_RATE.name)),
            (least, _known(records, metrics.COPY_RATE.name)),
        )
        if amount and rate
    ]
    floor = 1e3 * max(limits) if limits else None
    baseline = next((one for one in records if one.cell.arm == one.notes[BASELINE_NOTE]), None)
    of_baseline = {} if baseline is None else baseline.by_step(metrics.LATENCY.name)
    marked = {number for record in records for number, mark in record.by_step(metrics.CONTENDED.name).items() if mark}
    rounds = {number for record in records for number in record.by_step(metrics.LATENCY.name)}
    return CaseSpeeds(
        first.cell.function,
        first.model,
        first.parameters,
        tuple(_speed(record, {} if record is baseline else of_baseline, (flop, least, floor)) for record in records),
        len(rounds),
        len(marked),
        flop,
        least,
        floor,
    )


def _speed(
    record: RunRecord, baseline: Mapping[int, float], needs: tuple[float | None, float | None, float | None]
) -> Speed:
    """needs: the operator's least FLOP, bytes and milliseconds."""
    flop, least, floor = needs
    samples = record.by_step(metrics.LATENCY.name)
    status = "missing" if MISSING_NOTE in record.notes else record.status
    if record.status != "ok" or not samples:
        lines = record.error.strip().splitlines()
        error = record.notes.get(MISSING_NOTE) or (lines[-1] if lines else "no sample")
        return Speed(record.cell.arm, status, error, *[None] * 9)
    low, middle, high = (float(value) for value in np.quantile(list(samples.values()), [0.25, 0.5, 0.75]))
    shared = sorted(samples.keys() & baseline.keys())
    ratio = bootstrap_median([baseline[number] / samples[number] for number in shared]) if shared else None
    interval = ratio[1] if ratio and len(shared) >= _FEWEST_FOR_AN_INTERVAL else None
    return Speed(
        record.cell.arm,
        status,
        "",
        Spread(middle, low, high),
        ratio[0] if ratio else None,
        interval,
        record.last(metrics.FIRST_CALL_TIME.name),
        record.last(metrics.PEAK_MEMORY.name),
        _work(record, middle),
        1e3 * flop / middle if flop else None,
        1e3 * least / middle if least else None,
        floor / middle if floor else None,
        record.notes.get(COLOUR_NOTE, ""),
    )


def _work(record: RunRecord, milliseconds: float) -> Work | None:
    if runs := record.last(metrics.RUNS_PER_CALL.name):
        return Work(3.6e6 * runs / milliseconds, "runs/h")
    if tokens := record.last(metrics.TOKENS_PER_CALL.name):
        return Work(1e3 * tokens / milliseconds, "tokens/s")
    return None


def _known(records: Iterable[RunRecord], metric: str) -> float | None:
    return next((value for record in records if (value := record.last(metric)) is not None), None)
