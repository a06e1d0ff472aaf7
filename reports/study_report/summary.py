"""From the runs of a study to what its report says: tables of numbers with intervals, verdicts, what went wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trans4init.reports.machine import Environment
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard
from trans4init.reports.statistics import Estimate, bca_interval, bootstrap_median
from trans4init.reports.study_report.verdict import Comparison, PairedRuns, judge

__all__ = ["CellSummary", "Curve", "FidelityRow", "Summary", "summarise"]

_BUSY = 0.1
"""Share of the machine that others may use before a speed is marked."""


@dataclass(frozen=True)
class Curve:
    """A metric against training steps: the mean over seeds, the lowest and the highest."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


@dataclass(frozen=True)
class CellSummary:
    """Everything that a study found out about one cell."""

    cell: CellKey
    label: str
    runs: int
    """Evaluation runs that ended, well or not."""
    metric: Estimate | None
    comparison: Comparison | None
    """None for the reference."""
    others: Mapping[str, Estimate]
    """The other judged metrics of the evaluation runs, by name."""
    elsewhere: Mapping[str, Comparison]
    """The same comparison on those of them that are in the judged metric's unit, where the margin means the same."""
    training_speed: Estimate | None
    """Training throughput as a multiple of the reference's, median over interleaved rounds."""
    forward_speed: Estimate | None
    tokens_per_second: float | None
    parameters: int | None
    parameters_added: int | None
    output_difference: float | None
    drift: Estimate | None
    settings: Mapping[str, float]
    curve: Curve | None


@dataclass(frozen=True)
class FidelityRow:
    """One region of one fit."""

    function: str
    net: str
    region: str
    fitted: bool
    errors: Mapping[str, float]
    costs: Mapping[str, float]
    leads: bool = True
    """Whether it is the first of its fit."""


