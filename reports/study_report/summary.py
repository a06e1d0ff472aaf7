"""Sum up the runs of a study for its report: numbers with intervals, verdicts, and what went wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trans4init.reports.formats import number, spoken
from trans4init.reports.machine import Environment
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard, largest_card
from trans4init.reports.records.tuning_design import Setting
from trans4init.reports.statistics import Estimate
from trans4init.reports.study_report.comparing import Compared, compare_cells, mean_of
from trans4init.reports.study_report.counted_runs import (
    evaluated_runs,
    fits_that_count,
    is_of,
    metric_called,
    trials_per_cell,
    tuned_cells,
)
from trans4init.reports.study_report.error_budget import ErrorBudget, read_budget
from trans4init.reports.study_report.fidelity import FidelityRow, fidelity
from trans4init.reports.study_report.gain import Gain
from trans4init.reports.study_report.plan import changes
from trans4init.reports.study_report.remarks import remarks
from trans4init.reports.study_report.speed import CellSpeed, Session, SpeedRatio, throughput_session
from trans4init.reports.study_report.time_to_target import TimesToTarget, times_to_target
from trans4init.reports.study_report.tuning import CellTuning
from trans4init.reports.study_report.tunings import BUDGET_DEPENDENT, DEPENDS, Budgets, Tunings
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["CellSummary", "Curve", "Summary", "summarise"]


@dataclass(frozen=True)
class Curve:
    """Holds a metric against training steps: its mean over the seeds, its lowest and its highest value."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


@dataclass(frozen=True)
class CellSummary:
    """Holds everything that a study measured of one cell. What was not measured is None."""

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
    """The same comparison in the other metrics that the study stated a margin for."""
    described: Mapping[str, Estimate]
    """The mean paired difference in the other metrics that have a better direction, which get no word."""
    share_of_none: float | None
    """The mean paired difference as a share of that of the arm without the function, where that one is worse."""
    gain: Gain | None
    """What explains that the cell is better; None if it isn't, or holds no fitted net."""
    training_speed: SpeedRatio | None
    """Training throughput as a multiple of the reference's in the same rounds."""
    forward_speed: SpeedRatio | None
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
    settings: Mapping[str, Setting]
    """The hyper-parameters that tuning chose."""
    tuning: CellTuning | None
    """What tuning found; None while no trial is finished, and where nothing is tuned."""
    curve: Curve | None
    """The judged metric over training."""
    run_ids: tuple[str, ...] = ()
    """The evaluation runs that count, by seed."""
    tunings: Tunings = field(default_factory=Tunings)
    """What each further time that the study was tuned says of the cell."""
    budgets: Budgets = field(default_factory=Budgets)
    """What tuning with fewer trials says of the cell."""

    @property
    def word(self) -> str:
        """The cell's verdict, or that it depends on tuning or its budget; an empty string for the reference."""
        if self.comparison is None:
            return ""
        if self.tunings.disagree(self.comparison):
            return DEPENDS
        return BUDGET_DEPENDENT if self.budgets.disagree(self.comparison) else self.comparison.verdict

    def words(self) -> str:
        """Write which words were found how often, where the cell's word depends on something."""
        assert self.comparison is not None
        found = self.budgets if self.word == BUDGET_DEPENDENT else self.tunings
        return found.counted(self.comparison)


