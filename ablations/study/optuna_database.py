"""Keep a study's trials in a database of Optuna's, for its dashboard and its other tools."""

import os
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.files import sqlite_address
from trans4init.reports.records.moments import began_at
from trans4init.reports.records.schema import CellKey
from trans4init.reports.study_report.tuning import Trial

__all__ = ["OptunaDatabase"]


class OptunaDatabase:
    """Holds one Optuna study per cell in `optuna.db`, and one more for each further time that the study is tuned.

    A trial is added when all its runs are finished, so that a kill leaves no half-stored trial; a lost database is
    rebuilt from the results.
    """

    def __init__(self, spec: StudySpec, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec = spec
        self._storage = _open(folder / "optuna.db")
        self._studies: dict[tuple[CellKey, int], optuna.Study] = {}

    def keep(self, cell: CellKey, finished: Sequence[Trial], time: int = 0) -> None:
        """Store the cell's finished trials, in order; what the database holds instead is replaced.

        time: which time the study is tuned, from 0.
        """
        study, trials = self._study(cell, time), [self._frozen(trial) for trial in finished]
        stored = [_content(trial) for trial in study.get_trials(deepcopy=False)]
        if stored != [_content(trial) for trial in trials[: len(stored)]]:
            optuna.delete_study(study_name=study.study_name, storage=self._storage)
            del self._studies[cell, time]
            study, stored = self._study(cell, time), []
        study.add_trials(trials[len(stored) :])

    def _frozen(self, trial: Trial) -> FrozenTrial:
        """Return a trial as Optuna has it: its value is the mean over the tuning seeds, its attributes say each."""
        metric = self._spec.evaluation.metric
        curves = [run.by_step(metric) for run in trial.runs]
        frozen = create_trial(
            state=TrialState.FAIL if trial.failures else TrialState.COMPLETE,
            value=None if trial.failures else trial.mean,
            params=dict(trial.settings),
            distributions=self._distributions(),
            user_attrs={
                **{f"{metric} of seed {seed}": value for seed, value in trial.values.items()},
                **{f"run of seed {run.seed}": run.run_id for run in trial.runs},
                **{f"status of seed {run.seed}": run.status for run in trial.runs},
            },
            intermediate_values={
                step: statistics.fmean(curve[step] for curve in curves)
                for step in sorted(curves[0])
                if all(step in curve for curve in curves)
            },
        )
        # Optuna's times are those of the machine's zone, which they don't name.
        frozen.datetime_start, frozen.datetime_complete = (
            moment.astimezone().replace(tzinfo=None)
            for moment in (min(map(began_at, trial.runs)), max(run.created_at for run in trial.runs))
        )
        return frozen

    def _study(self, cell: CellKey, time: int) -> optuna.Study:
        if (cell, time) not in self._studies:
            again = f" / tuning {time + 1}" if time else ""
            study = optuna.create_study(
                study_name=f"{self._spec.name} / {cell.function} / {cell}{again}",
                storage=self._storage,
                direction=self._direction(),
                load_if_exists=True,
            )
            metric = self._spec.metric()
            with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
                study.set_metric_names([f"{metric.name} ({metric.unit})"])  # else dashboards number their axes
            self._studies[cell, time] = study
        return self._studies[cell, time]

    def _direction(self) -> StudyDirection:
        return StudyDirection.MAXIMIZE if self._spec.metric().higher_is_better else StudyDirection.MINIMIZE

    def _distributions(self) -> dict[str, BaseDistribution]:
        space = self._spec.tuning.space
        return {name: FloatDistribution(allowed.low, allowed.high, log=allowed.log) for name, allowed in space.items()}


def _content(trial: FrozenTrial) -> tuple[object, ...]:
    return trial.state, trial.value, trial.params, trial.user_attrs, trial.intermediate_values


def _open(path: Path) -> optuna.storages.RDBStorage:
    """Open the database; a damaged file is renamed, and its trials are stored again from the results."""
    address = sqlite_address(Path(os.path.relpath(path)))  # so that folders around the current one may have any name
    try:
        return optuna.storages.RDBStorage(address)
    except sqlalchemy.exc.OperationalError as error:  # such as a full disk or a locked file: the database may be whole
        raise FaultError(f"Optuna's database {shown(path)} can't be used: {error.orig}.") from error
    except sqlalchemy.exc.DatabaseError:
        path.replace(path.with_name(path.name + ".corrupt"))
        return optuna.storages.RDBStorage(address)
