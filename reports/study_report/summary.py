"""Sum up the runs of a study for its report: numbers with intervals, verdicts, and what went wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.machine import Environment
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard, largest_card
from trans4init.reports.statistics import Estimate, bca_interval, bootstrap_median
from trans4init.reports.study_report.tuning import best_trial
from trans4init.reports.study_report.verdict import Comparison, PairedRuns, judge

__all__ = ["CellSummary", "Curve", "FidelityRow", "Summary", "summarise"]

_BUSY = 0.1
"""`_notes` warns of the speeds where other processes used a larger share of the machine than this."""


@dataclass(frozen=True)
class Curve:
    """A metric against training steps: its mean over the seeds, its lowest and its highest value."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


@dataclass(frozen=True)
class CellSummary:
    """Everything that a study measured of one cell. What was not measured is None."""

    cell: CellKey
    label: str
    """The cell's name in tables and sentences."""
    runs: int
    """The number of evaluation runs that ended, with a value or without."""
    metric: Estimate | None
    """The mean over seeds of the metric that the verdict is about."""
    comparison: Comparison | None
    """The cell against the reference in that metric; None for the reference itself."""
    others: Mapping[str, Estimate]
    """The means of the other metrics of the evaluation runs that have a better direction, by name."""
    elsewhere: Mapping[str, Comparison]
    """The same comparison in those other metrics whose unit is the judged metric's, so that the margin applies."""
    training_speed: Estimate | None
    """Training throughput as a multiple of the reference's: the median over interleaved rounds."""
    forward_speed: Estimate | None
    """The same of the forward pass alone."""
    tokens_per_second: float | None
    """The median training throughput."""
    parameters: int | None
    """The number of parameters of the whole model."""
    parameters_added: int | None
    """How many of them are in the slot."""
    output_difference: float | None
    """The largest change of a logit when the arm is put in, before the first training step; largest over the seeds."""
    drift: Estimate | None
    """The RMS distance of the slot's output from the analytic function after training: the mean over seeds."""
    settings: Mapping[str, float]
    """The hyper-parameters that tuning chose."""
    curve: Curve | None
    """The judged metric over training."""


@dataclass(frozen=True)
class FidelityRow:
    """A net's errors on one region of its inputs."""

    function: str
    net: str
    region: str
    """The region's name, such as 0..127."""
    fitted: bool
    """Whether the net was fitted on this region."""
    errors: Mapping[str, float]
    """The errors on this region, by quantity."""
    costs: Mapping[str, float]
    """What the whole net costs, by quantity: parameters, FLOP, times. The same in every row of a fit."""
    leads: bool = True
    """Whether this is the first row of its fit."""