@dataclass(frozen=True)
class Summary:
    """Holds what a report shows of a study, or of a folder of single fits, whose `card` is None."""

    card: StudyCard | None
    metric: Metric | None
    """The metric that the verdict is about; None for single fits."""
    cells: tuple[CellSummary, ...]
    """The study's cells in its order; empty for single fits."""
    fidelity: tuple[FidelityRow, ...]
    failures: tuple[RunRecord, ...]
    """Every run that went wrong: diverged, out of memory, or failed."""
    environments: tuple[Environment, ...]
    """The different environments that the runs were made in."""
    tuning_trials: int
    """How many settings were tried for each cell."""
    pruned: int
    """How many tuning runs were stopped, or never started, since their trial fell behind."""
    runs: int
    """The number of all runs."""
    inputs: Mapping[str, tuple[float, float]]
    """The lowest and the highest input that each slot of the reference's models was given, by its path in the model."""
    notes: tuple[str, ...] = ()
    """Warnings, a sentence each."""
    session: Session | None = None
    """How speed was measured; None if it wasn't."""
    error_budget: ErrorBudget | None = None
    """None for a study that asks for none, and until a net of it is compared."""
    times: TimesToTarget | None = None
    """None for a study without a target, and until a run is evaluated."""

    @property
    def fits_per_net(self) -> int:
        """The most fits that a net has in the table of fidelity; 0 where there is no fit."""
        return max((row.fits for row in self.fidelity), default=0)

    def roles(self) -> str:
        """Write which settings the study calls scientific, nuisance and fixed; an empty string if it says nothing."""
        by_role: dict[str, list[str]] = {}
        for name, role in self.card.tuning.roles if self.card else ():
            by_role.setdefault(role, []).append(spoken(name))
        return "; ".join(f"{role}: {', '.join(names)}" for role, names in by_role.items())

    def choice(self) -> str:
        """Return how the best setting is chosen where tuning weighs several metrics, as part of a sentence."""
        assert self.card is not None
        others = ", then ".join(spoken(name) for name in self.card.tuning.objectives[1:])
        return f"of the trials within half the margin of the best, the one that is best in {others} is chosen"

    def times_tuned(self) -> int:
        """Return how often the study was tuned and every cell evaluated with what that chose; 1 if it wasn't tuned."""
        return 1 + max((len(cell.tunings.further) for cell in self.cells), default=0)

    def judged_metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics that get a word, the one that the verdict is about first."""
        others = (name for cell in self.cells for name in cell.elsewhere)
        return tuple(dict.fromkeys([*([self.card.metric] if self.card else []), *others]))

    def other_metrics(self) -> tuple[str, ...]:
        """Return the names of the other metrics that some cell has a mean of, in order."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.others))


def summarise(records: Sequence[RunRecord], card: StudyCard | None = None) -> Summary:
    """Sum up the runs of one study, or of single fits; raises ValueError where there are no records.

    card: the study's, as it is stored beside the runs; without one it is the largest among those of the runs.
    """
    if not records:
        raise ValueError("there are no results")
    card = card or largest_card(records)
    tuned = tuned_cells(records, card) if card else {}
    evaluated = evaluated_runs(records, card, tuned) if card else {}
    best = {cell: tuning.best.settings for cell, tuning in tuned.items() if tuning}
    session = throughput_session(records, card, best) if card else None
    cells = _cells(records, card, evaluated, tuned, session) if card else ()
    return Summary(
        card=card,
        metric=metric_called(card.metric, records) if card else None,
        cells=cells,
        fidelity=fidelity(fits_that_count(records, tuned)),
        failures=tuple(record for record in records if record.status not in ("ok", "pruned")),
        environments=_environments(records),
        tuning_trials=trials_per_cell(records, card) if card else 0,
        pruned=sum(record.status == "pruned" for record in records),
        runs=len(records),
        inputs=_inputs(evaluated[card.reference]) if card else {},
        notes=(
            *remarks(records),
            *(session.warnings() if session else ()),
            *changes(card, min(len(runs) for runs in evaluated.values())),
            *_edges(cells),
        )
        if card
        else (),
        session=session,
        error_budget=_error_budget(records, card, cells) if card else None,
        times=_times(records, card, evaluated) if card else None,
    )


def _times(
    records: Sequence[RunRecord], card: StudyCard, evaluated: Mapping[CellKey, Sequence[RunRecord]]
) -> TimesToTarget | None:
    metric = metric_called(card.target[0], records) if card.target else None
    return times_to_target(card, evaluated, metric) if metric else None


def _error_budget(records: Iterable[RunRecord], card: StudyCard, cells: Iterable[CellSummary]) -> ErrorBudget | None:
    compared = {cell.cell: cell.comparison for cell in cells if cell.comparison is not None}
    return read_budget(card, (record for record in records if is_of(record, card)), compared)


def _cells(
    records: Sequence[RunRecord],
    card: StudyCard,
    evaluated: Mapping[CellKey, Sequence[RunRecord]],
    tuned: Mapping[CellKey, CellTuning | None],
    session: Session | None,
) -> tuple[CellSummary, ...]:
    judged = metric_called(card.metric, records)
    others = [
        metric
        for metric in _measured_once(evaluated[card.reference])
        if metric.higher_is_better is not None and metric.name != card.metric
    ]
    compared = compare_cells(evaluated, card, judged, others)
    again = [compare_cells(runs, card, judged, others) for runs in _tuned_again(records, card)]
    smaller = [(fewer, compare_cells(runs, card, judged, others)) for fewer, runs in _budgeted(records, card)]
    speeds = session.cells if session else {}
    return tuple(
        _cell(
            cell,
            card,
            evaluated[cell],
            compared.get(cell),
            speeds.get(cell),
            tuned[cell],
            Tunings(tuple(time[cell] for time in again if cell in time)),
            Budgets(tuple((fewer, found[cell]) for fewer, found in smaller if cell in found), card.trials),
        )
        for cell in card.cells
    )


