"""The base of every task's settings: its metrics, its data's place and fingerprint. Imports no torch."""

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, SupportsIndex

from trans4init.ablations.errors import brief
from trans4init.ablations.settings.base import BaseModel, ConfigDict, ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.settings.model import Kind
from trans4init.reports.records.schema import Metric

__all__ = ["Kind", "Split", "TaskConfig", "config_in_file"]

Split = Literal["tune", "evaluate"]
"""What models are measured on: the validation split to choose settings by, the test split for the verdict."""


class TaskConfig(BaseModel):
    """Names the data of a task, in a study file or a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
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

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Pickle a user's task settings as file and values: the process that unpickles them must first run the file."""
        if ":" not in self.name:
            return super().__reduce_ex__(protocol)
        return config_in_file, (self.model_dump(exclude_unset=True),)


def config_in_file(section: Any) -> TaskConfig:
    """Check the settings of task `FILE.py:NAME` by the `Config` of the task that the file registers.

    Raises InputError where the file has no such task, ValueError with one sentence for settings that it refuses.
    """
    if isinstance(section, TaskConfig):
        return section
    if not isinstance(section["name"], str):
        given = brief(repr(section["name"]))
        raise ValueError(f"a task's name was expected, or FILE.py:NAME, not {given}")  # noqa: TRY004  pydantic's
    tasks = import_module("trans4init.ablations.tasks")  # by name: tasks stand on data, and need torch
    config: type[TaskConfig] = tasks.TASKS.get(section["name"]).Config
    try:
        return config.model_validate(section)
    except ValidationError as error:
        raise ValueError(sentence(error, config, section["name"])) from None
