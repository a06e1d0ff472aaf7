"""Read a TOML file together with the files that it extends: its own keys win. Imports no torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trans4init.ablations.errors import InputError, nearest, shown
from trans4init.ablations.settings.toml_file import find_toml, read_toml

__all__ = ["merged", "read_extended"]

_KEY = "extends"
_UNNAMED = "text"
"""What `merged` takes for the name of a table without one: that of a task by default."""
_OWN = ("name",)
"""Keys that a file doesn't take over: a study that extends another one is another study, with a folder of its own."""


def read_extended(kind: str, name_or_path: str, shipped: Mapping[str, Path]) -> tuple[dict[str, Any], Path]:
    """Return the content of a file with that of the file named by its key `extends` below it, and the file's path.

    `extends` is the name of a shipped file, or a path relative to the file. Raises InputError where a file is missing,
    can't be read, or extends itself by way of others.
    """
    path = find_toml(kind, name_or_path, shipped)
    return _read(kind, path, shipped, ()), path


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `changes` in place of its own; tables are merged likewise, lists replaced.

    A table with another `name` is about another thing, such as a task with other settings: it is replaced too.
    """
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        tables = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below or {}, value) if tables and _name(value, below) == _name(below or {}) else value
    return result


def _name(table: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> Any:
    """Return a table's name, if it has none that of the table below it."""
    return table["name"] if "name" in table else _name(below) if below is not None else _UNNAMED


def _read(kind: str, path: Path, shipped: Mapping[str, Path], before: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's content over that of what it extends. before: the files that lead to it, first to last."""
    content = read_toml(path)
    if _KEY not in content:
        return content
    name, chain = content.pop(_KEY), (*before, path.resolve())
    if not isinstance(name, str):
        raise InputError(f"{shown(path)}: extends: a {kind}'s name or path was expected, and {name!r} was given.")
    at = name if name in shipped else _beside(path.parent, name)
    try:
        parent = find_toml(kind, at, shipped)
    except InputError as error:
        said = str(error).replace(repr(at), repr(name))
        close = nearest(name, (file.name for file in path.parent.glob("*.toml"))) if "there is no" in said else None
        hint = f"{said.removesuffix('.')}; did you mean {close!r}?" if close else said
        raise InputError(f"{shown(path)}: extends: {hint}") from None
    if parent.resolve() in chain:
        circle = [*chain[chain.index(parent.resolve()) :], parent.resolve()]
        raise InputError(
            f"{shown(path)}: extends: {', which extends '.join(file.name for file in circle)}: no file may extend "
            "itself."
        )
    below = _read(kind, parent, shipped, chain)
    if parent.resolve().parent != path.resolve().parent:
        below = _located(parent.parent, below)
    return merged({key: value for key, value in below.items() if key not in _OWN}, content)


def _beside(folder: Path, name: str) -> str:
    """Return the path of a file that is named relative to `folder`; a name that is no path of a file stays."""
    path = folder / os.path.expanduser(name)
    return str(path) if name.endswith(".toml") or "/" in name or path.is_file() else name


def _located(folder: Path, value: Any) -> Any:
    """Make each `source` in a value that is the path of a file relative to `folder` absolute."""
    if isinstance(value, dict):
        return {
            key: str((folder / entry).resolve())
            if key == "source" and isinstance(entry, str) and (folder / entry).is_file()
            else _located(folder, entry)
            for key, entry in value.items()
        }
    return [_located(folder, entry) for entry in value] if isinstance(value, list) else value
