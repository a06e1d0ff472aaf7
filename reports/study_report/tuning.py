"""Put a cell's tuning runs together as trials, rank these, and say how sure the choice of the best one is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.records.schema import Metric, RunRecord
from trans4init.reports.records.tuning_design import TuningDesign

__all__ = ["CellTuning", "Edge", "Trial", "best_first", "sum_up_tuning", "trials_of"]

_OF_SLOTS = "slot_"
"""How the names of the settings begin that act on nothing where no value of a slot is trained."""


@dataclass(frozen=True)
class Trial:
    """Holds a setting of a cell, with its run for every tuning seed."""

    number: int
    settings: Mapping[str, float]
    runs: tuple[RunRecord, ...]
    """In the order of their seeds."""
    values: Mapping[int, float | None]
    """The metric that the study judges, by tuning seed; None for a run that diverged or failed."""

    @property
    def failures(self) -> int:
        """The number of its runs that have no value."""
        return sum(value is None for value in self.values.values())

    @property
    def mean(self) -> float | None:
        """The mean of the values that there are; None where there is none."""
        known = self._known()
        return float(np.mean(known)) if known else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the tuning seeds; None for fewer than two values."""
        known = self._known()
        return float(np.std(known, ddof=1)) if len(known) > 1 else None

    def _known(self) -> list[float]:
        return [value for value in self.values.values() if value is not None]


@dataclass(frozen=True)
class Edge:
    """Names a setting whose best value is within 5 % of an end of its range: a better one may lie beyond."""

    setting: str
    value: float
    end: str
    """The end of the range, "low" or "high"."""


@dataclass(frozen=True)
class CellTuning:
    """Says what tuning found for a cell."""

    trials: tuple[Trial, ...]
    """All trials of the budget whose runs are finished, the best first."""
    gaps: Mapping[int, float]
    """By how much the runner-up differs from the best trial, by tuning seed; empty where there is none."""
    edges: tuple[Edge, ...]

    @property
    def best(self) -> Trial:
        """The trial whose settings the cell is evaluated with."""
        return self.trials[0]

    @property
    def runner_up(self) -> Trial | None:
        """The second best trial; None where there is one trial only."""
        return self.trials[1] if len(self.trials) > 1 else None

    @property
    def gap(self) -> float | None:
        """The mean difference of the runner-up from the best trial, over the tuning seeds on which both have values."""
        return float(np.mean(list(self.gaps.values()))) if self.gaps else None


def trials_of(records: Iterable[RunRecord], metric: Metric, budget: int, seeds: Sequence[int] = ()) -> list[Trial]:
    """Return those trials of a cell that are finished, in order.

    A trial is finished when it has a run for each of `seeds`; runs of other seeds don't count. Without `seeds`, as in
    results from before cards named them, every run counts. Nor do trials from number `budget` on, from a time when
    the study had more: every cell has the same budget.
    """
    by_number: dict[int, dict[int, RunRecord]] = {}
    for record in records:
        if record.phase == "tune" and record.trial is not None and record.trial < budget:
            by_number.setdefault(record.trial, {})[record.seed] = record
    trials = []
    for number, runs in sorted(by_number.items()):
        if set(seeds) <= runs.keys():
            ordered = tuple(runs[seed] for seed in sorted(seeds or runs))
            values = {run.seed: run.last(metric.name) if run.status == "ok" else None for run in ordered}
            trials.append(Trial(number, ordered[0].parameters, ordered, values))
    return trials


def best_first(trials: Iterable[Trial], metric: Metric) -> list[Trial]:
    """Return trials from the best to the worst by the mean of `metric`, of equal ones the earlier first.

    A trial with a run that diverged or failed comes after every trial that has fewer of these.
    """
    sign = -1 if metric.higher_is_better else 1

    def rank(trial: Trial) -> tuple[int, float, int]:
        return trial.failures, 0.0 if trial.mean is None else sign * trial.mean, trial.number

    return sorted(trials, key=rank)


def sum_up_tuning(trials: Sequence[Trial], metric: Metric, design: TuningDesign) -> CellTuning | None:
    """Return what a cell's finished trials say; None where there are none."""
    if not trials:
        return None
    ranked = best_first(trials, metric)
    gaps = {}
    if len(ranked) > 1:
        best, other = ranked[0].values, ranked[1].values
        pairs = {seed: (best[seed], other.get(seed)) for seed in best}
        gaps = {seed: b - a for seed, (a, b) in pairs.items() if a is not None and b is not None}
    return CellTuning(tuple(ranked), gaps, _edges(ranked[0], design))


def _edges(best: Trial, design: TuningDesign) -> tuple[Edge, ...]:
    """Return the settings at an edge, without those that act on nothing in this cell."""
    slot_moves = any(run.notes.get("moves", "unknown") for run in best.runs)
    return tuple(
        Edge(tuned.name, best.settings[tuned.name], end)
        for tuned in design.ranges
        if tuned.name in best.settings
        and (slot_moves or not tuned.name.startswith(_OF_SLOTS))
        and (end := tuned.edge(best.settings[tuned.name]))
    )
