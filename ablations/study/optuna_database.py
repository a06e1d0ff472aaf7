"""Keep a study's trials in a database of Optuna's, for its dashboard and its other tools."""

import time as clock
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState, create_trial

from trans4init.ablations.errors import FaultError
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.optuna_file import OptunaFile, open_named_file
from trans4init.ablations.study.proposals import directions
from trans4init.ablations.study.server import Server, why
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.records.moments import began_at
from trans4init.reports.records.optuna_ranges import distribution, for_optuna
from trans4init.reports.records.schema import CellKey
from trans4init.reports.study_report.tuning import Trial, best_first

__all__ = ["BEST", "BEST_SO_FAR", "DatabaseError", "OptunaDatabase", "keep_trials"]

BEST, BEST_SO_FAR = "best trial", "best so far"
"""Attributes for a dashboard's reader: a study's best trial, by number, and whether a trial was better than all before.

Optuna changes no attribute of a finished trial, so that the best one of all is named by its study."""
DatabaseError = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
"""What Optuna raises where its database can't be read or written."""
_PAUSE = 30.0
"""Seconds after which a server that had gone is asked again; each time costs the runs a few seconds if it is dead."""


@dataclass
class _Kept:
    """Holds the Optuna study of a cell, and what this process knows to be in it."""

    study: optuna.Study
    count: int = 0
    """How many trials it has, which are the first ones."""
    best: Trial | None = None
    weighed: list[Trial] = field(default_factory=list)
    """All of them, where tuning weighs several metrics."""


