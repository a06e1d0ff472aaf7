"""Turn the range of a setting, and its value, into what Optuna has for them. Optuna is imported where it is needed."""

import json
from typing import TYPE_CHECKING, Any

from trans4init.reports.records.tuning_design import TunedRange

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["distribution", "for_optuna"]


def distribution(tuned: TunedRange) -> "BaseDistribution":
    """Return a range as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if tuned.choices:
        return CategoricalDistribution([for_optuna(choice) for choice in tuned.choices])
    if tuned.integer:
        return IntDistribution(int(tuned.low), int(tuned.high), log=tuned.log, step=int(tuned.step or 1))
    return FloatDistribution(tuned.low, tuned.high, log=tuned.log, step=tuned.step)


def for_optuna(value: Any) -> Any:
    """Return a setting as Optuna keeps it: a list, which is no value there, as its text."""
    return json.dumps(list(value)) if isinstance(value, (list, tuple)) else value
