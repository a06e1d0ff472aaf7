"""A registry: names to things, filled by importing every module of a package, with "did you mean" for the rest."""

import hashlib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from trans4init.ablations.errors import InputError, unknown_name

__all__ = ["Registry", "import_all"]


class Named(Protocol):
    """Anything with a name to be found under."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Classes of one kind by their `name`. A new one is a file with `@REGISTRY.register` in it.

    The file is in the package; or anywhere, and named with the class, as `my/file.py:name`; or a module of an installed
    distribution with an entry point in the group `trans4init.functions` (`.nets`, …).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, type[T]] = {}

    def register(self, thing: type[T]) -> type[T]:
        """Decorate a class to be found under its name; raises InputError where the name is taken."""
        name = str(thing.name)
        if name in self._things:
            raise InputError(f"{self.kind} {name!r} is registered twice; another name may do.")
        self._things[name] = thing
        return thing

    def get(self, name: str) -> type[T]:
        """The class called `name`, or `file.py:name`; raises InputError with the nearest name."""
        file, _, own = name.rpartition(":")
        if file:
            return self._of_file(Path(file).resolve(), own)
        if name not in self._things:
            self._install()
        if name not in self._things:
            raise unknown_name(self.kind, name, self._things)
        return self._things[name]

    def _of_file(self, file: Path, name: str) -> type[T]:
        """What that file itself registers under the name, and nothing else that is called so."""
        module = _run_file(file)
        own = {key: thing for key, thing in self._things.items() if thing.__module__ == module}
        if not own:
            raise InputError(f"{file} registers no {self.kind}.")
        if name not in own:
            raise unknown_name(self.kind, name, own)
        return own[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(thing.name for thing in self.classes())

    def classes(self) -> list[type[T]]:
        """Return all classes, in the order in which they were registered."""
        self._install()
        return list(self._things.values())

    def _install(self) -> None:
        """Import what installed distributions announce."""
        for point in entry_points(group=f"trans4init.{self.kind}s"):
            point.load()


@cache
def _run_file(file: Path) -> str:
    """Run a file of the user's once; what it registers stays. Its own errors are its own. The module's name."""
    if not file.is_file():
        raise InputError(f"there is no file {file}.")
    place = hashlib.sha256(str(file).encode()).hexdigest()[:8]  # files in two folders may be called the same
    spec = importlib.util.spec_from_file_location(f"trans4init_user_{file.stem}_{place}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.__name__


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they register is known."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
