"""A recipe: the task, model and training of one run, in a TOML file. Imports no torch."""

from pathlib import Path
from typing import Any

from trans4init.ablations.data.config import Split
from trans4init.ablations.data.tasks import AnyTaskConfig
from trans4init.ablations.settings.base import BaseModel, ConfigDict
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.numbers import Seed
from trans4init.ablations.settings.toml_file import load_toml, shipped_files
from trans4init.ablations.settings.training import TrainingConfig

__all__ = ["Recipe", "load_recipe", "shipped_recipes"]


class Recipe(BaseModel):
    """Says how one model is trained on one task."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    about: str = ""
    """What the recipe is for, in one sentence."""
    task: AnyTaskConfig
    """What is learned from which data; its other keys depend on the task's name."""
    model: ModelSize
    """The kind of the Transformer, its sizes and its functions."""
    training: TrainingConfig
    """How the model is trained."""
    seed: Seed = 0
    """Seed of the model's start, of the order of the data and of dropout."""
    measured_on: Split = "tune"
    """The split that chooses the best model in training: by default validation, so that the test split is used once."""


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the project, by name; the one called like a task needs no download."""
    return shipped_files("recipes")


def load_recipe(name_or_path: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Load the recipe of that name or in that file, with some keys changed, such as {"training.steps": 100}.

    A changed `task.source` is relative to the current folder, the recipe's own to the recipe's folder. Raises
    InputError as `load_toml` does.
    """
    changes = changes or {}
    recipe, folder = load_toml(Recipe, "recipe", name_or_path, shipped_recipes(), changes)
    return recipe.model_copy(update={"task": recipe.task.located(Path() if "task.source" in changes else folder)})