class OptunaDatabase:
    """Holds one Optuna study per cell, and one more for each further time that the study is tuned.

    The database is `optuna.db` in the study's folder, or one that the study names. A trial is added when all its runs
    are finished, so that a kill leaves no half-stored trial; a lost database is rebuilt from the results. A process
    compares what is stored with the results once, and from then on only adds to it.
    """

    def __init__(
        self,
        spec: StudySpec,
        folder: Path,
        server: Server | None = None,
        block: str = "",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`server` is where the study says that its trials are kept, locked; None for a file.

        block: the label of the grid's block that `spec` is, which goes into the names of its Optuna studies. say:
        called with a sentence if the file is damaged. Raises FaultError where the database can't be used.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec, self._server = spec, server
        self._distributions = {tuned.name: distribution(tuned) for tuned in spec.tuning.ranges()}
        self._name = f"{spec.name} / {block}" if block else spec.name
        self._file = OptunaFile(folder / "optuna.db", say) if spec.storage is None else None
        self._storage = self._opened()
        self._kept: dict[tuple[CellKey, int], _Kept] = {}
        self._ask_again = 0.0
        self.behind = ""
        """Why the server lacks trials that the results have, in a line; empty if it doesn't."""

    def _opened(self) -> optuna.storages.RDBStorage:
        if self._server is not None:
            return _open_server(self._server)
        if self._file is not None:
            return self._file.open()
        assert self._spec.storage is not None
        return open_named_file(self._spec.storage.address())

    def was_replaced(self) -> bool:
        """Return whether another block of the grid has made the file anew; it is opened again then, and holds nothing.

        What this block has kept is to be kept again.
        """
        replaced = self._file is not None and self._file.was_replaced()
        if replaced:
            self._storage = self._opened()
            self._kept.clear()
        return replaced

    def make_anew(self, error: Exception) -> bool:
        """Set the study's own file aside, which `error` has shown to be damaged, and open a new one, which is empty.

        Returns False for a database that isn't the study's own. Raises FaultError if the error isn't the file's fault.
        """
        if self._file is None:
            return False
        self._storage = self._file.open_anew(error)
        self._kept.clear()
        return True

    def kept(self, cell: CellKey, time: int = 0) -> int:
        """Return how many of the cell's trials are known to be in the database, the first ones by number."""
        known = self._kept.get((cell, time))
        return known.count if known else 0

    def keep(self, cell: CellKey, finished: Sequence[Trial], time: int = 0) -> None:
        """Store the cell's finished trials by number; one whose predecessor isn't finished waits for it.

        What the database held instead, before this process, is replaced. finished: all of them, or those from number
        `kept` on. time: which time the study is tuned, from 0. If a server is gone, `behind` says why; it is asked
        again after half a minute, and a later call adds what is missing. Raises FaultError if another process has the
        study's lock by then, and DatabaseError where a file can't be written.
        """
        if self._server is None:
            self._keep(cell, finished, time)
        elif clock.monotonic() >= self._ask_again:
            try:
                self._server.take()
                self._keep(cell, finished, time)
            except DatabaseError as error:
                self.behind, self._ask_again = why(error), clock.monotonic() + _PAUSE
                self._kept.clear()

    def ask_again(self) -> None:
        """Forget that the server was gone: the next call of `keep` asks it at once, and `behind` says how it fared."""
        self.behind, self._ask_again = "", 0.0

    def _keep(self, cell: CellKey, finished: Sequence[Trial], time: int) -> None:
        kept = self._kept.get((cell, time)) or self._compared(cell, finished, time)
        for trial in finished:
            if trial.number != kept.count:
                continue
            best = self._best(kept, trial)
            with self._in_time():
                kept.study.add_trial(self._frozen(trial, best is trial))
                if best is not kept.best:
                    kept.study.set_user_attr(BEST, best.number)
            kept.count, kept.best = kept.count + 1, best

    def _compared(self, cell: CellKey, finished: Sequence[Trial], time: int) -> _Kept:
        """Return the Optuna study of a cell, made anew if it holds anything but the first of the finished trials."""
        with self._in_time():
            kept = _Kept(self._study(cell, time))
            stored = kept.study.get_trials(deepcopy=False)
        whole = [trial for number, trial in enumerate(finished) if trial.number == number]
        for trial, there in zip(whole, stored, strict=False):
            best = self._best(kept, trial)
            wanted = self._frozen(trial, best is trial)
            wanted.number = trial.number  # which `add_trial` gives it
            if kept.study.directions != directions(self._spec) or _content(there) != _content(wanted):
                break
            kept.count, kept.best = kept.count + 1, best
        if kept.count < len(stored) or kept.study.directions != directions(self._spec):
            with self._in_time():
                optuna.delete_study(study_name=kept.study.study_name, storage=self._storage)
                kept = _Kept(self._study(cell, time))
        elif kept.best is not None and kept.study.user_attrs.get(BEST) != kept.best.number:
            kept.study.set_user_attr(BEST, kept.best.number)  # the process before was killed between the two
        self._kept[cell, time] = kept
        return kept

    def _best(self, kept: _Kept, trial: Trial) -> Trial:
        """Return the best trial when one more is added: with several objectives all of them decide."""
        weighing = self._spec.weighing()
        if weighing is None:
            return trial if kept.best is None else best_first([kept.best, trial], self._spec.metric())[0]
        kept.weighed.append(trial)
        return best_first(kept.weighed, self._spec.metric(), weighing)[0]

    def _in_time(self) -> AbstractContextManager[None]:
        return self._server.in_time() if self._server else nullcontext()

    def _frozen(self, trial: Trial, best_so_far: bool) -> FrozenTrial:
        """Return a trial as Optuna has it: its value is the mean over the tuning seeds, its attributes say each."""
        metric = self._spec.evaluation.metric
        state = TrialState.PRUNED if trial.pruned else TrialState.FAIL if trial.failures else TrialState.COMPLETE
        frozen = create_trial(
            state=state,
            values=list(trial.weighed) if state == TrialState.COMPLETE else None,
            params={name: for_optuna(value) for name, value in trial.settings.items()},
            distributions={name: self._distributions[name] for name in trial.settings},
            user_attrs={
                **{f"{metric} of seed {seed}": value for seed, value in trial.values.items()},
                **{f"run of seed {run.seed}": run.run_id for run in trial.runs},
                **{f"status of seed {run.seed}": run.status for run in trial.runs},
                **{f"error of seed {run.seed}": _reason(run.error) for run in trial.runs if run.error},
                BEST_SO_FAR: best_so_far,
            },
            intermediate_values=trial.curve(metric),
        )
        # Optuna's times are those of the machine's zone, which they don't name.
        frozen.datetime_start, frozen.datetime_complete = (
            moment.astimezone().replace(tzinfo=None)
            for moment in (min(map(began_at, trial.runs)), max(run.created_at for run in trial.runs))
        )
        return frozen

    def _study(self, cell: CellKey, time: int) -> optuna.Study:
        again = f" / tuning {time + 1}" if time else ""
        study = optuna.create_study(
            study_name=f"{self._name} / {cell.function} / {cell}{again}",
            storage=self._storage,
            directions=directions(self._spec),
            load_if_exists=True,
        )
        metric = self._spec.metric()
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            names = [f"{metric.name} ({metric.unit})", *self._spec.other_objectives()]
            study.set_metric_names(names)  # else dashboards number their axes
        return study


def _reason(error: str) -> str:
    """Return the last line of an error, which says what went wrong."""
    return error.strip().splitlines()[-1]


def keep_trials(database: OptunaDatabase, agenda: Agenda, cells: Iterable[CellKey] = ()) -> None:
    """Add to the database what the agenda has of the cells' finished trials, each time that the study is tuned.

    If the study's own file is found damaged, it is made anew with all that the agenda has.
    """

    def keep(cells: Iterable[CellKey]) -> None:
        for cell in cells:
            for time in range(agenda.study.spec.times_tuned()):
                database.keep(cell, agenda.trials_from(database.kept(cell, time), cell, time), time)

    every = agenda.study.spec.cells()
    try:
        keep(every if database.was_replaced() else cells)
    except FaultError:
        raise
    except Exception as error:
        if not database.make_anew(error):  # damage shows as whatever Optuna makes of what it reads
            raise
        keep(every)


def _content(trial: FrozenTrial) -> tuple[object, ...]:
    return (
        *(trial.number, trial.state, trial.values, trial.params, trial.distributions),
        *(trial.user_attrs, trial.intermediate_values, trial.datetime_start, trial.datetime_complete),
    )


def _open_server(server: Server) -> optuna.storages.RDBStorage:
    address = server.url.render_as_string(hide_password=False)
    try:
        with server.alone():
            storage = optuna.storages.RDBStorage(address, server.engine_options() | {"pool_pre_ping": True})
    except DatabaseError as error:
        raise FaultError(f"the database {server.shown} can't be used: {why(error)}.") from None
    except RuntimeError:  # Optuna's, of tables that another version made
        raise FaultError(
            f"the database {server.shown} has the tables of another version of Optuna; "
            f"`optuna storage upgrade --storage URL` makes them those of {optuna.__version__}."
        ) from None
    storage.engine.dispose()  # of the connection that nobody watched
    server.watch(storage.engine)
    return storage
