"""The agenda: which runs of a study are finished, and which can be run next. Knows no process, no clock, no disk."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from trans4init.ablations.slots.arms import get_arm
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.records.schema import CellKey, RunRecord

__all__ = ["Agenda", "Propose", "best_trial"]

Propose = Callable[[CellKey, int, Sequence[RunRecord]], dict[str, float]]
"""The settings of a cell's next trial, given its finished trials."""


class Agenda:
    """First the fits, then every cell's trials, then every seed of every cell, last the speed of all."""

    def __init__(self, study: ResolvedStudy, records: Sequence[RunRecord], fits_at_hand: Collection[str]) -> None:
        """`fits_at_hand`: the nets whose checkpoint is there; a fit without one is done again."""
        self.study = study
        self.finished: dict[str, RunRecord] = {}
        self._asked: dict[tuple[CellKey, int, int | None], Request] = {}
        self._trials: dict[CellKey, dict[int, RunRecord]] = {cell: {} for cell in study.spec.cells()}
        for record in records:
            if record.phase != "fit" or record.status != "ok" or record.cell.net in fits_at_hand:
                self.add(record)

    def add(self, record: RunRecord) -> None:
        """A run is finished; one that is not part of the study, as it now is, is left aside."""
        request = self.study.request_of(record)
        if request is None or request.run_id != record.run_id:
            return
        self.finished[record.run_id] = record
        if record.phase == "tune" and record.trial is not None:
            self._trials[record.cell][record.trial] = record

    def total(self) -> int:
        """How many runs the study is made of, without those that can never run; a throughput session counts once."""
        spec = self.study.spec
        possible = sum(not self.blocked(cell) for cell in spec.cells())
        return len(self._fits()) + possible * (spec.trials() + spec.evaluation.seeds) + 1

    def done(self) -> int:
        """How many of them are finished."""
        budget = self.study.spec.trials()
        tuned = sum(trial < budget for trials in self._trials.values() for trial in trials)
        evaluated = sum(run.run_id in self.finished for run in self._evaluations())
        return self.fitted() + tuned + evaluated + self._throughput_done()

    def fitted(self) -> int:
        """How many fits are finished."""
        return sum(run.run_id in self.finished for run in self._fits())

    def complete(self) -> bool:
        """Whether nothing is left that can be run."""
        return self.done() == self.total()

    def trials(self, cell: CellKey) -> list[RunRecord]:
        """The finished trials of a cell, in order."""
        return [record for _, record in sorted(self._trials[cell].items())]

    def evaluated(self, cell: CellKey) -> list[RunRecord]:
        """The finished evaluation runs of a cell, in order of their seeds."""
        wanted = (run.run_id for run in self._evaluations() if run.cell == cell)
        return [self.finished[run_id] for run_id in wanted if run_id in self.finished]

    def next(self, in_flight: Collection[Request], propose: Propose) -> tuple[Request, ...]:
        """What to run next besides what is `in_flight`; empty where there is nothing, or nothing yet."""
        run = next(self._ready(in_flight, propose), None)
        if run is not None:
            return (run,)
        if in_flight or self._throughput_done():
            return ()
        return self._throughput()

    def blocked(self, cell: CellKey) -> bool:
        """Whether the cell can never run, because the fit that it needs went wrong."""
        fitted = self._fit_of(cell)
        return fitted is not None and fitted.status != "ok"

    def _ready(self, in_flight: Collection[Request], propose: Propose) -> Iterator[Request]:
        busy = {run.run_id for run in in_flight} | set(self.finished)
        yield from (run for run in self._fits() if run.run_id not in busy)
        tuning_now = {run.cell for run in in_flight if run.phase == "tune"}
        idle = [cell for cell in self._open_cells() if cell not in tuning_now and not self._tuned(cell)]
        for cell in sorted(idle, key=lambda cell: len(self._trials[cell])):
            trial = next(trial for trial in range(self.study.spec.trials()) if trial not in self._trials[cell])
            yield self.study.tune_request(cell, trial, propose(cell, trial, self.trials(cell)))
        yield from (run for run in self._evaluations() if run.run_id not in busy)

    def _fits(self) -> list[Request]:
        return [self.study.fit_request(net) for net in self.study.fits_needed()]

    def _fit_of(self, cell: CellKey) -> RunRecord | None:
        if not get_arm(cell.arm).needs_fit:
            return None
        return self.finished.get(self.study.fit_request(cell.net).run_id)

    def _open_cells(self) -> list[CellKey]:
        """The cells whose runs can start: those that need a fit have it."""
        open_cells = []
        for cell in self.study.spec.cells():
            fitted = self._fit_of(cell)
            if not get_arm(cell.arm).needs_fit or (fitted is not None and fitted.status == "ok"):
                open_cells.append(cell)
        return open_cells

    def _tuned(self, cell: CellKey) -> bool:
        return all(trial in self._trials[cell] for trial in range(self.study.spec.trials()))

    def _evaluations(self) -> Iterator[Request]:
        """Seed by seed, so that a study that is interrupted has pairs."""
        best = {
            cell: best_trial(self.study.spec, self.trials(cell)) for cell in self._open_cells() if self._tuned(cell)
        }
        for seed in range(self.study.spec.evaluation.seeds):
            for cell, (trial, parameters) in best.items():
                key = (cell, seed, trial)
                if key not in self._asked:
                    self._asked[key] = self.study.evaluate_request(cell, seed, trial, parameters)
                yield self._asked[key]

    def _throughput(self) -> tuple[Request, ...]:
        return tuple(run for run in self.study.throughput_requests() if not self.blocked(run.cell))

    def _throughput_done(self) -> bool:
        return all(run.run_id in self.finished for run in self._throughput())


def best_trial(spec: StudySpec, finished: Sequence[RunRecord]) -> tuple[int | None, Mapping[str, float]]:
    """The number and settings of the best trial; the first where none has a value. Ties go to the earlier trial.

    Trials beyond the study's number, from a time when it had more, don't count: every cell gets the same budget. A
    study with nothing to tune has no trials: no number, and the study's own settings.
    """
    metric = spec.metric()
    within = [record for record in finished if record.trial is not None and record.trial < spec.trials()]
    ordered = sorted(within, key=lambda record: record.trial or 0)
    if not ordered:
        return None, {}
    best, best_value = ordered[0], None
    for record in ordered:
        value = record.last(metric.name)
        better = value is not None and (
            best_value is None or (value > best_value if metric.higher_is_better else value < best_value)
        )
        if record.status == "ok" and better:
            best, best_value = record, value
    return best.trial, best.parameters
