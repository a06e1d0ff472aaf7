"""The agenda: which runs of a study are finished, and which can run next. Uses no process, clock or disk."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from trans4init.ablations.slots.arms import get_arm
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.records.schema import CellKey, RunRecord
from trans4init.reports.study_report import tuning

__all__ = ["Agenda", "Propose", "best_trial"]

Propose = Callable[[CellKey, int, Sequence[RunRecord]], dict[str, float]]
"""A function from a cell, a trial's number and the cell's finished trials to that trial's settings."""


class Agenda:
    """Orders a study's runs: fits first, then every cell's trials, then every seed of every cell, speeds last."""

    def __init__(self, study: ResolvedStudy, records: Sequence[RunRecord], fits_at_hand: Collection[str]) -> None:
        """Begin with the finished `records`.

        fits_at_hand: the nets whose checkpoint is on the disk; a fit without one is run again.
        """
        self.study = study
        self.finished: dict[str, RunRecord] = {}
        self._asked: dict[tuple[CellKey, int, int | None], Request] = {}
        self._trials: dict[CellKey, dict[int, RunRecord]] = {cell: {} for cell in study.spec.cells()}
        for record in records:
            if record.phase != "fit" or record.status != "ok" or record.cell.net in fits_at_hand:
                self.add(record)

    def add(self, record: RunRecord) -> None:
        """Note that a run is finished; a run that isn't part of the study as it is now is ignored."""
        request = self.study.request_of(record)
        if request is None or request.run_id != record.run_id:
            return
        self.finished[record.run_id] = record
        if record.phase == "tune" and record.trial is not None:
            self._trials[record.cell][record.trial] = record

    def total(self) -> int:
        """Return how many runs the study has, without those that can never run; a throughput session counts once."""
        spec = self.study.spec
        possible = sum(not self.blocked(cell) for cell in spec.cells())
        return len(self._fits()) + possible * (spec.trials() + spec.evaluation.seeds) + 1

    def done(self) -> int:
        """Return how many of them are finished."""
        budget = self.study.spec.trials()
        tuned = sum(trial < budget for trials in self._trials.values() for trial in trials)
        evaluated = sum(run.run_id in self.finished for run in self._evaluations())
        return self.fitted() + tuned + evaluated + self._throughput_done()

    def fitted(self) -> int:
        """Return how many fits are finished."""
        return sum(run.run_id in self.finished for run in self._fits())

    def complete(self) -> bool:
        """Return whether nothing is left that can run."""
        return self.done() == self.total()

    def trials(self, cell: CellKey) -> list[RunRecord]:
        """Return the finished trials of a cell, in order."""
        return [record for _, record in sorted(self._trials[cell].items())]

    def evaluated(self, cell: CellKey) -> list[RunRecord]:
        """Return the finished evaluation runs of a cell, in order of their seeds."""
        run_ids = (run.run_id for run in self._evaluations() if run.cell == cell)
        return [self.finished[run_id] for run_id in run_ids if run_id in self.finished]

    def next(self, in_flight: Collection[Request], propose: Propose) -> tuple[Request, ...]:
        """Return what to run next besides what is `in_flight`; empty if there is nothing to run now."""
        run = next(self._ready(in_flight, propose), None)
        if run is not None:
            return (run,)
        if in_flight or self._throughput_done():
            return ()
        return self._throughput()

    def blocked(self, cell: CellKey) -> bool:
        """Return whether the cell can never run, because the fit that it needs failed."""
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
        """Return the cells whose runs can start: those whose fit is finished, or that need none."""
        open_cells = []
        for cell in self.study.spec.cells():
            fitted = self._fit_of(cell)
            if not get_arm(cell.arm).needs_fit or (fitted is not None and fitted.status == "ok"):
                open_cells.append(cell)
        return open_cells

    def _tuned(self, cell: CellKey) -> bool:
        return all(trial in self._trials[cell] for trial in range(self.study.spec.trials()))

    def _evaluations(self) -> Iterator[Request]:
        """Yield the runs seed by seed, so that a study that is interrupted has pairs."""
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
        """Return whether one session has timed all cells: speeds of two sessions can't be compared."""
        records = [self.finished.get(run.run_id) for run in self._throughput()]
        return None not in records and len({record.notes.get("session") for record in records if record}) <= 1


def best_trial(spec: StudySpec, finished: Sequence[RunRecord]) -> tuple[int | None, Mapping[str, float]]:
    """Return the number and settings of a cell's best trial within the study's number of them.

    For a study without trials it returns None and no settings, which stands for the study's own.
    """
    best = tuning.best_trial(finished, spec.metric(), spec.trials())
    return (None, {}) if best is None else (best.trial, best.parameters)
