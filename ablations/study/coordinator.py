"""The coordinator: starts a study's runs and, alone, writes their results."""

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.bundles import Bundles
from trans4init.ablations.study.display import Display
from trans4init.ablations.study.executors.protocol import Advanced, Apart, Died, Event, Executor, Refused
from trans4init.ablations.study.grid_agenda import GridAgenda
from trans4init.ablations.study.optuna_database import DatabaseError, OptunaDatabase, keep_trials
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.mirror.runs import BackgroundMirror
from trans4init.reports.records.kept_slots import write_kept
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord
from trans4init.reports.records.store import write_run

__all__ = ["MIRROR_PATIENCE", "Coordinator"]

MIRROR_PATIENCE = 30.0
"""Seconds that the throughput session and the end of a study wait for MLflow to finish writing. Longer waits keep
more of MLflow's work out of the timings; a server that is dead costs as long."""
_STARTS = 3
"""How often a run is started at most, if its process is killed each time."""


class Coordinator:
    """Runs an agenda to its end, or until Ctrl-C."""

    def __init__(
        self,
        agenda: Agenda | GridAgenda,
        executor: Executor[Request, RunRecord],
        databases: Mapping[str, OptunaDatabase],
        mirror: BackgroundMirror,
        display: Display,
        on_growth: Callable[[ResolvedStudy], None] = lambda study: None,
        *,
        fail_fast: bool = False,
        bundles: Bundles | None = None,
    ) -> None:
        """databases: by the hash of each block's conditions.

        on_growth: called with the study when its results gave it another cell. fail_fast: whether to stop at the first
        run that fails or runs out of memory; one that diverges is a result. bundles: told of every result; None leaves
        each in a file of its own.
        """
        self._agenda, self._executor, self._databases = agenda, executor, databases
        self._mirror, self._display, self._on_growth = mirror, display, on_growth
        self._in_flight: dict[str, Request] = {}
        self._stopping = self._told = False
        self._fail_fast, self._bundles = fail_fast, bundles

    def run(self) -> bool:
        """Run what is left; return whether the agenda is complete: not if Ctrl-C stopped it.

        Raises FaultError if a result or Optuna's database can't be written; what was written before is kept.
        """
        try:
            with self._answering_interrupts():
                for block in self._agenda.blocks:
                    self._keep_trials(block, block.study.spec.cells())
                self._record_stopped()
                self._record_lost()
                while not self._stopping or self._executor.running():
                    self._tell()
                    if not self._stopping and self._fill():
                        continue
                    if not self._executor.running():
                        break
                    self._executor.wait(self._on_event, timeout=0.25)
            for block in self._agenda.blocks:
                database = self._databases[block.study.spec_hash]
                behind = bool(database.behind)
                if behind:
                    database.ask_again()
                self._keep_trials(block, block.study.spec.cells() if behind else ())
        except DatabaseError as error:
            raise FaultError(f"Optuna's database can't be written: {str(error).splitlines()[0]}") from error
        finally:
            self._executor.stop()
        if self._bundles is not None:
            with _told(self._agenda.blocks[0].study):
                self._bundles.finish()
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
        assert not isinstance(event, Apart)  # the executor of arrays, which asks for several runs at once, has it
        if isinstance(event, Refused):
            raise FaultError(event.reason)
        if isinstance(event, Died) and self._begins_anew(event):
            return
        records = self._failures(event) if isinstance(event, Died) else event.records
        kept = {} if isinstance(event, Died) else event.kept
        self._finish(records, kept)
        if self._fail_fast and (failed := [record for record in records if record.status in ("failed", "oom")]):
            if not self._stopping:
                self._display.say(f"Stopping, as --fail-fast asks: {failed[0].phase} {failed[0].cell} failed.")
                self._executor.forget_waiting()
            self._stopping = self._told = True
        if records[0].phase in ("fit", "tune"):  # a trial may be a cell's last: then its evaluations are known
            self._record_stopped()
            self._record_lost()

    def _record_lost(self) -> None:
        """Write a record for every run whose fit went wrong: it has no value, as if it had diverged or failed itself.

        Such a record may complete a cell's tuning, and with it ask for evaluations that are lost as well.
        """
        while lost := self._agenda.lost():
            for request, fit in lost:
                study = self._agenda.block_of(request).study
                why = fit.error.strip().splitlines()[-1] if fit.error else fit.status
                missing = [Measurement(study.spec.metric(), None)]
                error = f"its net has no fit: {why}"
                self._finish([study.record(request, missing, status=fit.status, error=error)])

    def _record_stopped(self) -> None:
        """Write a record for every tuning run that is never started, since a pruner stopped its trial."""
        while stopped := self._agenda.stopped():
            for request, why in stopped:
                study = self._agenda.block_of(request).study
                missing = [Measurement(study.spec.metric(), None)]
                self._finish([study.record(request, missing, status="pruned", error=why)])

    def _finish(self, records: Sequence[RunRecord], kept: Mapping[str, bytes] | None = None) -> None:
        """Write the records of one unit, and show them when all count: the time left is told by how many ended at once.

        kept: what runs kept of their slots, by their ids.
        """
        for record in records:
            self._write(record, (kept or {}).get(record.run_id))
        for record in records:
            self._display.finished(record)

    def _write(self, record: RunRecord, kept: bytes | None) -> None:
        """Write what the run kept of its slots, then its record: a run that is finished has both."""
        block = self._agenda.block_of(record)
        study = block.study
        with _told(study):
            if kept is not None:
                write_kept(study.folder, record.run_id, kept)
            write_run(record, study.results)
            if self._bundles is not None:
                self._bundles.add(record)
        self._in_flight.pop(record.run_id, None)  # a run that its fit's failure ended was never started
        self._agenda.add(record)
        if block.study is not study:
            self._on_growth(block.study)
        if record.phase == "tune":
            self._keep_trials(block, [record.cell])
        self._mirror.add(record)

    def _keep_trials(self, block: Agenda, cells: Iterable[CellKey]) -> None:
        keep_trials(self._databases[block.study.spec_hash], block, cells)

    def _begins_anew(self, event: Died[Request]) -> bool:
        """Start runs again whose process was killed; return False if they were started often enough.

        Where the study stops, the next command starts them.
        """
        if not self._stopping:
            if any(len(request.anew) + 1 >= _STARTS for request in event.requests):
                return False
            requests = tuple(request.begun_anew(f"{event.reason}.") for request in event.requests)
            of, runs = self._agenda.block_of(requests[0]).study.spec.function, f"{len(requests)} runs are"
            self._display.say(
                f"{event.reason}; {f'{requests[0].label(of)} is' if len(requests) == 1 else runs} begun anew."
            )
            self._in_flight |= {request.run_id: request for request in requests}
            self._executor.submit(requests)
        else:
            for request in event.requests:
                self._in_flight.pop(request.run_id, None)
        return True

    def _failures(self, event: Died[Request]) -> list[RunRecord]:
        """Return a failed record for each run of a process that died."""
        study = self._agenda.block_of(event.requests[0]).study
        missing = [Measurement(study.spec.metric(), None)]
        return [study.record(request, missing, status="failed", error=event.reason) for request in event.requests]

    def _tell(self) -> None:
        """Say once that the study stops: not where the signal is handled, which may be amid other printing."""
        if not self._stopping or self._told:
            return
        self._told = True
        self._executor.forget_waiting()
        self._display.say(
            "Stopping when the runs under way are finished; Ctrl-C again stops now. "
            f"To continue later: {self._agenda.blocks[0].study.command}"
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


@contextmanager
def _told(study: ResolvedStudy) -> Iterator[None]:
    """Turn an error of the disk into a FaultError with a sentence."""
    try:
        yield
    except OSError as error:
        raise FaultError(f"the result of a run can't be written to {shown(study.results)}: {error.strerror}") from error
