"""A registry: names to things, filled by importing every module of a package, with "did you mean" for the rest."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from trans4init.ablations.errors import unknown_name

__all__ = ["Registry", "import_all"]


class Named(Protocol):
    """Anything with a name to be found under."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Classes of one kind by their `name`. A new one is a file in the package, with `@REGISTRY.register` in it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, type[T]] = {}

    def register(self, thing: type[T]) -> type[T]:
        """Decorate a class to be found under its name; raises ValueError where the name is taken."""
        name = str(thing.name)
        if name in self._things:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._things[name] = thing
        return thing

    def get(self, name: str) -> type[T]:
        """The class called `name`; raises InputError with the nearest name."""
        if name not in self._things:
            raise unknown_name(self.kind, name, self._things)
        return self._things[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._things)


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they register is known."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
