"""Load checked settings from a TOML file that ships with the project or is a user's own. Imports no torch."""

import copy
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trans4init.ablations.code_policy import check_code_beside
from trans4init.ablations.errors import InputError, shown, unknown_name
from trans4init.ablations.settings.base import BaseModel, ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.user_files import check_file

__all__ = ["IN_FILE", "checked", "code_files", "find_toml", "load_toml", "read_toml", "set_value", "shipped_files"]

M = TypeVar("M", bound=BaseModel)
IN_FILE = re.compile(r".+\.py:[\w.-]+")
"""The name of a function, net, arm or task in a user's file."""
_DEEPEST = 20
"""How deep values may be nested: those of a study are to 5."""
_LARGEST = 2**20
"""The most bytes of a TOML file: a study's is a few thousand."""


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
    path = find_toml(kind, name_or_path, shipped)
    content = read_toml(path)
    for key, value in changes.items():
        set_value(content, key, value, name_or_path)
    return checked(model, content, name_or_path), path.parent


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, in which a `FILE.py:NAME` is relative to the current folder.

    Raises InputError where the file can't be read, is not TOML, or names code that it may not: see `code_policy`.
    """
    try:
        check_file(path, _LARGEST)
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        _check_depth(content)
        content = _beside(path.parent, content)
        check_code_beside(path, code_files(content))
    except InputError:
        raise
    except ValueError as error:  # UnicodeDecodeError, TOMLDecodeError, and what Python says of numbers without end
        raise InputError(f"{shown(path)} is not valid TOML: {error}.") from None
    except RecursionError:
        raise InputError(f"{shown(path)} is not valid TOML: its values are nested too deeply.") from None
    except OSError as error:
        raise InputError(f"{shown(path)} can't be read: {error.strerror}.") from None
    assert isinstance(content, dict)
    return content


def code_files(content: Any) -> list[str]:
    """Return the files of code that a study's or a recipe's content names as FILE.py:NAME, but for its prose."""
    return sorted({text.rpartition(":")[0] for text in _texts(content) if IN_FILE.fullmatch(text)})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from () if key in _PROSE else _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)


def checked(model: type[M], content: Mapping[str, Any], where: str) -> M:
    """Return the settings that are in `content`; raises InputError with `where`, the key and what was expected."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(sentence(error, model, where)) from None


def _check_depth(value: Any, depth: int = 0) -> None:
    """Raise RecursionError where tables and lists are nested too deeply in a value."""
    if depth > _DEEPEST:
        raise RecursionError
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


_PROSE = ("about", "question")
"""Keys whose text may end like the name of something in a file, and which `_beside` leaves alone."""


def find_toml(kind: str, name_or_path: str, shipped: Mapping[str, Path]) -> Path:
    """Return the path of the `shipped` file of that name, or of the file at that path; raises InputError without one.

    kind: what such a file is called in errors.
    """
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
    if isinstance(value, str) and IN_FILE.fullmatch(value):
        file, _, name = value.rpartition(":")
        return f"{os.path.relpath(folder / os.path.expanduser(file))}:{name}"
    return value


def set_value(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a key such as `training.steps`; raises InputError if what should be its section is a value."""
    *sections, last = key.split(".")
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"{where}: {key!r} can't be set, since {section!r} is a value there, not a section.")
    table[last] = copy.deepcopy(value)  # a later change may reach into it
