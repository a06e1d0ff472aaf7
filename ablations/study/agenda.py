"""The agenda: which runs of a study are finished, and which can run next. Uses no process, clock or disk."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.records.schema import CellKey, Plan, RunRecord
from trans4init.reports.study_report.comparing import compare_cells
from trans4init.reports.study_report.error_budget import next_pieces, read_budget
from trans4init.reports.study_report.tuning import Trial, best_first, trials_of

__all__ = ["FITS_AT_ONCE", "Agenda"]

FITS_AT_ONCE = 16
"""How many fits of a net are one unit of work at most: more share their time, fewer leave work to other processes."""


class Agenda:
    """Orders a study's runs: fits first, then all trials, then every seed of every cell, speeds last.

    A study that is tuned several times has its trials and its seeds of the first time before those of the second.

    In an error budget the cells that are evaluated decide which net is the next of its bisection: the study grows by it
    as soon as they are. The same results give the same nets, whenever they were made.
    """

    def __init__(
        self,
        study: ResolvedStudy,
        records: Sequence[RunRecord],
        fits_at_hand: Collection[str],
        stated: Plan | None = None,
    ) -> None:
        """Begin with the finished `records`.

        fits_at_hand: the ids of the fits whose checkpoint is on the disk; a fit without one is run again.
        stated: what the study stated before its first evaluation run, if it was made before.
        """
        self.study, self._stated = study, stated
        self.finished: dict[str, RunRecord] = {}
        self._asked: dict[tuple[CellKey, int, int, int | None], Request] = {}
        self._others: list[RunRecord] = []
        """Finished runs that are no part of the study, or not yet."""
        for record in records:
            if record.phase != "fit" or record.status != "ok" or record.run_id in fits_at_hand:
                self._note(record)
        self._grow()

    def add(self, record: RunRecord) -> None:
        """Note that a run is finished; a run that isn't part of the study as it is now is ignored."""
        self._note(record)
        self._grow()

    def _note(self, record: RunRecord) -> None:
        request = self.study.request_of(record)
        if request is not None and request.run_id == record.run_id:
            self.finished[record.run_id] = record
        else:
            self._others.append(record)

    def _grow(self) -> None:
        """Add nets to an error budget as long as its bisection, going by what is finished, has chosen one."""
        while self._sharpen():
            others, self._others = self._others, []
            for record in others:
                self._note(record)

    def _sharpen(self) -> bool:
        """Add the next net of an error budget's bisection if its other cells are finished; return whether one came."""
        section = self.study.spec.error_budget
        if section is None or len(section.sharpened) >= section.steps() or not self._all_evaluated():
            return False
        card, metric = replace(self.study.card(), stated=self._stated), self.study.spec.metric()
        compared = compare_cells({cell: self.evaluated(cell) for cell in card.cells}, card, metric, ())
        comparisons = {cell: of_cell.comparison for cell, of_cell in compared.items()}
        pieces = next_pieces(read_budget(card, self.finished.values(), comparisons))
        if pieces is None:
            return False
        self.study = self.study.with_size(pieces)
        for of_smaller_study in ("_fits", "_tunings"):
            self.__dict__.pop(of_smaller_study, None)
        return True

    def _all_evaluated(self) -> bool:
        """Return whether every fit, and every seed of every cell, is finished."""
        spec = self.study.spec
        return self.fitted() == len(self._fits) and all(
            len(self.evaluated(cell)) == spec.evaluation.seeds for cell in spec.cells()
        )

    def total(self) -> int:
        """Return how many runs the study has; a throughput session counts once."""
        return len(self._fits) + self.study.spec.training_runs() + 1

    def done(self) -> int:
        """Return how many of them are finished."""
        trained = sum(run.run_id in self.finished for run in self._trainings())
        return self.fitted() + trained + self._throughput_done()

    def fitted(self) -> int:
        """Return how many fits are finished."""
        return sum(run.run_id in self.finished for run in self._fits)

    def complete(self) -> bool:
        """Return whether nothing is left that can run."""
        return self.done() == self.total()

    def trials(self, cell: CellKey, time: int = 0) -> list[Trial]:
        """Return the trials of a cell that are finished on every tuning seed, in order.

        time: which time the study is tuned, from 0.
        """
        runs = [self.finished[run.run_id] for run in self._tunings[time][cell] if run.run_id in self.finished]
        spec = self.study.spec
        return trials_of(runs, spec.metric(), spec.trials(), spec.tuning_seeds(time))

    def evaluated(self, cell: CellKey, time: int = 0) -> list[RunRecord]:
        """Return the finished evaluation runs of a cell, in order of their seeds."""
        run_ids = (run.run_id for run in self._evaluations(time) if run.cell == cell)
        return [self.finished[run_id] for run_id in run_ids if run_id in self.finished]

    def next(self, in_flight: Collection[Request]) -> tuple[Request, ...]:
        """Return what to run next besides what is `in_flight`; empty if there is nothing to run now.

        The fits of a net are one unit of work, and so is a throughput session.
        """
        busy = {run.run_id for run in in_flight} | self.finished.keys()
        fits = [run for run in self._fits if run.run_id not in busy]
        if fits:
            return tuple(run for run in fits if run.cell == fits[0].cell)[:FITS_AT_ONCE]
        run = next((run for run in self._trainings() if run.run_id not in busy and self._has_its_net(run)), None)
        if run is not None:
            return (run,)
        if in_flight or self._throughput_done():
            return ()
        return self._throughput()

    def lost(self) -> list[tuple[Request, RunRecord]]:
        """Return the runs that can never be done, each with the fit that it needs and that went wrong."""
        fits_done = [self.finished[fit.run_id] for fit in self._fits if fit.run_id in self.finished]
        if all(fit.status == "ok" for fit in fits_done):
            return []
        unfinished = [run for run in self._trainings() if run.run_id not in self.finished]
        fits = [(run, self._fit_of(run)) for run in unfinished]
        return [(run, fit) for run, fit in fits if fit is not None and fit.status != "ok"]

    @cached_property
    def _fits(self) -> list[Request]:
        return self.study.fit_requests()

    @cached_property
    def _tunings(self) -> list[dict[CellKey, list[Request]]]:
        """The tuning runs of each cell, trial by trial, for each time that the study is tuned."""
        return [self._tunings_of(time) for time in range(self.study.spec.times_tuned())]

    def _tunings_of(self, time: int) -> dict[CellKey, list[Request]]:
        by_cell: dict[CellKey, list[Request]] = {cell: [] for cell in self.study.spec.cells()}
        for run in self.study.tune_requests(time):
            by_cell[run.cell].append(run)
        return by_cell

    def _trainings(self) -> Iterator[Request]:
        """Yield the tuning runs, trial by trial, then those evaluations whose settings are known; time after time.

        An evaluation whose settings two times have chosen is the same run, and is yielded twice.
        """
        for time, of_cells in enumerate(self._tunings):
            for runs in zip(*of_cells.values(), strict=True):
                yield from runs
            yield from self._evaluations(time)

    def _evaluations(self, time: int) -> Iterator[Request]:
        """Yield the runs seed by seed, so that a study that is interrupted has pairs."""
        settings = {cell: self._best(cell, time) for cell in self.study.spec.cells()}
        for seed in range(self.study.spec.evaluation.seeds):
            for cell, best in settings.items():
                if best is None:
                    continue
                number, parameters = best
                key = (cell, seed, time, number)
                if key not in self._asked:
                    self._asked[key] = self.study.evaluate_request(cell, seed, number, parameters)
                yield self._asked[key]

    def _best(self, cell: CellKey, time: int) -> tuple[int | None, Mapping[str, float]] | None:
        """Return the number and the settings of the cell's best trial; None while a trial of it isn't finished.

        Where there are no trials, the number is None, and there are no settings but the study's own.
        """
        trials, spec = self.trials(cell, time), self.study.spec
        if len(trials) < spec.trials():
            return None
        if not trials:
            return None, {}
        best = best_first(trials, spec.metric())[0]
        return best.number, best.settings

    def _fit_of(self, run: Request) -> RunRecord | None:
        """Return the finished fit that a run needs; None if it needs none, or it isn't finished."""
        fit = self.study.fit_of(run)
        return self.finished.get(fit.run_id) if fit else None

    def _has_its_net(self, run: Request) -> bool:
        """Return whether a run needs no fit, or the one that it needs is finished and has a net."""
        if self.study.fit_of(run) is None:
            return True
        fit = self._fit_of(run)
        return fit is not None and fit.status == "ok"

    def _throughput(self) -> tuple[Request, ...]:
        """Return the session that times the cells, without those that lack their net."""
        return tuple(run for run in self.study.throughput_requests() if self._has_its_net(run))

    def _throughput_done(self) -> bool:
        """Return whether one session has timed all cells: speeds of two sessions can't be compared."""
        records = [self.finished.get(run.run_id) for run in self._throughput()]
        return None not in records and len({record.notes.get("session") for record in records if record}) <= 1
