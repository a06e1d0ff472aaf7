"""Sum up a benchmark's records: times, ratios to the baseline round by round, distance from the machine's limit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.machine import MOST_CONTENDED
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Metric, RunRecord
from trans4init.reports.statistics import Interval, sign_interval

__all__ = [
    "BASELINE_NOTE",
    "MISSING_NOTE",
    "STUDY",
    "THREADS_NOTE",
    "CaseSpeeds",
    "ContendedRounds",
    "Speed",
    "Spread",
    "SuiteSpeeds",
    "Work",
    "contended_rounds",
    "speeds",
]

STUDY = "bench"
"""The value of the `study` column in benchmark records."""
BASELINE_NOTE, COLOUR_NOTE, MISSING_NOTE, THREADS_NOTE = "baseline", "colour", "missing", "threads"
"""Keys of a benchmark record's notes: the implementation that the others are compared with; the record's colour in
figures; what its implementation needs and this machine lacks; how many threads PyTorch used."""


@dataclass(frozen=True)
class Spread:
    """Holds a median with its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Work:
    """Says how much work is done per unit of time, such as tokens per second."""

    rate: float
    unit: str


@dataclass(frozen=True)
class Speed:
    """Holds what was measured of one implementation of a case. What was not measured is None."""

    implementation: str
    status: str
    """`ok`, `missing`, `oom` or `failed`."""
    error: str
    """Why there is no time, in one line; empty if there is one."""
    milliseconds: Spread | None = None
    ratio: float | None = None
    """How many times as fast as the baseline: the median of the rounds' ratios; None for the baseline itself."""
    ratio_interval: Interval | None = None
    """The 95 % interval of the rounds' median, which inverts the sign test; None for fewer than six rounds. All rounds
    are of one process: another, whose memory lies elsewhere, may differ by a percent or two more."""
    first_call_seconds: float | None = None
    """How long preparation and the first call took."""
    peak_bytes: float | None = None
    """The most memory that one call holds beyond its inputs."""
    work: Work | None = None
    """Tokens per second or runs per hour, where the operator is measured in these."""
    flop_rate: float | None = None
    """FLOP/s: the fewest operations that the operator needs, over the time."""
    byte_rate: float | None = None
    """Bytes/s: the fewest bytes that the operator must move, over the time."""
    share_of_limit: float | None = None
    """The least time that the machine's own rates allow, over the time taken; 1 is the limit."""
    colour: str = ""
    """The implementation's own colour in figures, #RRGGBB; empty if it has none."""


@dataclass(frozen=True)
class CaseSpeeds:
    """Describes an operator at one size, and the speeds of all its implementations."""

    operator: str
    size: str
    shape: Mapping[str, float]
    """The numbers that make up the size, by name."""
    speeds: tuple[Speed, ...]
    rounds: int
    contended: int
    """The number of rounds in which other processes used the machine, or its GPU was slowed down."""
    flop: float | None
    """The fewest operations that the operator needs."""
    bytes: float | None
    """The fewest bytes that it must move."""
    least_milliseconds: float | None
    """The least time that the machine's own rates allow for these."""

    def name(self) -> str:
        """Return the operator with its size."""
        return f"{self.operator} {self.size}".strip()


@dataclass(frozen=True)
class ContendedRounds:
    """Counts how many rounds of a table were contended."""

    contended: int
    rounds: int

    def too_many(self) -> bool:
        """Return whether they are more than a published table may have."""
        return self.contended > MOST_CONTENDED * self.rounds

    def __str__(self) -> str:
        return f"{self.contended} of {self.rounds} rounds contended"


def contended_rounds(cases: Iterable[CaseSpeeds]) -> ContendedRounds:
    """Count the contended rounds of these cases."""
    counted = [(case.contended, case.rounds) for case in cases]
    return ContendedRounds(sum(contended for contended, _ in counted), sum(rounds for _, rounds in counted))


@dataclass(frozen=True)
class SuiteSpeeds:
    """Holds a suite of cases as one command measured it on one machine."""

    suite: str
    baseline: str
    session: str
    """The id that all records of this measurement share."""
    machine: str
    """The GPU; without one, the processor and how many of its cores were usable."""
    settings: str
    """PyTorch's version, and how many threads it used."""
    commit: str
    matmul_rate: float | None
    """FLOP/s that the machine reached in a matrix product in the same session."""
    copy_rate: float | None
    """Bytes/s that it reached in copying."""
    cases: tuple[CaseSpeeds, ...]
    records: tuple[RunRecord, ...]

    def contention(self) -> "ContendedRounds":
        """Return how many rounds of all cases were contended."""
        return contended_rounds(self.cases)