@dataclass(frozen=True)
class Summary:
    """What a report shows of a study, or of a folder of single fits, whose `card` is None."""

    card: StudyCard | None
    metric: Metric | None
    """The metric that the verdict is about; None for single fits."""
    cells: tuple[CellSummary, ...]
    """The study's cells in its order; empty for single fits."""
    fidelity: tuple[FidelityRow, ...]
    failures: tuple[RunRecord, ...]
    """Every run that is not `ok`."""
    environments: tuple[Environment, ...]
    """The different environments that the runs were made in."""
    tuning_trials: int
    """How many settings were tried for each cell."""
    runs: int
    """The number of all runs."""
    inputs: Mapping[str, tuple[float, float]]
    """The lowest and the highest input that each slot of the reference's models was given, by its path in the model."""
    notes: tuple[str, ...] = ()
    """Warnings, a sentence each."""

    def other_metrics(self) -> tuple[str, ...]:
        """Return the names of the other metrics that some cell has a mean of, in order."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.others))


@dataclass(frozen=True)
class _Speed:
    """A cell's speed in one throughput session; the first two as multiples of the reference's."""

    training: Estimate | None
    forward: Estimate | None
    tokens_per_second: float | None


def summarise(records: Sequence[RunRecord], card: StudyCard | None = None) -> Summary:
    """Sum up the runs of one study, or of single fits; raises ValueError where there are no records.

    card: the study's, as it is stored beside the runs; without one it is the largest among those of the runs.
    """
    if not records:
        raise ValueError("there are no results")
    card = card or largest_card(records)
    evaluated = _evaluated(records, card) if card else {}
    cells = _cells(records, card, evaluated) if card else ()
    return Summary(
        card=card,
        metric=_metric_called(card.metric, records) if card else None,
        cells=cells,
        fidelity=tuple(row for record in _fits(records) for row in _fidelity(record)),
        failures=tuple(record for record in records if record.status != "ok"),
        environments=_environments(records),
        tuning_trials=_tuning_trials(records, card) if card else 0,
        runs=len(records),
        inputs=_inputs(evaluated[card.reference]) if card else {},
        notes=_notes(records) if card else (),
    )


def _cells(
    records: Sequence[RunRecord], card: StudyCard, evaluated: Mapping[CellKey, Sequence[RunRecord]]
) -> tuple[CellSummary, ...]:
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
            {name: by_cell[cell] for name, by_cell in elsewhere.items() if cell in by_cell and by_cell[cell].pairs},
            speeds.get(cell),
        )
        for cell in card.cells
    )


def _compare(
    evaluated: Mapping[CellKey, Sequence[RunRecord]], card: StudyCard, metric: Metric
) -> dict[CellKey, Comparison]:
    """Compare every cell with the reference in one metric, seed by seed."""
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
    speed: _Speed | None,
) -> CellSummary:
    return CellSummary(
        cell=cell,
        label=cell.label(card.reference.function),
        runs=len(runs),
        metric=_mean(record.last(card.metric) for record in runs),
        comparison=comparison,
        others={
            metric.name: estimate
            for metric in _measured_once(runs)
            if metric.higher_is_better is not None
            and metric.name != card.metric
            and (estimate := _mean(record.last(metric.name) for record in runs))
        },
        elsewhere=elsewhere,
        training_speed=speed.training if speed else None,
        forward_speed=speed.forward if speed else None,
        tokens_per_second=speed.tokens_per_second if speed else None,
        parameters=_first(runs, metrics.PARAMETERS),
        parameters_added=_first(runs, metrics.PARAMETERS_ADDED),
        output_difference=_largest(runs, metrics.OUTPUT_DIFFERENCE_MAX),
        drift=_mean(record.last(metrics.SLOT_DRIFT_RMS.name) for record in runs),
        settings=runs[-1].parameters if runs else {},
        curve=_curve(runs, card.metric),
    )


def _evaluated(records: Sequence[RunRecord], card: StudyCard) -> dict[CellKey, list[RunRecord]]:
    """Return for each cell the evaluation runs that the card asks for, by seed: those with its best trial's settings.

    A cell has none while a trial of its budget is missing: which settings are its best is not known yet.
    """
    budget, metric = _tuning_trials(records, card), _metric_called(card.metric, records)
    evaluated = {}
    for cell in card.cells:
        runs = [record for record in records if record.cell == cell and _is_of(record, card)]
        trials = [record for record in runs if record.phase == "tune"]
        best = best_trial(trials, metric, budget)
        tuned = {record.trial for record in trials}.issuperset(range(budget))
        chosen = [
            record
            for record in runs
            if record.phase == "evaluate"
            and record.seed < card.seeds
            and record.parameters == (best.parameters if best else {})
        ]
        evaluated[cell] = sorted(chosen, key=lambda record: record.seed) if tuned else []
    return evaluated


def _tuning_trials(records: Iterable[RunRecord], card: StudyCard) -> int:
    """Return how many trials each cell is given; of a card that doesn't say it, how many numbers trials have."""
    if card.trials is not None:
        return card.trials
    return len({record.trial for record in records if record.phase == "tune"})


def _is_of(record: RunRecord, card: StudyCard) -> bool:
    """Return whether the run was made under the card's conditions; a card that doesn't say them takes every run."""
    return card.spec_hash in ("", record.spec_hash)


