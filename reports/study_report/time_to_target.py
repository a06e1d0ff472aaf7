"""Say when the runs of a study reach a target: a stated value of a metric, such as the loss that counts as grokking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard
from trans4init.reports.statistics import holm
from trans4init.reports.survival import MedianTime, Survival, kaplan_meier, log_rank

__all__ = ["CellTimes", "TimesToTarget", "times_to_target"]


@dataclass(frozen=True)
class CellTimes:
    """When the runs of one cell reach the target."""

    cell: CellKey
    label: str
    steps: Mapping[int, int]
    """By seed: the step of the first evaluation that reaches the target, else the last step that the run was at."""
    reached: frozenset[int]
    """The seeds that reach it; the others are censored."""
    left: Survival
    """The share of runs that hasn't reached it yet, by step."""
    p_different: float | None
    """p of the log-rank test against the reference, adjusted by Holm over the cells; None for the reference, and where
    no run of either reaches it."""

    @property
    def median(self) -> MedianTime:
        """The step by which half of the runs have reached the target."""
        return self.left.median()


@dataclass(frozen=True)
class TimesToTarget:
    """Holds the target of a study, and the cells with runs, in its order."""

    metric: Metric
    value: float
    cells: tuple[CellTimes, ...]


def times_to_target(
    card: StudyCard, evaluated: Mapping[CellKey, Sequence[RunRecord]], metric: Metric
) -> TimesToTarget | None:
    """Return when each cell's evaluation runs reach the card's target; None where it has none, or no run is made.

    metric: the target's. A run that never reaches it is censored at its last step. One that diverged never would:
    it is censored at the last step of the longest run. Runs out of memory or failed could have reached it: their own
    last step counts.
    """
    if card.target is None:
        return None
    runs = {cell: of_cell for cell, of_cell in evaluated.items() if of_cell}
    if not runs:
        return None
    longest = max(_last_step(run) for of_cell in runs.values() for run in of_cell)
    steps, reached = {}, {}
    for cell, of_cell in runs.items():
        firsts = {run.seed: _first_step(run, metric, card.target[1]) for run in of_cell}
        ends = {run.seed: longest if run.status == "diverged" else _last_step(run) for run in of_cell}
        steps[cell] = {seed: ends[seed] if first is None else first for seed, first in firsts.items()}
        reached[cell] = frozenset(seed for seed, first in firsts.items() if first is not None)
    p_values = _against_reference(card, steps, reached)
    cells = [
        CellTimes(
            cell,
            cell.label(card.reference.function),
            steps[cell],
            reached[cell],
            kaplan_meier(list(steps[cell].values()), [seed in reached[cell] for seed in steps[cell]]),
            p_values.get(cell),
        )
        for cell in runs
    ]
    return TimesToTarget(metric, card.target[1], tuple(cells))


def _first_step(run: RunRecord, metric: Metric, target: float) -> int | None:
    """Return the first step at which the metric is at the target or beyond; None where it never is."""
    values = run.by_step(metric.name)
    sign = 1 if metric.higher_is_better else -1
    return min((step for step, value in values.items() if sign * (value - target) >= 0), default=None)


def _last_step(run: RunRecord) -> int:
    return max(m.step for m in run.measurements)


def _against_reference(
    card: StudyCard, steps: Mapping[CellKey, Mapping[int, int]], reached: Mapping[CellKey, frozenset[int]]
) -> dict[CellKey, float]:
    """Return the adjusted p of each cell that can be compared with the reference."""
    if card.reference not in steps:
        return {}

    def times(cell: CellKey) -> tuple[list[float], list[bool]]:
        return [float(step) for step in steps[cell].values()], [seed in reached[cell] for seed in steps[cell]]

    others = [cell for cell in steps if cell != card.reference]
    found = {cell: log_rank(*times(cell), *times(card.reference)) for cell in others}
    adjusted = holm([1.0 if p is None else p for p in found.values()])
    return {cell: value for (cell, p), value in zip(found.items(), adjusted, strict=True) if p is not None}