def speeds(records: Iterable[RunRecord]) -> list[SuiteSpeeds]:
    """Return the newest measurement of every suite on every machine, in the order in which they were measured.

    Records of studies are ignored.
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
        suite=first.task,
        baseline=first.notes[BASELINE_NOTE],
        session=first.spec_hash,
        machine=first.environment.machine(),
        settings=_settings(records),
        commit=first.environment.git_commit,
        matmul_rate=_first_known(records, metrics.MATMUL_RATE),
        copy_rate=_first_known(records, metrics.COPY_RATE),
        cases=tuple(_case(case) for case in cases.values()),
        records=tuple(records),
    )


def _settings(records: Sequence[RunRecord]) -> str:
    version = records[0].environment.versions.get("torch")
    threads = max((int(record.notes.get(THREADS_NOTE, 0)) for record in records), default=0)
    words = [f"torch {version}"] if version else []
    words += [f"{threads} thread{'s' if threads != 1 else ''}"] if threads else []
    return ", ".join(words)


def _case(records: Sequence[RunRecord]) -> CaseSpeeds:
    first = records[0]
    flop, least_bytes = _first_known(records, metrics.LEAST_FLOP), _first_known(records, metrics.LEAST_BYTES)
    matmul_rate, copy_rate = _first_known(records, metrics.MATMUL_RATE), _first_known(records, metrics.COPY_RATE)
    seconds = [need / rate for need, rate in ((flop, matmul_rate), (least_bytes, copy_rate)) if need and rate]
    least_milliseconds = 1e3 * max(seconds) if seconds else None
    baseline = next((record for record in records if record.cell.arm == record.notes[BASELINE_NOTE]), None)
    baseline_times = {} if baseline is None else baseline.by_step(metrics.LATENCY.name)
    contended = {
        number for record in records for number, mark in record.by_step(metrics.CONTENDED.name).items() if mark
    }
    rounds = {number for record in records for number in record.by_step(metrics.LATENCY.name)}
    return CaseSpeeds(
        operator=first.cell.function,
        size=first.model,
        shape={name: float(size) for name, size in first.parameters.items() if isinstance(size, (int, float))},
        speeds=tuple(
            _speed(record, {} if record is baseline else baseline_times, flop, least_bytes, least_milliseconds)
            for record in records
        ),
        rounds=len(rounds),
        contended=len(contended),
        flop=flop,
        bytes=least_bytes,
        least_milliseconds=least_milliseconds,
    )


def _speed(
    record: RunRecord,
    baseline_times: Mapping[int, float],
    flop: float | None,
    least_bytes: float | None,
    least_milliseconds: float | None,
) -> Speed:
    """Sum up one implementation. `baseline_times` are the baseline's by round: empty for the baseline itself."""
    times = record.by_step(metrics.LATENCY.name)
    status = "missing" if MISSING_NOTE in record.notes else record.status
    if record.status != "ok" or not times:
        lines = record.error.strip().splitlines()
        error = record.notes.get(MISSING_NOTE) or (lines[-1] if lines else "no sample")
        return Speed(record.cell.arm, status, error)
    low, median, high = (float(value) for value in np.quantile(list(times.values()), [0.25, 0.5, 0.75]))
    shared = sorted(times.keys() & baseline_times.keys())
    ratios = [baseline_times[number] / times[number] for number in shared]
    return Speed(
        implementation=record.cell.arm,
        status=status,
        error="",
        milliseconds=Spread(median, low, high),
        ratio=float(np.median(ratios)) if ratios else None,
        ratio_interval=sign_interval(ratios),
        first_call_seconds=record.last(metrics.FIRST_CALL_TIME.name),
        peak_bytes=record.last(metrics.PEAK_MEMORY.name),
        work=_work(record, median),
        flop_rate=1e3 * flop / median if flop else None,
        byte_rate=1e3 * least_bytes / median if least_bytes else None,
        share_of_limit=least_milliseconds / median if least_milliseconds else None,
        colour=record.notes.get(COLOUR_NOTE, ""),
    )


def _work(record: RunRecord, milliseconds: float) -> Work | None:
    if runs := record.last(metrics.RUNS_PER_CALL.name):
        return Work(3.6e6 * runs / milliseconds, "runs/h")
    if tokens := record.last(metrics.TOKENS_PER_CALL.name):
        return Work(1e3 * tokens / milliseconds, "tokens/s")
    return None


def _first_known(records: Iterable[RunRecord], metric: Metric) -> float | None:
    """Return the metric's value in the first record that has one."""
    return next((value for record in records if (value := record.last(metric.name)) is not None), None)
