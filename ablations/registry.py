"""A registry of classes by name, filled by importing every module of a package, with "did you mean" in its errors."""

import importlib
import importlib.util
import itertools
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from trans4init.ablations.code_policy import check_code
from trans4init.ablations.errors import InputError, unknown_name

__all__ = ["Registry", "import_all"]


class Named(Protocol):
    """Stands for any class with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)

_USER_MODULE = "trans4init_user_"
"""How the modules begin that are made of users' files."""
_RUNS = itertools.count()
"""Numbers them: files in two folders may be called the same, and one that failed is run again."""
_FILES_RUN: set[Path] = set()


class Registry(Generic[T]):
    """Holds the classes of one kind by their `name`. A new class is decorated with `@REGISTRY.register`.

    Its file is in the package; or it is a module of an installed distribution with an entry point in the group
    `trans4init.functions` (`.nets`, `.arms`); or it is a file of the user's, anywhere. Then the class is called
    `my/file.py:name`, and no list has it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, type[T]] = {}
        self._in_files: dict[str, dict[str, type[T]]] = {}
        """The classes of users' files, by the name of the file's module."""

    def register(self, thing: type[T]) -> type[T]:
        """Register a class under its name, as a decorator; raises InputError where the name is taken."""
        name, module = str(thing.name), thing.__module__
        things = self._in_files.setdefault(module, {}) if module.startswith(_USER_MODULE) else self._things
        if name in self._things or name in things:
            raise InputError(f"{self.kind} {name!r} is registered twice; give one of the two another name.")
        things[name] = thing
        return thing

    def get(self, name: str) -> type[T]:
        """Return the class called `name`, or `file.py:name`; raises InputError with the nearest name."""
        file, _, name_in_file = name.rpartition(":")
        if file:
            return self._in_file(Path(file).resolve(), name_in_file)
        if name not in self._things:
            self._install()
        if name not in self._things:
            raise unknown_name(self.kind, name, self._things)
        return self._things[name]

    def _in_file(self, file: Path, name: str) -> type[T]:
        """Return what that file itself registers under the name, not what has the name elsewhere."""
        if file not in _FILES_RUN:
            check_code(file)
        in_file = self._in_files.get(_run_file(file))
        if not in_file:
            raise InputError(f"{file} registers no {self.kind}.")
        if name not in in_file:
            raise unknown_name(self.kind, name, in_file)
        return in_file[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(str(thing.name) for thing in self.classes())

    def classes(self) -> list[type[T]]:
        """Return all classes, in the order in which they were registered."""
        self._install()
        return list(self._things.values())

    def _install(self) -> None:
        """Import the modules that installed distributions announce as entry points."""
        for point in entry_points(group=f"trans4init.{self.kind}s"):
            point.load()


@cache
def _run_file(file: Path) -> str:
    """Run a file of the user's, once in a process, and return the module's name.

    What the file raises is passed on, and the file is run anew when it is asked for again.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}.")
    spec = importlib.util.spec_from_file_location(f"{_USER_MODULE}{file.stem}_{next(_RUNS)}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is not a Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _FILES_RUN.add(file)
    return module.__name__


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that they register their classes."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
