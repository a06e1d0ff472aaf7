"""Choose the runs of a study that count: of each cell those with the settings of its best trial."""

from collections.abc import Iterable, Mapping, Sequence

from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard
from trans4init.reports.records.tuning_design import shapes_runs
from trans4init.reports.study_report.tuning import CellTuning, Weighing, sum_up_tuning, trials_of

__all__ = ["evaluated_runs", "fits_that_count", "is_of", "metric_called", "trials_per_cell", "tuned_cells"]


def tuned_cells(records: Sequence[RunRecord], card: StudyCard) -> dict[CellKey, CellTuning | None]:
    """Return for each cell what tuning found within the card's budget, from runs under the card's conditions."""
    asked, metric = trials_per_cell(records, card), metric_called(card.metric, records)
    tuned = {}
    for cell in card.cells:
        runs = [record for record in records if record.cell == cell and is_of(record, card)]
        budget = card.tuning.trials(bool(cell.net), asked)
        trials = trials_of(runs, metric, budget, card.tuning.seeds, card.tuning.objectives[1:])
        tuned[cell] = sum_up_tuning(trials, metric, card.tuning, _weighing(records, card))
    return tuned


def _weighing(records: Iterable[RunRecord], card: StudyCard) -> Weighing | None:
    """Return how tuning weighed several objectives; None for one."""
    others = [metric_called(name, records) for name in card.tuning.objectives[1:]]
    return Weighing(card.margin, {metric.name: bool(metric.higher_is_better) for metric in others}) if others else None


def evaluated_runs(
    records: Sequence[RunRecord], card: StudyCard, tuned: Mapping[CellKey, CellTuning | None]
) -> dict[CellKey, list[RunRecord]]:
    """Return for each cell the evaluation runs that the card asks for, by seed: those with its best trial's settings.

    A cell has none while a trial of its budget is missing: which settings are its best is not known yet.
    """
    asked = trials_per_cell(records, card)
    evaluated = {}
    for cell in card.cells:
        tuning = tuned[cell]
        chosen = [
            record
            for record in records
            if record.phase == "evaluate"
            and record.seed < card.seeds
            and record.cell == cell
            and is_of(record, card)
            and record.parameters == (tuning.best.settings if tuning else {})
        ]
        complete = len(tuning.trials if tuning else ()) == card.tuning.trials(bool(cell.net), asked)
        evaluated[cell] = sorted(chosen, key=lambda record: record.seed) if complete else []
    return evaluated


def fits_that_count(records: Iterable[RunRecord], tuned: Mapping[CellKey, CellTuning | None]) -> list[RunRecord]:
    """Return the fits of a study; where trials choose a net's size, those of the sizes that a cell's best trial has."""
    best = [(cell.net, shapes_runs(tuning.best.settings)) for cell, tuning in tuned.items() if tuning]
    fits = [record for record in records if record.phase == "fit"]
    return [fit for fit in fits if not fit.parameters or (fit.cell.net, dict(fit.parameters)) in best]


def trials_per_cell(records: Iterable[RunRecord], card: StudyCard) -> int:
    """Return how many trials a study asks for in each cell; of a card that doesn't say it, as many as are numbered."""
    if card.trials is not None:
        return card.trials
    return len({record.trial for record in records if record.phase == "tune"})


def is_of(record: RunRecord, card: StudyCard) -> bool:
    """Return whether the run was made under the card's conditions; a card that doesn't say them takes every run."""
    return card.spec_hash in ("", record.spec_hash)


def metric_called(name: str, records: Iterable[RunRecord]) -> Metric:
    """Return the metric as it was measured; one without a unit where no run has measured it yet."""
    measured = (m.metric for record in records for m in record.measurements if m.metric.name == name)
    return next(measured, Metric(name, "", None))
