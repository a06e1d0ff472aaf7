"""What every task's configuration can do: say its metrics, find its data, name itself. Imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from trans4init.ablations.settings.base import BaseModel, ConfigDict
from trans4init.ablations.settings.model import Kind
from trans4init.reports.records.schema import Metric

__all__ = ["Kind", "Split", "TaskConfig"]

Split = Literal["tune", "evaluate"]
"""What models are measured on: the validation split while settings are chosen, the test split for the verdict."""


class TaskConfig(BaseModel):
    """The data of a task, as a study file or a recipe names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kinds: ClassVar[tuple[Kind, ...]] = ("decoder",)
    """The kinds of model that can do the task."""

    name: str
    """The task."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What a final evaluation measures and a study can be about."""
        raise NotImplementedError

    def located(self, folder: Path) -> Self:
        """The same with a file's path made absolute, relative paths being relative to `folder`."""
        return self

    def fingerprint(self) -> str:
        """SHA-256 of the data; raises InputError where it can't be read. Generated data are what their settings are."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def public(self) -> dict[str, Any]:
        """As it goes into results: a user's file by its name alone."""
        return self.model_dump(mode="json")
