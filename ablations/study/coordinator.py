"""The coordinator: starts a study's runs and, alone, writes their results."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import optuna
import sqlalchemy.exc

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.display import Display
from trans4init.ablations.study.executors.protocol import Advanced, Died, Event, Executor
from trans4init.ablations.study.optuna_database import OptunaDatabase
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.mirror.runs import BackgroundMirror
from trans4init.reports.records.kept_slots import write_kept
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord
from trans4init.reports.records.store import write_run

__all__ = ["MIRROR_PATIENCE", "Coordinator"]

MIRROR_PATIENCE = 30.0
"""Seconds that the throughput session and the end of a study wait for MLflow to finish writing. Longer waits keep
more of MLflow's work out of the timings; a server that is dead costs as long."""


class Coordinator:
    """Runs an agenda to its end, or until Ctrl-C."""

    def __init__(
        self,
        agenda: Agenda,
        executor: Executor[Request, RunRecord],
        database: OptunaDatabase,
        mirror: BackgroundMirror,
        display: Display,
        on_growth: Callable[[ResolvedStudy], None] = lambda study: None,
    ) -> None:
        """on_growth: called with the study when its results gave it another cell."""
        self._agenda, self._executor, self._database = agenda, executor, database
        self._mirror, self._display, self._on_growth = mirror, display, on_growth
        self._in_flight: dict[str, Request] = {}
        self._stopping = self._told = False

    def run(self) -> bool:
        """Run what is left; return whether the agenda is complete: not if Ctrl-C stopped it.

        Raises FaultError if a result or Optuna's database can't be written; what was written before is kept.
        """
        try:
            with self._answering_interrupts():
                for cell in self._agenda.study.spec.cells():
                    self._keep_trials(cell)
                self._record_lost()
                while not self._stopping or self._executor.running():
                    self._tell()
                    if not self._stopping and self._fill():
                        continue
                    if not self._executor.running():
                        break
                    self._executor.wait(self._on_event, timeout=0.25)
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            raise FaultError(f"Optuna's database can't be written: {str(error).splitlines()[0]}") from error
        finally:
            self._executor.stop()
        return self._agenda.complete()

    def _fill(self) -> bool:
        """Start one more run if the executor has room and the agenda a run; return whether one was started."""
        if self._executor.running() >= self._executor.capacity:
            return False
        requests = self._agenda.next(list(self._in_flight.values()))
        if not requests:
            return False
        if requests[0].phase == "throughput":
            self._mirror.drain(MIRROR_PATIENCE)
        self._display.started(requests)
        self._executor.submit(requests)
        self._in_flight |= {request.run_id: request for request in requests}
        return True

    def _on_event(self, event: Event[Request, RunRecord]) -> None:
        self._tell()
        if isinstance(event, Advanced):
            self._display.advanced(event)
            return
        records = self._failures(event) if isinstance(event, Died) else event.records
        kept = {} if isinstance(event, Died) else event.kept
        for record in records:
            self._write(record, kept.get(record.run_id))
        if records[0].phase in ("fit", "tune"):  # a trial may be a cell's last: then its evaluations are known
            self._record_lost()

    def _record_lost(self) -> None:
        """Write a record for every run whose fit went wrong: it has no value, as if it had diverged or failed itself.

        Such a record may complete a cell's tuning, and with it ask for evaluations that are lost as well.
        """
        while lost := self._agenda.lost():
            for request, fit in lost:
                why = fit.error.strip().splitlines()[-1] if fit.error else fit.status
                missing = [Measurement(self._agenda.study.spec.metric(), None)]
                error = f"its net has no fit: {why}"
                self._write(self._agenda.study.record(request, missing, status=fit.status, error=error))

    def _write(self, record: RunRecord, kept: bytes | None = None) -> None:
        """Write what the run kept of its slots, then its record: a run that is finished has both."""
        study = self._agenda.study
        try:
            if kept is not None:
                write_kept(study.folder, record.run_id, kept)
            write_run(record, study.results)
        except OSError as error:
            raise FaultError(
                f"the result of a run can't be written to {shown(study.results)}: {error.strerror}"
            ) from error
        self._in_flight.pop(record.run_id, None)  # a run that its fit's failure ended was never started
        self._agenda.add(record)
        if self._agenda.study is not study:
            self._on_growth(self._agenda.study)
        if record.phase == "tune":
            self._keep_trials(record.cell)
        self._mirror.add(record)
        self._display.finished(record)

    def _keep_trials(self, cell: CellKey) -> None:
        for time in range(self._agenda.study.spec.times_tuned()):
            self._database.keep(cell, self._agenda.trials(cell, time), time)

    def _failures(self, event: Died[Request]) -> list[RunRecord]:
        """Return a failed record for each run of a process that died."""
        study = self._agenda.study
        missing = [Measurement(study.spec.metric(), None)]
        return [study.record(request, missing, status="failed", error=event.reason) for request in event.requests]

    def _tell(self) -> None:
        """Say once that the study stops: not where the signal is handled, which may be amid other printing."""
        if not self._stopping or self._told:
            return
        self._told = True
        count = self._executor.running()
        self._display.say(
            f"Stopping when the {count} run{'s' if count != 1 else ''} under way {'are' if count != 1 else 'is'} "
            f"finished; Ctrl-C again stops now. To continue later: {self._agenda.study.command}"
        )

    @contextmanager
    def _answering_interrupts(self) -> Iterator[None]:
        """Let the runs under way finish at the first Ctrl-C within.

        At the second, or if there are none, whoever answered Ctrl-C before answers it.
        """

        def answer(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, before)
            if not self._in_flight:
                signal.raise_signal(signal.SIGINT)
            self._stopping = True

        before = signal.signal(signal.SIGINT, answer)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