def _tuned_again(records: Sequence[RunRecord], card: StudyCard) -> Iterator[dict[CellKey, list[RunRecord]]]:
    """Yield the evaluation runs of each further time that the study was tuned, of those that are finished."""
    for design in card.tuning.further():
        as_tuned = replace(card, tuning=design)
        runs = evaluated_runs(records, as_tuned, tuned_cells(records, as_tuned))
        if all(len(of_cell) == card.seeds for of_cell in runs.values()):
            yield runs


def _budgeted(records: Sequence[RunRecord], card: StudyCard) -> Iterator[tuple[int, dict[CellKey, list[RunRecord]]]]:
    """Yield the evaluation runs of the best of fewer trials, for each of these budgets that is finished."""
    for fewer in card.tuning.budgets:
        as_tuned = replace(card, trials=fewer)
        runs = evaluated_runs(records, as_tuned, tuned_cells(records, as_tuned))
        if all(len(of_cell) == card.seeds for of_cell in runs.values()):
            yield fewer, runs


def _cell(
    cell: CellKey,
    card: StudyCard,
    runs: Sequence[RunRecord],
    compared: Compared | None,
    speed: CellSpeed | None,
    tuning: CellTuning | None,
    tunings: Tunings,
    budgets: Budgets,
) -> CellSummary:
    return CellSummary(
        cell=cell,
        label=cell.label(card.reference.function),
        runs=len(runs),
        metric=mean_of(record.last(card.metric) for record in runs),
        comparison=compared.comparison if compared else None,
        others={
            metric.name: estimate
            for metric in _measured_once(runs)
            if metric.higher_is_better is not None
            and metric.name != card.metric
            and (estimate := mean_of(record.last(metric.name) for record in runs))
        },
        elsewhere=compared.elsewhere if compared else {},
        described=compared.described if compared else {},
        share_of_none=compared.share_of_none if compared else None,
        gain=tunings.gain(compared.gain) if compared else None,
        training_speed=speed.training if speed else None,
        forward_speed=speed.forward if speed else None,
        tokens_per_second=speed.tokens_per_second if speed else None,
        parameters=_first(runs, metrics.PARAMETERS),
        parameters_added=_first(runs, metrics.PARAMETERS_ADDED),
        output_difference=_largest(runs, metrics.OUTPUT_DIFFERENCE_MAX),
        drift=mean_of(record.last(metrics.SLOT_DRIFT_RMS.name) for record in runs),
        settings=runs[-1].parameters if runs else {},
        tuning=tuning,
        curve=_curve(runs, card.metric),
        run_ids=tuple(record.run_id for record in runs),
        tunings=tunings,
        budgets=budgets,
    )


def _measured_once(runs: Sequence[RunRecord]) -> list[Metric]:
    """Return the metrics that a run measures once, at its end, in the order in which they are measured."""
    measured: dict[Metric, None] = {}
    for record in runs:
        times = Counter(m.metric.name for m in record.measurements)
        measured |= dict.fromkeys(m.metric for m in record.measurements if times[m.metric.name] == 1)
    return list(measured)


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


def _edges(cells: Iterable[CellSummary]) -> list[str]:
    """Return a sentence on the cells whose best setting lies at an edge of its range; none where there is none."""
    named = [
        f"{cell.label} ({', '.join(f'{spoken(edge.setting)} {number(edge.value, 2)}' for edge in cell.tuning.edges)})"
        for cell in cells
        if cell.tuning and cell.tuning.edges
    ]
    if not named:
        return []
    return [f"The best setting is at the edge of its range for {', '.join(named)}: a better one may lie beyond."]


def _environments(records: Iterable[RunRecord]) -> tuple[Environment, ...]:
    return tuple({record.environment.fingerprint(): record.environment for record in records}.values())


def _first(runs: Sequence[RunRecord], metric: Metric) -> int | None:
    values = [value for record in runs if (value := record.last(metric.name)) is not None]
    return int(values[0]) if values else None


def _largest(runs: Sequence[RunRecord], metric: Metric) -> float | None:
    return max((value for record in runs if (value := record.last(metric.name)) is not None), default=None)
