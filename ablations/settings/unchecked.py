"""A stand-in for what the project uses of pydantic, for machines without it.

It checks no types and no bounds, converts nothing and reads no file. Validators that are code of the project are run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

ConfigDict = dict
SerializerFunctionWrapHandler = Callable[[Any], dict[str, Any]]


class ValidationError(ValueError):
    """Raised for settings that break a rule; of several broken rules it names the first."""

    def errors(self) -> list[dict[str, Any]]:
        """Return the error as pydantic lists it."""
        return [{"type": "value_error", "loc": (), "msg": f"Value error, {self}", "ctx": {"error": self}}]


def Field(*, default: Any = dataclasses.MISSING, **bounds: Any) -> Any:  # noqa: N802  pydantic's name
    """Return a field with its default; the bounds are not checked."""
    return dataclasses.field(default=default)


def _mark(kind: str, *fields: str) -> Callable[[Any], Any]:
    def mark(method: Any) -> Any:
        method.mark = kind, fields
        return method

    return mark


def model_validator(*, mode: str) -> Callable[[Any], Any]:
    """Mark a method that raises ValueError for settings that don't go together."""
    return _mark("together")


def field_validator(*fields: str) -> Callable[[Any], Any]:
    """Mark a class method that checks the value of these fields, and returns the value to use."""
    return _mark("alone", *fields)


def model_serializer(*, mode: str) -> Callable[[Any], Any]:
    """Mark the method that dumps settings, given a function that dumps all of them."""
    return _mark("dump")


class BaseModel:
    """Frozen settings, made from keywords. Subclasses become dataclasses."""

    model_fields: ClassVar[dict[str, dataclasses.Field[Any]]]
    model_fields_set: frozenset[str]
    """The names of the fields that were given."""
    _marked: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {}

    def __init_subclass__(cls) -> None:
        marks = {name: method.mark for name, method in vars(cls).items() if hasattr(method, "mark")}
        cls._marked = cls._marked | marks
        dataclass: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        cls.model_fields = {field.name: field for field in dataclasses.fields(dataclass)}

    def __new__(cls, **values: Any) -> Self:
        """Remember which fields were given: a dataclass does not."""
        self = super().__new__(cls)
        object.__setattr__(self, "model_fields_set", frozenset(values))
        return self

    def __post_init__(self) -> None:
        try:
            for check, fields in self._methods("alone"):
                for name in self.model_fields_set.intersection(fields):
                    object.__setattr__(self, name, check(getattr(self, name)))
            for rule, _ in self._methods("together"):
                rule()
        except ValueError as broken:
            raise ValidationError(str(broken)) from broken

    def _methods(self, kind: str) -> list[tuple[Callable[..., Any], tuple[str, ...]]]:
        return [(getattr(self, name), fields) for name, (mark, fields) in self._marked.items() if mark == kind]

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Return the values by name; in mode `json`, tuples become lists."""

        def everything(settings: Self) -> dict[str, Any]:
            values = {name: getattr(settings, name) for name in settings.model_fields}
            lists = {name: list(value) for name, value in values.items() if mode == "json" and isinstance(value, tuple)}
            return values | lists

        serializers = self._methods("dump")
        dumped: dict[str, Any] = serializers[-1][0](everything) if serializers else everything(self)
        return dumped

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """Return a copy with some values changed; nothing is checked."""
        copied = self.__new__(type(self), **dict.fromkeys(self.model_fields_set) | update)
        vars(copied).update({name: getattr(self, name) for name in self.model_fields} | update)
        return copied

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)!r}" for name in self.model_fields)
