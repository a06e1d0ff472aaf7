"""The search space of a study: which settings tuning may change, and to what. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_args

from trans4init.ablations.errors import nearest
from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.reports.records.tuning_design import Setting, TunedRange, shapes_runs

__all__ = [
    "NET",
    "Range",
    "check_range",
    "checked_space",
    "of_models",
    "of_nets",
    "of_training",
    "shapes_runs",
    "tunable",
    "tuned_range",
]

NET = "net"
"""The name in a space of the kind of the fitted net."""
_NETS, _MODEL, _TRAINING = "nets.", "model.", "training."
_FIXED = ("steps",)
"""Settings of [training] that no space may name: every trial has the same number of steps."""
_KIND = (
    "kind",
    "context",
    "position",
    "activation",
    "softmax",
    "softmax_reciprocal",
    "normalization",
    "scale",
    "head_mixing",
)
"""Settings of [model] that no space may name: they make another task or another function of the study."""

Scalar = float | int | bool | str


class Range(BaseModel):
    """Bounds the values of a setting: numbers from `low` to `high`, or some `choices`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float | None = None
    """The least value."""
    high: float | None = None
    """The largest value."""
    log: bool = False
    """Whether equal ratios, not equal differences, are as likely."""
    step: Annotated[float, Field(gt=0)] | None = None
    """The distance of two values, counted from `low`; by default 1 for whole numbers, and none for others."""
    choices: Annotated[tuple[Scalar | tuple[Scalar, ...], ...], Field(min_length=2)] | None = None
    """The values there are, in place of `low` and `high`; a list is one value, such as the hidden widths of a net."""

    @field_validator("low", "high", "step", mode="wrap")
    @classmethod
    def _stays_whole(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        """Keep a number that is written without a point: a range of these has whole numbers alone."""
        checked = handler(value)
        return value if isinstance(value, int) and not isinstance(value, bool) else checked

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Range":
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices stand alone: leave low, high, log and step out")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("a choice is named twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a range needs low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, not {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, not {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"a step of {self.step:g} leaves one value between {self.low:g} and {self.high:g}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump step and choices only where there are some, so that hashes of earlier studies stay."""
        values: dict[str, Any] = handler(self)
        if self.choices is not None:
            return {"choices": values["choices"]}
        numbers = {name: float(values[name]) for name in ("low", "high", "step") if values.get(name) is not None}
        return {"low": numbers["low"], "high": numbers["high"], "log": self.log} | numbers

    def ends(self) -> tuple[Any, ...]:
        """Return the values that must be allowed for all to be: both ends, or every choice."""
        return self.choices if self.choices is not None else (self.low, self.high)


def checked_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space with one name for each setting: `training.x` is `x`, and tables within are taken apart.

    Raises ValueError with the nearest word for a setting that can't be tuned.
    """
    names: dict[str, Any] = {}
    for name, value in _flat(space):
        short = name.removeprefix(_TRAINING)
        if short in names:
            raise ValueError(f"{short} is named twice")
        if not _tunable(short):
            known = [*tunable(), NET]
            close = nearest(short, known)
            hint = (
                f"did you mean {close!r}?"
                if close
                else f"there are: {', '.join(known)}, and {_NETS}… for sizes of nets"
            )
            raise ValueError(f"{name!r} can't be tuned; {hint}")
        names[short] = value
    return names


def check_range(name: str, allowed: Range) -> None:
    """Raise ValueError if a setting can't have some value of its range."""
    if name.startswith(_NETS) or name == NET:
        return  # which nets and sizes there are is known where one is built
    from pydantic import TypeAdapter

    field = _field(name)
    accepted: TypeAdapter[Any] = TypeAdapter(Annotated[(field.annotation, name, *field.metadata)])  # type: ignore[arg-type]
    whole = _takes_whole_numbers(name)
    if whole and allowed.step is not None and not isinstance(allowed.step, int):
        raise ValueError(f"{name} takes whole numbers: a step of {allowed.step:g} leads to others")
    for value in allowed.ends():
        if whole and isinstance(value, float):
            raise ValueError(f"{name} takes whole numbers, written without a point, not {value}")
        try:
            accepted.validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            shown = f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)
            raise ValueError(f"{name} can't be {shown}: {problem[0].lower()}{problem[1:]}") from None


def tuned_range(name: str, allowed: Range) -> TunedRange:
    """Return a range as records have it: of whole numbers where the setting takes only these."""
    if allowed.choices is not None:
        return TunedRange(name, choices=allowed.choices)
    assert allowed.low is not None
    assert allowed.high is not None
    written = [end for end in (allowed.low, allowed.high, allowed.step) if end is not None]
    integer = all(isinstance(end, int) for end in written) and _takes_whole_numbers(name)
    low, high = (allowed.low, allowed.high) if integer else (float(allowed.low), float(allowed.high))
    return TunedRange(name, low, high, allowed.log, allowed.step, integer)


def of_models(parameters: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the settings of [model] among those of a trial, by their names there."""
    return {n.removeprefix(_MODEL): value for n, value in parameters.items() if n.startswith(_MODEL)}


def of_nets(parameters: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the options of a net's size among the settings of a trial, by their names there."""
    return {n.removeprefix(_NETS): value for n, value in parameters.items() if n.startswith(_NETS)}


def of_training(parameters: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the settings of [training] among those of a trial."""
    return {n: value for n, value in parameters.items() if n != NET and not n.startswith((_NETS, _MODEL))}


def _flat(space: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield the entries of a space; TOML reads `nets.hidden = …` as a table `nets` with a key `hidden`."""
    for name, value in space.items():
        if f"{name}." in (_NETS, _MODEL, _TRAINING) and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", entry) for key, entry in value.items())
        else:
            yield name, value


def tunable() -> list[str]:
    """Return the names of the settings of [training] and [model] that a space may have."""
    return [*_trainings(), *(f"{_MODEL}{key}" for key in _models())]


def _trainings() -> list[str]:
    return [name for name in TrainingConfig.model_fields if name not in _FIXED]


def _models() -> list[str]:
    return [name for name in ModelSize.model_fields if name not in _KIND]


def _tunable(name: str) -> bool:
    if name.startswith(_MODEL):
        return name.removeprefix(_MODEL) in _models()
    return name == NET or name.startswith(_NETS) or name in _trainings()


def _takes_whole_numbers(name: str) -> bool:
    """Return whether a setting takes no other numbers; of a net's size it isn't known here, and its range says it."""
    return name.startswith(_NETS) or not _mentions_floats(_field(name).annotation)


def _field(name: str) -> Any:
    fields = ModelSize.model_fields if name.startswith(_MODEL) else TrainingConfig.model_fields
    return fields[name.removeprefix(_MODEL)]


def _mentions_floats(annotation: Any) -> bool:
    return annotation is float or any(_mentions_floats(part) for part in get_args(annotation))