def _measured_once(runs: Sequence[RunRecord]) -> list[Metric]:
    """Return the metrics that a run measures once, at its end, in the order in which they are measured."""
    measured: dict[Metric, None] = {}
    for record in runs:
        times = Counter(m.metric.name for m in record.measurements)
        measured |= dict.fromkeys(m.metric for m in record.measurements if times[m.metric.name] == 1)
    return list(measured)


def _speeds(records: Iterable[RunRecord], card: StudyCard) -> dict[CellKey, _Speed]:
    """Return each cell's speed in the card's throughput session; empty where that lacks the reference.

    Of several sessions, as a card that doesn't name its runs may have, the one that timed most of the cells counts.
    """
    sessions: dict[str, dict[CellKey, RunRecord]] = {}
    for record in records:
        timed = record.run_id in card.throughput_runs or not card.throughput_runs
        if record.phase == "throughput" and record.status == "ok" and timed and record.cell in card.cells:
            sessions.setdefault(record.notes.get("session", ""), {})[record.cell] = record
    if not sessions:
        return {}
    _, session = max(sessions.items(), key=lambda item: (card.reference in item[1], len(item[1]), item[0]))
    reference = session.get(card.reference)
    if reference is None:
        return {}
    speeds = {}
    for cell, record in session.items():
        pace = record.by_step(metrics.TRAINING_THROUGHPUT.name)
        speeds[cell] = _Speed(
            training=_ratio(record, reference, metrics.TRAINING_THROUGHPUT),
            forward=_ratio(record, reference, metrics.FORWARD_THROUGHPUT),
            tokens_per_second=float(np.median(list(pace.values()))) if pace else None,
        )
    return speeds


def _ratio(record: RunRecord, reference: RunRecord, metric: Metric) -> Estimate | None:
    """Return the median over rounds of a throughput over the reference's in the same round; None without a round."""
    rounds, reference_rounds = record.by_step(metric.name), reference.by_step(metric.name)
    ratios = [rounds[number] / reference_rounds[number] for number in rounds if number in reference_rounds]
    if not ratios:
        return None
    value, interval = bootstrap_median(ratios, int(reference.notes.get("rounds_per_build", "1")))
    return Estimate(value, interval, len(ratios))


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
    """Return the fits, sorted by function, net and number of trained values."""
    fits = [record for record in records if record.phase == "fit"]
    return sorted(
        fits, key=lambda fit: (fit.cell.function, fit.cell.net, fit.last(metrics.NET_PARAMETERS.name) or 0, fit.seed)
    )


def _fidelity(record: RunRecord) -> list[FidelityRow]:
    """Return a row for each region of a fit. A metric is `quantity/region`, or a cost where it has no region."""
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
    """Return the lowest and the highest input of each slot over all runs, by the slot's path."""
    by_path: dict[str, dict[str, list[float]]] = {}
    for record in runs:
        for m in record.measurements:
            quantity, _, path = m.metric.name.partition("/")
            if path and m.value is not None:
                by_path.setdefault(path, {}).setdefault(quantity, []).append(m.value)
    low, high = metrics.SLOT_INPUT_LOW.name, metrics.SLOT_INPUT_HIGH.name
    return {
        path: (min(inputs[low]), max(inputs[high]))
        for path, inputs in by_path.items()
        if low in inputs and high in inputs
    }


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
    """Return the metric as it was measured; one without a unit where no run has measured it yet."""
    measured = (m.metric for record in records for m in record.measurements if m.metric.name == name)
    return next(measured, Metric(name, "", None))


def _mean(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean of the values that are not None, with its interval; None where all are."""
    known = [value for value in values if value is not None]
    return Estimate(float(np.mean(known)), bca_interval(known), len(known)) if known else None


def _first(runs: Sequence[RunRecord], metric: Metric) -> int | None:
    values = [value for record in runs if (value := record.last(metric.name)) is not None]
    return int(values[0]) if values else None


def _largest(runs: Sequence[RunRecord], metric: Metric) -> float | None:
    return max((value for record in runs if (value := record.last(metric.name)) is not None), default=None)
