"""Turn the range of a setting, and its value, into what Optuna has for them. Optuna is imported where it is needed."""

import json
from typing import TYPE_CHECKING, Any

from trans4init.reports.records.tuning_design import TunedRange

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

__all__ = ["distribution", "for_optuna", "suggested"]


def distribution(tuned: TunedRange) -> "BaseDistribution":
    """Return a range as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if tuned.choices:
        return CategoricalDistribution([for_optuna(choice) for choice in tuned.choices])
    if tuned.integer:
        return IntDistribution(int(tuned.low), int(tuned.high), log=tuned.log, step=int(tuned.step or 1))
    return FloatDistribution(tuned.low, tuned.high, log=tuned.log, step=tuned.step)


def suggested(tuned: TunedRange, trial: "optuna.Trial") -> Any:
    """Return the value of a range that a trial of Optuna's suggests, as Optuna keeps it."""
    if tuned.choices:
        return trial.suggest_categorical(tuned.name, [for_optuna(choice) for choice in tuned.choices])
    if tuned.integer:
        low, high, step = int(tuned.low), int(tuned.high), int(tuned.step or 1)
        return trial.suggest_int(tuned.name, low, high, step=step, log=tuned.log)
    return trial.suggest_float(tuned.name, tuned.low, tuned.high, step=tuned.step, log=tuned.log)


def for_optuna(value: Any) -> Any:
    """Return a setting as Optuna keeps it: a list, which is no value there, as its text."""
    return json.dumps(list(value)) if isinstance(value, (list, tuple)) else value
