"""The agenda: which runs of a study are finished, and which can run next. Uses no process, clock or disk."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

from trans4init.ablations.study.optuna_names import BY_SEED
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.ablations.study.space import shapes_runs
from trans4init.ablations.study.tuning_section import SHARED
from trans4init.reports.records.schema import CellKey, Plan, RunRecord
from trans4init.reports.records.tuning_design import Setting
from trans4init.reports.study_report.comparing import compare_cells
from trans4init.reports.study_report.error_budget import next_pieces, read_budget
from trans4init.reports.study_report.tuning import Trial, best_first, trials_of

if TYPE_CHECKING:
    from trans4init.ablations.study.proposals import Proposals

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

    @property
    def blocks(self) -> tuple["Agenda", ...]:
        """The agendas of all blocks of a grid: this one alone."""
        return (self,)

    def block_of(self, run: Request | RunRecord) -> "Agenda":
        """Return the agenda of the block that a run belongs to: this one."""
        return self

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
        """Add what the results ask for: a sampler's next generations, and the nets of an error budget's bisection."""
        while self._propose() or self._sharpen():
            others, self._others = self._others, []
            for record in others:
                self._note(record)

    def _propose(self) -> bool:
        """Let each cell's sampler propose its next generation if the one before is finished; return whether one came.

        Where all cells share their settings, every trial is known from the start.
        """
        grown = [
            proposals.learn(self.trials(cell, time)) and self._ask_for(cell, time, proposals)
            for (cell, time), proposals in self._proposals.items()
        ]
        return any(grown)

    def _ask_for(self, cell: CellKey, time: int, proposals: "Proposals") -> bool:
        requests = self._tunings[time][cell]
        seeds = self.study.spec.tuning_seeds(time)
        known = len(requests) // len(seeds)
        for trial, settings in enumerate(proposals.settings[known:], known):
            requests += [self.study.tune_request(cell, trial, settings, seed) for seed in seeds]
        return True

    @cached_property
    def _proposals(self) -> dict[tuple[CellKey, int], "Proposals"]:
        """The sampler of each cell, each time that the study is tuned; empty where all cells share their settings."""
        spec = self.study.spec
        if spec.tuning.sampler.name == SHARED or not spec.trials():
            return {}
        from trans4init.ablations.study.proposals import Proposals

        return {
            (cell, time): Proposals(spec, cell, time) for time in range(spec.times_tuned()) for cell in spec.cells()
        }

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
        for of_smaller_study in ("_fits_of_all", "_tunings", "_proposals"):  # samplers propose again what they did
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
        return trials_of(runs, spec.metric(), spec.trials(cell), spec.tuning_seeds(time), spec.tuning.objectives[1:])

    def trials_from(self, number: int, cell: CellKey, time: int = 0) -> list[Trial]:
        """Return the trials of a cell from `number` on up to the first that isn't finished, at the cost of these alone.

        time: which time the study is tuned, from 0.
        """
        spec = self.study.spec
        requests, seeds, runs = self._tunings[time][cell], spec.tuning_seeds(time), []
        for place in range(number * len(seeds), len(requests)):
            record = self.finished.get(requests[place].run_id)
            if record is None:
                break
            runs.append(record)
        return trials_of(runs, spec.metric(), spec.trials(cell), seeds, spec.tuning.objectives[1:])

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
            alike = [run for run in fits if (run.cell, run.parameters) == (fits[0].cell, fits[0].parameters)]
            return tuple(alike[:FITS_AT_ONCE])
        run = next((run for run in self._trainings() if run.run_id not in busy and self._may_start(run)), None)
        if run is not None:
            return (self._beside_rivals(run),)
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

    @property
    def _fits(self) -> list[Request]:
        """The fits that the study needs; where trials change nets or models, those that the runs known so far need."""
        if not self._searches_shapes:
            return self._fits_of_all
        runs = [*self._trainings(), *(run for run in self._throughput_requests() or ())]
        needed = (fit for run in runs if (fit := self.study.fit_of(run)) is not None)
        return list({fit.run_id: fit for fit in needed}.values())

    @cached_property
    def _fits_of_all(self) -> list[Request]:
        return self.study.fit_requests()

    @cached_property
    def _searches_shapes(self) -> bool:
        return bool(shapes_runs(self.study.spec.own_settings()))

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
            for runs in zip_longest(*of_cells.values()):  # a sampler may be further in one cell than in another
                yield from (run for run in runs if run is not None)
            yield from self._evaluations(time)
        for budget in self.study.spec.budgets():
            yield from self._evaluations(0, budget)

    def _evaluations(self, time: int, budget: int | None = None) -> Iterator[Request]:
        """Yield the runs seed by seed, so that a study that is interrupted has pairs.

        budget: the number of trials of which the best is evaluated, if not all.
        """
        settings = {cell: self._best(cell, time, budget) for cell in self.study.spec.cells()}
        for seed in range(self.study.spec.evaluation.seeds):
            for cell, best in settings.items():
                if best is None:
                    continue
                number, parameters = best
                key = (cell, seed, time, number)
                if key not in self._asked:
                    self._asked[key] = self.study.evaluate_request(cell, seed, number, parameters)
                yield self._asked[key]

    def _best(
        self, cell: CellKey, time: int, budget: int | None = None
    ) -> tuple[int | None, Mapping[str, Setting]] | None:
        """Return the number and the settings of the cell's best trial; None while a trial of it isn't finished.

        Where there are no trials, the number is None, and there are no settings but the study's own.
        """
        spec = self.study.spec
        asked = min(spec.trials(cell), spec.trials() if budget is None else budget)
        trials = [trial for trial in self.trials(cell, time) if trial.number < asked]
        if len(trials) < asked:
            return None
        if not trials:
            return None, {}
        best = best_first(trials, spec.metric(), spec.weighing())[0]
        return best.number, best.settings

    def _fit_of(self, run: Request) -> RunRecord | None:
        """Return the finished fit that a run needs; None if it needs none, or it isn't finished."""
        fit = self.study.fit_of(run)
        return self.finished.get(fit.run_id) if fit else None

    def _may_start(self, run: Request) -> bool:
        """Return whether a run has its net and, with a pruner, all runs behind it that decide whether it is stopped."""
        if not self._has_its_net(run) or run.phase != "tune" or not self._prunes:
            return self._has_its_net(run)
        first = self._generation_of(run)
        before = [other for other in self._beside(run) if other.trial is not None and other.trial < first]
        before += [other for other in self._beside(run) if other.trial == run.trial and other.seed < run.seed]
        return all(other.run_id in self.finished for other in before)

    @property
    def _prunes(self) -> bool:
        return self.study.spec.tuning.pruner.name != "none"

    def _generation_of(self, run: Request) -> int:
        """Return the first trial of a run's generation: a pruner knows the trials before it."""
        size = self.study.spec.tuning.generation
        return (run.trial or 0) // size * size

    def _beside(self, run: Request) -> list[Request]:
        """Return all tuning runs of a run's cell, of the same time that the study is tuned."""
        return self._tunings[self.study.spec.tuning.time_of(run.seed)][run.cell]

    def _beside_rivals(self, run: Request) -> Request:
        """Return a tuning run with what a pruner must know of the generations before; any other run as it is."""
        if run.phase != "tune" or not self._prunes:
            return run
        first, metric = self._generation_of(run), self.study.spec.evaluation.metric
        rivals = [
            self.finished[other.run_id]
            for other in self._beside(run)
            if other.trial is not None and other.trial < first and other.seed == run.seed
        ]
        curves = [rival.by_step(metric) if rival.status in ("ok", "pruned") else {} for rival in rivals]
        return replace(run, rivals=tuple(curves), place=(run.trial or 0) - first)

    def stopped(self) -> list[tuple[Request, str]]:
        """Return the tuning runs that are never started, since their trial fell behind, each with the reason."""
        if not self._prunes:
            return []
        by_trial = (
            list(of_trial)
            for of_cells in self._tunings
            for runs in of_cells.values()
            for _, of_trial in groupby(runs, key=lambda run: run.trial)
        )
        return [found for of_trial in by_trial for found in self._stopped_in(of_trial)]

    def _stopped_in(self, runs: list[Request]) -> list[tuple[Request, str]]:
        done = [self.finished[run.run_id] for run in runs if run.run_id in self.finished]
        left = [run for run in runs if run.run_id not in self.finished]
        if not left or not done:
            return []
        pruned = [record.seed for record in done if record.status == "pruned"]
        if pruned:
            return [(run, f"its trial fell behind at seed {pruned[0]}") for run in left]
        values = [value for record in done if (value := record.last(self.study.spec.evaluation.metric)) is not None]
        if self.study.spec.tuning.pruner.name != BY_SEED or len(values) < len(done):
            return []
        from trans4init.ablations.study.pruning import stops_trial

        first = self._generation_of(runs[0])
        trials = self.trials(runs[0].cell, self.study.spec.tuning.time_of(runs[0].seed))
        before = [trial for trial in trials if trial.number < first]
        if len(before) < first:
            return []
        earlier = [trial.known() for trial in before if not trial.failures]
        if not stops_trial(self.study.spec, earlier, values):
            return []
        return [(run, f"its trial is worse than the best one after {len(values)} seeds") for run in left]

    def _has_its_net(self, run: Request) -> bool:
        """Return whether a run needs no fit, or the one that it needs is finished and has a net."""
        if self.study.fit_of(run) is None:
            return True
        fit = self._fit_of(run)
        return fit is not None and fit.status == "ok"

    def _throughput_requests(self) -> list[Request] | None:
        """Return the runs that time the cells; None while tuning still decides which nets and models these have."""
        if not self._searches_shapes:
            return self.study.throughput_requests()
        best = {cell: self._best(cell, 0) for cell in self.study.spec.cells()}
        if None in best.values():
            return None
        return self.study.throughput_requests({cell: found[1] for cell, found in best.items() if found})

    def _throughput(self) -> tuple[Request, ...]:
        """Return the session that times the cells, without those that lack their net."""
        return tuple(run for run in self._throughput_requests() or () if self._has_its_net(run))

    def _throughput_done(self) -> bool:
        """Return whether one session has timed all cells: speeds of two sessions can't be compared."""
        records = [self.finished.get(run.run_id) for run in self._throughput()]
        return (
            self._throughput_requests() is not None
            and None not in records
            and len({record.notes.get("session") for record in records if record}) <= 1
        )
