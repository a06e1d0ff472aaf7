"""Load checked settings from a TOML file that ships with the project or is a user's own. Imports no torch."""

import copy
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from trans4init.ablations.errors import InputError, shown, unknown_name
from trans4init.ablations.settings.base import BaseModel, ValidationError
from trans4init.ablations.settings.error_sentence import sentence

__all__ = ["load_toml", "shipped_files"]

M = TypeVar("M", bound=BaseModel)
_IN_FILE = re.compile(r".+\.py:[\w.-]+")
"""The name of a function, net, arm or task in a user's file."""


def shipped_files(folder: str) -> dict[str, Path]:
    """Return the TOML files in a folder of `ablations`, by name."""
    files = (Path(__file__).resolve().parent.parent / folder).glob("*.toml")
    return {path.stem: path for path in sorted(files)}


def load_toml(
    model: type[M], kind: str, name_or_path: str, shipped: Mapping[str, Path], changes: Mapping[str, Any]
) -> tuple[M, Path]:
    """Load the `shipped` file of that name, or the file at that path; return its settings and its folder.

    kind: what such a file is called in errors. changes: values by key, such as {"training.steps": 100}; a key that
    names a section replaces it. Raises InputError with the file, the key, what was expected and the nearest word.
    """
    path = _find(kind, name_or_path, shipped)
    try:
        content = _beside(path.parent, tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except ValueError as error:  # UnicodeDecodeError, TOMLDecodeError, and what Python says of numbers without end
        raise InputError(f"{shown(path)} is not valid TOML: {error}.") from None
    except RecursionError:
        raise InputError(f"{shown(path)} is not valid TOML: its values are nested too deeply.") from None
    except OSError as error:
        raise InputError(f"{shown(path)} can't be read: {error.strerror}.") from None
    for key, value in changes.items():
        _set(content, key, value, name_or_path)
    try:
        return model.model_validate(content), path.parent
    except ValidationError as error:
        raise InputError(sentence(error, model, name_or_path)) from None


_PROSE = ("about", "question")
"""Keys whose text may end like the name of something in a file, and which `_beside` leaves alone."""


def _find(kind: str, name_or_path: str, shipped: Mapping[str, Path]) -> Path:
    if name_or_path in shipped:
        return shipped[name_or_path]
    if os.path.isfile(name_or_path):  # Path.is_file raises for a name that is too long
        return Path(name_or_path)
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        raise InputError(f"there is no {kind} file {name_or_path!r}.")
    raise unknown_name(kind, name_or_path, shipped)


def _beside(folder: Path, value: Any) -> Any:
    """Rewrite each `FILE.py:NAME` in a value, whose file is relative to `folder`, as relative to the current folder."""
    if isinstance(value, dict):
        return {key: entry if key in _PROSE else _beside(folder, entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_beside(folder, entry) for entry in value]
    if isinstance(value, str) and _IN_FILE.fullmatch(value):
        file, _, name = value.rpartition(":")
        return f"{os.path.relpath(folder / os.path.expanduser(file))}:{name}"
    return value


def _set(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a key such as `training.steps`; raises InputError if what should be its section is a value."""
    *sections, last = key.split(".")
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"{where}: {key!r} can't be set, since {section!r} is a value there, not a section.")
    table[last] = copy.deepcopy(value)  # a later change may reach into it
