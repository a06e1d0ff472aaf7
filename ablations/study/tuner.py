"""Tuning by Optuna: each proposal is a function of the finished trials, and a trial is stored when it is finished."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.files import sqlite_address
from trans4init.reports.records.moments import began_at
from trans4init.reports.records.schema import CellKey, RunRecord

__all__ = ["Tuner"]


class Tuner:
    """Proposes training settings for each cell's trials, from the same space with the same budget.

    The first trial uses the study's own settings. The others come from Optuna's TPE sampler, which is seeded by the
    trial's number and shown the cell's finished trials: a resumed study proposes what an uninterrupted one would, and
    cells try the same settings until their results differ. `optuna.db` holds one Optuna study per cell. A trial is
    added when it is finished, so that a kill leaves no half-stored trial; a lost database is rebuilt from the results.
    """

    def __init__(self, spec: StudySpec, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec = spec
        self._storage = _open(folder / "optuna.db")
        self._studies: dict[CellKey, optuna.Study] = {}

    def parameters(self, cell: CellKey, trial: int, finished: Sequence[RunRecord]) -> dict[str, float]:
        """Return the settings of a trial, given the cell's finished trials in order."""
        if trial == 0:
            return {name: getattr(self._spec.training, name) for name in self._spec.tuning.space}
        seed = derived_seed(self._spec.tuning.seed, "trial", trial) % 2**32
        study = optuna.create_study(direction=self._direction(), sampler=optuna.samplers.TPESampler(seed=seed))
        study.add_trials([self._frozen(record) for record in finished])
        return dict(study.ask(self._distributions()).params)

    def tell(self, cell: CellKey, finished: Sequence[RunRecord]) -> None:
        """Store the cell's finished trials, in order; what the database holds instead is replaced."""
        study, trials = self._study(cell), [self._frozen(record) for record in finished]
        stored = [_content(trial) for trial in study.get_trials(deepcopy=False)]
        if stored != [_content(trial) for trial in trials[: len(stored)]]:
            optuna.delete_study(study_name=study.study_name, storage=self._storage)
            del self._studies[cell]
            study, stored = self._study(cell), []
        study.add_trials(trials[len(stored) :])

    def _frozen(self, record: RunRecord) -> FrozenTrial:
        metric = self._spec.evaluation.metric
        value = record.last(metric)
        trial = create_trial(
            state=TrialState.COMPLETE if value is not None else TrialState.FAIL,
            value=value,
            params=dict(record.parameters),
            distributions=self._distributions(),
            user_attrs={"run_id": record.run_id, "status": record.status},
            intermediate_values=record.by_step(metric),
        )
        # Optuna's times are those of the machine's zone, which they don't name.
        trial.datetime_start, trial.datetime_complete = (
            moment.astimezone().replace(tzinfo=None) for moment in (began_at(record), record.created_at)
        )
        return trial

    def _study(self, cell: CellKey) -> optuna.Study:
        if cell not in self._studies:
            study = optuna.create_study(
                study_name=f"{self._spec.name} / {cell.function} / {cell}",
                storage=self._storage,
                direction=self._direction(),
                load_if_exists=True,
            )
            metric = self._spec.metric()
            with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
                study.set_metric_names([f"{metric.name} ({metric.unit})"])  # else dashboards number their axes
            self._studies[cell] = study
        return self._studies[cell]

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
