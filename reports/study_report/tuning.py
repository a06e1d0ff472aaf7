"""Put a cell's tuning runs together as trials, rank these, and say how sure the choice of the best one is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trans4init.reports.records.schema import Metric, RunRecord
from trans4init.reports.records.tuning_design import Setting, TuningDesign

__all__ = ["CellTuning", "Edge", "Trial", "Weighing", "best_first", "pareto_front", "sum_up_tuning", "trials_of"]

_OF_SLOTS = "slot_"
"""How the names of the settings begin that act on nothing where no value of a slot is trained."""


@dataclass(frozen=True)
class Trial:
    """Holds one trial of a cell: the settings that were tried, and the run of every tuning seed."""

    number: int
    settings: Mapping[str, Setting]
    runs: tuple[RunRecord, ...]
    """In the order of their seeds."""
    values: Mapping[int, float | None]
    """The metric that the study judges, by tuning seed; None for a run that diverged or failed."""

    costs: Mapping[str, float] = field(default_factory=dict)
    """The mean over the tuning seeds of each further metric that tuning weighs; without those that are missing."""

    @property
    def failures(self) -> int:
        """The number of its runs that have no value."""
        return sum(value is None for value in self.values.values())

    @property
    def pruned(self) -> bool:
        """Whether it was stopped, since it fell behind."""
        return any(run.status == "pruned" for run in self.runs)

    @property
    def weighed(self) -> tuple[float, ...]:
        """The mean of the judged metric, then those of the others that tuning weighs."""
        return (self.mean, *self.costs.values()) if self.mean is not None else ()

    def curve(self, metric: str) -> dict[int, float]:
        """Return the mean of a metric over the tuning seeds, at each step at which all runs with values have one."""
        curves = [curve for run in self.runs if (curve := run.by_step(metric))]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        return {step: float(np.mean([curve[step] for curve in curves])) for step in steps}

    @property
    def mean(self) -> float | None:
        """The mean of the values that there are; None where there is none."""
        known = self.known()
        return float(np.mean(known)) if known else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the tuning seeds; None for fewer than two values."""
        known = self.known()
        return float(np.std(known, ddof=1)) if len(known) > 1 else None

    def known(self) -> list[float]:
        """Return the values that there are, in the order of the seeds."""
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
    front: tuple[int, ...] = ()
    """The numbers of the trials on the Pareto front, the best in the judged metric first; empty for one objective."""

    def on_front(self) -> list[Trial]:
        """Return the trials on the Pareto front, the best in the judged metric first; none for one objective."""
        by_number = {trial.number: trial for trial in self.trials}
        return [by_number[number] for number in self.front]

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


def trials_of(
    records: Iterable[RunRecord],
    metric: Metric,
    budget: int,
    seeds: Sequence[int] = (),
    others: Sequence[str] = (),
) -> list[Trial]:
    """Return those trials of a cell that are finished, in order.

    A trial is finished when it has a run for each of `seeds`; runs of other seeds don't count. Without `seeds`, as in
    results from before cards named them, every run counts. Nor do trials from number `budget` on, from a time when
    the study had more: every cell has the same budget. others: the names of further metrics that tuning weighs.
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
            trials.append(Trial(number, ordered[0].parameters, ordered, values, _costs(ordered, others)))
    return trials


def _costs(runs: Sequence[RunRecord], names: Sequence[str]) -> dict[str, float]:
    found = {name: [value for run in runs if (value := run.last(name)) is not None] for name in names}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


@dataclass(frozen=True)
class Weighing:
    """Says how tuning weighs further metrics against the judged one."""

    margin: float
    """The study's margin. A trial that is worse by up to half of it than the best in the judged metric may be chosen
    for the others: it is to be equivalent when it is evaluated, and half is room for what seeds differ by."""
    others: Mapping[str, bool]
    """The further metrics in the order of their weight, and whether more of each is better."""


def best_first(trials: Iterable[Trial], metric: Metric, weighing: Weighing | None = None) -> list[Trial]:
    """Return trials from the best to the worst by the mean of `metric`, of equal ones the earlier first.

    A trial with a run that diverged or failed comes after every trial that has fewer of these. With several
    objectives the first is that trial, within half the margin of the best, which is best in the others.
    """
    sign = -1 if metric.higher_is_better else 1

    def rank(trial: Trial) -> tuple[int, float, int]:
        return trial.failures, 0.0 if trial.mean is None else sign * trial.mean, trial.number

    ranked = sorted(trials, key=rank)
    if weighing is None or not ranked or ranked[0].mean is None:
        return ranked
    limit = sign * ranked[0].mean + weighing.margin / 2

    def cost(trial: Trial) -> tuple[float, ...]:
        known = weighing.others.items()
        return tuple(
            (-1 if more else 1) * trial.costs.get(name, -math.inf if more else math.inf) for name, more in known
        )

    near = [t for t in ranked if t.failures == ranked[0].failures and t.mean is not None and sign * t.mean <= limit]
    chosen = min(near, key=cost)
    return [chosen, *(trial for trial in ranked if trial is not chosen)]


def pareto_front(trials: Iterable[Trial], metric: Metric, weighing: Weighing) -> list[Trial]:
    """Return those trials that no other one is as good as in every objective and better in one, the best first."""
    more = (bool(metric.higher_is_better), *weighing.others.values())
    whole = [t for t in best_first(trials, metric) if not t.failures and len(t.weighed) == len(more)]
    losses = {t.number: tuple(-v if up else v for v, up in zip(t.weighed, more, strict=True)) for t in whole}

    def beaten(trial: Trial) -> bool:
        mine = losses[trial.number]
        return any(
            other != mine and all(theirs <= own for theirs, own in zip(other, mine, strict=True))
            for other in losses.values()
        )

    return [trial for trial in whole if not beaten(trial)]


def sum_up_tuning(
    trials: Sequence[Trial], metric: Metric, design: TuningDesign, weighing: Weighing | None = None
) -> CellTuning | None:
    """Return what a cell's finished trials say; None where there are none."""
    if not trials:
        return None
    ranked = best_first(trials, metric, weighing)
    gaps = {}
    if len(ranked) > 1:
        best, other = ranked[0].values, ranked[1].values
        pairs = {seed: (best[seed], other.get(seed)) for seed in best}
        gaps = {seed: b - a for seed, (a, b) in pairs.items() if a is not None and b is not None}
    front = pareto_front(trials, metric, weighing) if weighing else []
    return CellTuning(tuple(ranked), gaps, _edges(ranked[0], design), tuple(trial.number for trial in front))


def _edges(best: Trial, design: TuningDesign) -> tuple[Edge, ...]:
    """Return the settings at an edge, without those that act on nothing in this cell."""
    slot_moves = any(run.notes.get("moves", "unknown") for run in best.runs)
    return tuple(
        Edge(tuned.name, value, end)
        for tuned in design.ranges
        if isinstance(value := best.settings.get(tuned.name), (int, float))
        and (slot_moves or not tuned.name.startswith(_OF_SLOTS))
        and (end := tuned.edge(value))
    )