@dataclass(frozen=True)
class Summary:
    """A study, or a folder of single fits (`card` is None), as its report shows it."""

    card: StudyCard | None
    metric: Metric | None
    cells: tuple[CellSummary, ...]
    fidelity: tuple[FidelityRow, ...]
    failures: tuple[RunRecord, ...]
    environments: tuple[Environment, ...]
    tuning_trials: int
    runs: int
    inputs: Mapping[str, tuple[float, float]]
    """The lowest and highest input that each slot of the reference's models was given, by its path in the model."""
    notes: tuple[str, ...] = field(default=())

    def other_metrics(self) -> tuple[str, ...]:
        """The names of the metrics beside the judged one that some cell has, in order."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.others))


def summarise(records: Sequence[RunRecord]) -> Summary:
    """Put the runs of one study together; raises ValueError where there are none."""
    if not records:
        raise ValueError("there are no results")
    newest = max(records, key=lambda record: record.created_at)
    card = newest.card
    cells = _cells(records, card) if card else ()
    return Summary(
        card=card,
        metric=_metric_called(card.metric, records) if card else None,
        cells=cells,
        fidelity=tuple(row for record in _fits(records) for row in _fidelity(record)),
        failures=tuple(record for record in records if record.status != "ok"),
        environments=_environments(records),
        tuning_trials=len({record.trial for record in records if record.phase == "tune"}),
        runs=len(records),
        inputs=_inputs(_evaluated(records, card.reference)) if card else {},
        notes=_notes(records) if card else (),
    )


def _cells(records: Sequence[RunRecord], card: StudyCard) -> tuple[CellSummary, ...]:
    evaluated = {cell: _evaluated(records, cell) for cell in card.cells}
    judged = _metric_called(card.metric, records)
    comparisons = _compare(evaluated, card, judged)
    elsewhere = {
        metric.name: _compare(evaluated, card, metric)
        for metric in _measured_once(evaluated[card.reference])
        if metric.higher_is_better is not None and metric.unit == judged.unit and metric != judged
    }
    speeds = _speeds(records, card)
    return tuple(
        _cell(
            cell,
            card,
            evaluated[cell],
            comparisons.get(cell),
            {name: found[cell] for name, found in elsewhere.items() if cell in found and found[cell].pairs},
            speeds.get(cell, {}),
        )
        for cell in card.cells
    )


def _compare(
    evaluated: Mapping[CellKey, Sequence[RunRecord]], card: StudyCard, metric: Metric
) -> dict[CellKey, Comparison]:
    """Every cell against the reference, seed by seed, in one metric."""
    values = {cell: {run.seed: run.last(metric.name) for run in runs} for cell, runs in evaluated.items()}
    pairs = [PairedRuns(cell, values[cell], values[card.reference]) for cell in card.comparisons()]
    higher = bool(metric.higher_is_better)
    judged = judge(pairs, comparisons=len(pairs), margin=card.margin, higher_is_better=higher)
    return {comparison.cell: comparison for comparison in judged}


def _cell(
    cell: CellKey,
    card: StudyCard,
    runs: Sequence[RunRecord],
    comparison: Comparison | None,
    elsewhere: Mapping[str, Comparison],
    speed: Mapping[str, Estimate],
) -> CellSummary:
    once = _measured_once(runs)
    throughput = speed.get("tokens_per_second")
    return CellSummary(
        cell=cell,
        label=cell.label(card.reference.function),
        runs=len(runs),
        metric=_mean(record.last(card.metric) for record in runs),
        comparison=comparison,
        others={
            metric.name: estimate
            for metric in once
            if metric.higher_is_better is not None
            and metric.name != card.metric
            and (estimate := _mean(record.last(metric.name) for record in runs))
        },
        elsewhere=elsewhere,
        training_speed=speed.get(metrics.TRAINING_THROUGHPUT.name),
        forward_speed=speed.get(metrics.FORWARD_THROUGHPUT.name),
        tokens_per_second=throughput.value if throughput else None,
        parameters=_first(runs, metrics.PARAMETERS),
        parameters_added=_first(runs, metrics.PARAMETERS_ADDED),
        output_difference=_largest(runs, metrics.OUTPUT_DIFFERENCE_MAX),
        drift=_mean(record.last(metrics.SLOT_DRIFT_RMS.name) for record in runs),
        settings=runs[-1].parameters if runs else {},
        curve=_curve(runs, card.metric),
    )


def _evaluated(records: Iterable[RunRecord], cell: CellKey) -> list[RunRecord]:
    """The evaluation runs of a cell by seed: those with the settings of the newest, where tuning was extended."""
    runs = [record for record in records if record.phase == "evaluate" and record.cell == cell]
    if not runs:
        return []
    settings = max(runs, key=lambda record: record.created_at).parameters
    return sorted((record for record in runs if record.parameters == settings), key=lambda record: record.seed)


def _measured_once(runs: Sequence[RunRecord]) -> list[Metric]:
    """The metrics that a run measures once, at its end, in the order in which they are measured."""
    found: dict[Metric, None] = {}
    for record in runs:
        times = Counter(m.metric.name for m in record.measurements)
        found |= dict.fromkeys(m.metric for m in record.measurements if times[m.metric.name] == 1)
    return list(found)


def _speeds(records: Iterable[RunRecord], card: StudyCard) -> dict[CellKey, dict[str, Estimate]]:
    """Each cell's speed over the reference's in the same round, for the newest session that has both."""
    sessions: dict[str, dict[CellKey, RunRecord]] = {}
    for record in sorted(records, key=lambda record: record.created_at):
        if record.phase == "throughput" and record.status == "ok":
            sessions.setdefault(record.notes.get("session", ""), {})[record.cell] = record
    if not sessions:
        return {}
    newest = max(sessions.values(), key=lambda session: max(record.created_at for record in session.values()))
    if card.reference not in newest:
        return {}
    rounds_per_build = int(newest[card.reference].notes.get("rounds_per_build", "1"))
    found: dict[CellKey, dict[str, Estimate]] = {}
    for cell, record in newest.items():
        found[cell] = {}
        for metric in (metrics.TRAINING_THROUGHPUT, metrics.FORWARD_THROUGHPUT):
            own, base = _rounds(record, metric), _rounds(newest[card.reference], metric)
            ratios = [own[round_] / base[round_] for round_ in own if round_ in base]
            value, interval = bootstrap_median(ratios, rounds_per_build)
            found[cell][metric.name] = Estimate(value, interval, len(ratios))
        pace = list(_rounds(record, metrics.TRAINING_THROUGHPUT).values())
        median, interval = bootstrap_median(pace, rounds_per_build)
        found[cell]["tokens_per_second"] = Estimate(median, interval, len(own))
    return found


def _rounds(record: RunRecord, metric: Metric) -> dict[int, float]:
    return {m.step: m.value for m in record.measurements if m.metric.name == metric.name and m.value is not None}


def _curve(runs: Sequence[RunRecord], metric: str) -> Curve | None:
    by_step: dict[int, list[float]] = {}
    for record in runs:
        for m in record.measurements:
            if m.metric.name == metric and m.value is not None:
                by_step.setdefault(m.step, []).append(m.value)
    if not by_step:
        return None
    steps = sorted(by_step)
    return Curve(
        steps=tuple(steps),
        mean=tuple(float(np.mean(by_step[step])) for step in steps),
        lowest=tuple(min(by_step[step]) for step in steps),
        highest=tuple(max(by_step[step]) for step in steps),
    )


def _fits(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The fits by function, net and number of trained values."""
    fits = [record for record in records if record.phase == "fit"]
    return sorted(
        fits, key=lambda fit: (fit.cell.function, fit.cell.net, fit.last(metrics.NET_PARAMETERS.name) or 0, fit.seed)
    )


