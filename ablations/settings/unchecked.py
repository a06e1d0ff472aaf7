"""What the project uses of pydantic, for a machine without it: the same words, and values of any type.

Types and bounds are not looked at, nothing is converted, no file is read. Rules that are code of ours are kept.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

ConfigDict = dict
SerializerFunctionWrapHandler = Callable[[Any], dict[str, Any]]


class ValidationError(ValueError):
    """A rule that settings break; of several the first."""

    def errors(self) -> list[dict[str, Any]]:
        """It in pydantic's words."""
        return [{"type": "value_error", "loc": (), "msg": f"Value error, {self}", "ctx": {"error": self}}]


def Field(*, default: Any = dataclasses.MISSING, **bounds: Any) -> Any:  # noqa: N802  pydantic's name
    """A field with its default."""
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
    """Mark a class method from the given value of one of these fields to the one that is kept."""
    return _mark("alone", *fields)


def model_serializer(*, mode: str) -> Callable[[Any], Any]:
    """Mark the method that dumps settings with the help of a function that dumps all of them."""
    return _mark("dump")


class BaseModel:
    """Frozen settings, from keywords. A subclass is made a dataclass."""

    model_fields: ClassVar[dict[str, dataclasses.Field[Any]]]
    model_fields_set: frozenset[str]
    """Those that were given."""
    _marked: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {}

    def __init_subclass__(cls) -> None:
        cls._marked = cls._marked | {name: one.mark for name, one in vars(cls).items() if hasattr(one, "mark")}
        made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        cls.model_fields = {field.name: field for field in dataclasses.fields(made)}

    def __new__(cls, **given: Any) -> Self:
        """Remember which were given: a dataclass does not."""
        self = super().__new__(cls)
        object.__setattr__(self, "model_fields_set", frozenset(given))
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
        return [(getattr(self, name), fields) for name, (one, fields) in self._marked.items() if one == kind]

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """By name; lists for tuples where the mode is `json`."""

        def everything(settings: Self) -> dict[str, Any]:
            held = {name: getattr(settings, name) for name in settings.model_fields}
            lists = {name: list(value) for name, value in held.items() if mode == "json" and isinstance(value, tuple)}
            return held | lists

        own = self._methods("dump")
        dumped: dict[str, Any] = own[-1][0](everything) if own else everything(self)
        return dumped

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """The same but for some; no rule is asked."""
        copied = self.__new__(type(self), **dict.fromkeys(self.model_fields_set) | update)
        vars(copied).update({name: getattr(self, name) for name in self.model_fields} | update)
        return copied

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)!r}" for name in self.model_fields)
