"""Compare the cells of a study with its reference, in every metric that has a better direction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard
from trans4init.reports.statistics import Estimate, sign_flip_interval
from trans4init.reports.study_report.gain import Gain, explain
from trans4init.reports.study_report.verdict import LEVEL, Comparison, PairedRuns, judge

__all__ = ["Compared", "compare_cells", "mean_of"]

_NONE = "none"
"""The arm that leaves the function out."""

Runs = Mapping[CellKey, Sequence[RunRecord]]


@dataclass(frozen=True)
class Compared:
    """Says what the comparison of one cell with the reference gave."""

    comparison: Comparison
    """In the metric that the verdict is about."""
    elsewhere: Mapping[str, Comparison] = field(default_factory=dict)
    """In the other metrics that the study stated a margin for."""
    described: Mapping[str, Estimate] = field(default_factory=dict)
    """The mean paired difference in the other metrics, which get no word."""
    share_of_none: float | None = None
    """The mean paired difference as a share of that of the arm without the function, where that one is worse."""
    gain: Gain | None = None
    """What explains that the cell is better; None if it isn't, or isn't what the study asks about."""


def compare_cells(runs: Runs, card: StudyCard, judged: Metric, others: Sequence[Metric]) -> dict[CellKey, Compared]:
    """Compare each cell with the reference, seed by seed; return all but the reference.

    runs: the evaluation runs that count. judged: the metric that the verdict is about. others: those to compare too.
    """
    margins = dict(card.margins)
    comparisons = _compare(runs, card, judged, card.margin)
    elsewhere = {m.name: _compare(runs, card, m, margins[m.name]) for m in others if m.name in margins}
    described = {m.name: _describe(runs, card, m) for m in others if m.name not in margins}
    gains = explain(card, comparisons, _values(runs, judged.name), bool(judged.higher_is_better))
    cost = _cost_of_none(comparisons)
    return {
        cell: Compared(
            comparison,
            {name: cells[cell] for name, cells in elsewhere.items() if cells[cell].pairs},
            {name: cells[cell] for name, cells in described.items() if cell in cells},
            comparison.mean / cost if cost and comparison.mean is not None and cell.arm != _NONE else None,
            gains.get(cell),
        )
        for cell, comparison in comparisons.items()
    }


def mean_of(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean of the values that are not None, with its interval; None where all are."""
    known = [value for value in values if value is not None]
    return Estimate(float(np.mean(known)), sign_flip_interval(known), len(known)) if known else None


def _values(runs: Runs, metric: str) -> dict[CellKey, dict[int, float | None]]:
    return {cell: {run.seed: run.last(metric) for run in of_cell} for cell, of_cell in runs.items()}


def _pairs(runs: Runs, card: StudyCard, metric: str) -> list[PairedRuns]:
    values = _values(runs, metric)
    return [PairedRuns(cell, values[cell], values[card.reference]) for cell in card.comparisons()]


def _compare(runs: Runs, card: StudyCard, metric: Metric, margin: float) -> dict[CellKey, Comparison]:
    """Compare every cell in one metric, corrected for all comparisons of the study that get a word."""
    judged = judge(
        _pairs(runs, card, metric.name),
        comparisons=card.words(),
        margin=margin,
        higher_is_better=bool(metric.higher_is_better),
        level=LEVEL / max(1, len(card.looks)),
    )
    return {comparison.cell: comparison for comparison in judged}


def _describe(runs: Runs, card: StudyCard, metric: Metric) -> dict[CellKey, Estimate]:
    """Return the mean paired difference of every cell in a metric that gets no word."""
    means = {pair.cell: mean_of(pair.differences().values()) for pair in _pairs(runs, card, metric.name)}
    return {cell: mean for cell, mean in means.items() if mean is not None}


def _cost_of_none(comparisons: Mapping[CellKey, Comparison]) -> float | None:
    """Return the difference that leaving the function out makes; None unless that is certainly worse."""
    found = [c.mean for cell, c in comparisons.items() if cell.arm == _NONE and c.verdict == "worse"]
    return found[0] if found else None
