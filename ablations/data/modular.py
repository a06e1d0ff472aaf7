"""The table of an operation modulo a prime, and its split. Imports no torch."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.data.config import TaskConfig
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.base import Field, field_validator
from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS, of_group
from trans4init.reports.records.schema import Metric

__all__ = ["GROKKED", "GROKKING_STEP", "ModularConfig", "split_table", "whole_table"]

GROKKING_STEP = Metric("grokking_step", "step", higher_is_better=False)
"""The first evaluated step with a held-out loss below the threshold; the run's last step if there is none."""
GROKKED = Metric("grokked", "1")
"""1 if the loss fell below the threshold; 0 means that `grokking_step` is censored."""

_VALIDATION_SHARE = 0.2
"""The share of the rows that are not trained on."""


class ModularConfig(TaskConfig):
    """Names the data of task `modular-addition`: a ∘ b modulo p for all a and b (Power et al. 2022, appendix A.1.1)."""

    name: Literal["modular-addition"] = "modular-addition"
    operation: Literal["+", "-", "*", "/", "x2+y2"] = "+"
    """The operation on a and b whose result modulo p is predicted."""
    modulus: Annotated[int, Field(ge=3, le=1000)] = 113
    """The prime p."""
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the table that is trained on."""
    grokked_below: Annotated[float, Field(gt=0)] = 0.1
    """The held-out loss below which the task counts as grokked."""

    @field_validator("modulus")
    @classmethod
    def _prime(cls, modulus: int) -> int:
        divisor = next((number for number in range(2, int(modulus**0.5) + 1) if modulus % number == 0), None)
        if divisor is not None:
            raise ValueError(f"{modulus} is not a prime: {divisor} divides it")
        return modulus

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation; loss and accuracy also of what is trained on."""
        both = (VALIDATION_LOSS, ACCURACY)
        return (*both, *(of_group(metric, "training") for metric in both), GROKKING_STEP, GROKKED)

    def __str__(self) -> str:
        return f"{self.operation} modulo {self.modulus}, {self.fraction:g} of the table"


def whole_table(config: ModularConfig) -> NDArray[np.int64]:
    """Return every [a, b, a ∘ b], [N, 3]; division leaves out b = 0."""
    a, b = (grid.ravel() for grid in np.meshgrid(*[np.arange(config.modulus)] * 2, indexing="ij"))
    if config.operation == "/":  # by Fermat's little theorem 1 / b = b^(p - 2)
        a, b = a[b > 0], b[b > 0]
        inverses = np.array([pow(number, config.modulus - 2, config.modulus) for number in range(config.modulus)])
        results = a * inverses[b]
    else:
        results = {"+": a + b, "-": a - b, "*": a * b, "x2+y2": a * a + b * b}[config.operation]
    return np.stack([a, b, results % config.modulus], axis=1)


def split_table(config: ModularConfig, seed: int) -> dict[str, NDArray[np.int64]]:
    """Divide the table's rows into `training`, `tune` and `evaluate`. The seed is the split's, not a model's."""
    table = whole_table(config)
    order = np.random.default_rng(derived_seed(seed, "modular table")).permutation(len(table))
    trained = round(config.fraction * len(table))
    validated = trained + round(_VALIDATION_SHARE * (len(table) - trained))
    return {
        "training": table[order[:trained]],
        "tune": table[order[trained:validated]],
        "evaluate": table[order[validated:]],
    }
