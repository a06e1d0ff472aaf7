"""The base of every task's settings: its metrics, its data's place and fingerprint. Imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from trans4init.ablations.settings.base import BaseModel, ConfigDict
from trans4init.ablations.settings.model import Kind
from trans4init.reports.records.schema import Metric

__all__ = ["Kind", "Split", "TaskConfig"]

Split = Literal["tune", "evaluate"]
"""What models are measured on: the validation split to choose settings by, the test split for the verdict."""


class TaskConfig(BaseModel):
    """The data of a task, as a study file or a recipe names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kinds: ClassVar[tuple[Kind, ...]] = ("decoder",)
    """The kinds of model that can do the task."""

    name: str
    """The task's name."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation: a study's verdict can be about any of them."""
        raise NotImplementedError

    def located(self, folder: Path) -> Self:
        """Return the same settings with a file's path made absolute; a relative path is relative to `folder`."""
        return self

    def fingerprint(self) -> str:
        """Return the SHA-256 of the data; raises InputError if it can't be read.

        For generated data: a hash of the settings that generate them.
        """
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def public(self) -> dict[str, Any]:
        """Return the settings for results: a user's file by its name alone."""
        return self.model_dump(mode="json")
