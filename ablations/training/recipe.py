"""A recipe: one training run written down, task, model and training. Imports no torch."""

import tomllib
from pathlib import Path
from typing import Any

from trans4init.ablations.data.config import Split
from trans4init.ablations.data.tasks import AnyTaskConfig
from trans4init.ablations.errors import InputError, unknown_name
from trans4init.ablations.settings.base import BaseModel, ConfigDict, ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig

__all__ = ["Recipe", "load_recipe", "shipped_recipes"]


class Recipe(BaseModel):
    """One model trained on one task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    """What it is for, in one sentence."""
    task: AnyTaskConfig
    model: ModelSize
    training: TrainingConfig
    seed: int = 0
    measured_on: Split = "tune"
    """What chooses the best model while it trains: the validation split, so that the test split is looked at once."""


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the project, by name; a task's own name is its recipe that needs no download."""
    folder = Path(__file__).resolve().parent.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name_or_path: str, changes: dict[str, Any] | None = None) -> Recipe:
    """The recipe of that name or in that file, with some keys changed, such as {"training.steps": 100}.

    A change of a whole section ("model") replaces it; a changed `task.source` is looked for where we are, the recipe's
    own beside it. Raises InputError with the file, the key, what was expected and
    the nearest right word.
    """
    path = _find(name_or_path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}.") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    for key, value in (changes or {}).items():
        _set(content, key, value)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(sentence(error, Recipe, name_or_path)) from None
    beside = Path() if "task.source" in (changes or {}) else path.parent
    return recipe.model_copy(update={"task": recipe.task.located(beside)})


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"{key!r} can't be set: {section!r} is no section of a recipe.")
    table[last] = value


def _find(name_or_path: str) -> Path:
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".toml" or "/" in name_or_path:
        if path.is_file():
            return path
        raise InputError(f"there is no recipe {name_or_path!r}.")
    raise unknown_name("task", name_or_path, shipped)