def _fidelity(record: RunRecord) -> list[FidelityRow]:
    by_region: dict[str, dict[str, float]] = {}
    costs: dict[str, float] = {}
    for m in record.measurements:
        quantity, _, region = m.metric.name.partition("/")
        if m.value is not None:
            (by_region.setdefault(region, {}) if region else costs)[quantity] = m.value
    fitted_on = record.notes.get("fitted_on", "")
    return [
        FidelityRow(record.cell.function, record.cell.net, region, region == fitted_on, errors, costs, leads=not index)
        for index, (region, errors) in enumerate(by_region.items())
    ]


def _inputs(runs: Sequence[RunRecord]) -> dict[str, tuple[float, float]]:
    found: dict[str, dict[str, list[float]]] = {}
    for record in runs:
        for m in record.measurements:
            quantity, _, path = m.metric.name.partition("/")
            if path and m.value is not None:
                found.setdefault(path, {}).setdefault(quantity, []).append(m.value)
    low, high = metrics.SLOT_INPUT_LOW.name, metrics.SLOT_INPUT_HIGH.name
    return {path: (min(seen[low]), max(seen[high])) for path, seen in found.items() if low in seen and high in seen}


def _notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    notes = []
    hashes = {record.spec_hash for record in records}
    if len(hashes) > 1:
        notes.append(f"The results are of {len(hashes)} different conditions ({', '.join(sorted(hashes))}).")
    if len({record.environment.fingerprint() for record in records}) > 1:
        notes.append("Not all runs were made in the same environment; see below.")
    busy = _largest(records, metrics.OTHERS_SHARE)
    if busy is not None and busy > _BUSY:
        notes.append(f"Other processes used {busy:.0%} of the machine while speed was measured: trust the speeds less.")
    return tuple(notes)


def _environments(records: Iterable[RunRecord]) -> tuple[Environment, ...]:
    return tuple({record.environment.fingerprint(): record.environment for record in records}.values())


def _metric_called(name: str, records: Iterable[RunRecord]) -> Metric:
    found = (m.metric for record in records for m in record.measurements if m.metric.name == name)
    return next(found, Metric(name, "", None))


def _mean(values: Iterable[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return Estimate(float(np.mean(known)), bca_interval(known), len(known)) if known else None


def _first(runs: Sequence[RunRecord], metric: Metric) -> int | None:
    values = [value for record in runs if (value := record.last(metric.name)) is not None]
    return int(values[0]) if values else None


def _largest(runs: Sequence[RunRecord], metric: Metric) -> float | None:
    return max((value for record in runs if (value := record.last(metric.name)) is not None), default=None)
