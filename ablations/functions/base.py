"""The base of all functions: an analytic form on a domain, with a shape contract, a derivative and a source."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Literal

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.registry import Registry

__all__ = ["FUNCTIONS", "Domain", "Function", "Line", "Role", "Takes"]

Line = tuple[float, float]
"""A slope and an intercept."""

Takes = Literal["numbers", "vectors", "rows"]
"""The kind of an input: a number; a vector of fixed length [..., n]; or a row of any length [..., n], padded by −∞."""

Role = Literal["added", "rotary", "bias", "pair-bias", "elementwise", "row", "statistic", "centred-statistic"]
"""How the layer that owns a slot uses the function's values."""


@dataclass(frozen=True)
class Domain:
    """Says at which inputs a function is used: the integers low..high, or the reals between them.

    log: the reals are positive and matter by their ratios, so that points and nets use the logarithm.
    Raises InputError for ends that make no domain.
    """

    low: float
    high: float
    integer: bool
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise InputError(f"a domain has finite ends, and {self.low:g}..{self.high:g} was given.")
        if self.log and (self.integer or self.low <= 0):
            raise InputError(f"a logarithmic domain is of positive reals, and {self.low:g}..{self.high:g} was given.")
        if self.low > self.high or (self.low == self.high and not self.integer):
            raise InputError(f"a domain goes from low to high, and {self.low:g}..{self.high:g} was given.")

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    def points(self, count: int = 1024) -> Tensor:
        """Return all integers of the domain, or `count` evenly spaced reals with both ends, [N] float64."""
        if self.integer:
            return torch.arange(int(self.low), int(self.high) + 1, dtype=torch.float64)
        if self.log:
            return torch.logspace(math.log(self.low), math.log(self.high), count, math.e, dtype=torch.float64)
        return torch.linspace(self.low, self.high, count, dtype=torch.float64)

    def coordinate(self, inputs: Tensor) -> Tensor:
        """Scale inputs [...] for a net: to -1..1 over the domain, by their logarithm in a logarithmic one."""
        low, high = float(self.low), float(self.high)
        if self.log:
            low, high = math.log(low), math.log(high)
            inputs = self.logarithm(inputs)
        half = (high - low) / 2 or 1.0  # a domain may be a single position
        return (inputs - (high + low) / 2) / half

    @staticmethod
    def logarithm(inputs: Tensor) -> Tensor:
        """Compute the logarithm of positive inputs [...]; of 0, that of the least number of their dtype."""
        return inputs.clamp_min(torch.finfo(inputs.dtype).tiny).log()

    def beyond(self, support: tuple[float, float] = (-math.inf, math.inf)) -> tuple["Domain", ...]:
        """Return the regions outside that reach 1 to 2 and 2 to 4 times as far: where nothing has been fitted.

        Positions count from the domain's start. Reals extend to both sides about the middle, or from the end where
        the function's `support` ends too; a logarithmic domain is halved and quartered on the low side.
        """
        if self.integer:
            size, start = self.high - self.low + 1, self.high + 1
            return Domain(start, start + size - 1, True), Domain(start + size, start + 3 * size - 1, True)
        if self.log:
            low, high = self.low, self.high
            bounds = [(high, 2 * high), (2 * high, 4 * high), (low / 2, low), (low / 4, low / 2)]
            return tuple(Domain(a, b, False, True) for a, b in bounds)
        anchor = (self.low + self.high) / 2
        if self.low <= support[0] or self.high >= support[1]:
            anchor = self.low if self.low <= support[0] else self.high
        up, down = self.high - anchor, self.low - anchor
        bounds = [(anchor + up, anchor + 2 * up), (anchor + 2 * up, anchor + 4 * up)] if up else []
        bounds += [(anchor + 2 * down, anchor + down), (anchor + 4 * down, anchor + 2 * down)] if down else []
        inside = [(max(low, support[0]), min(high, support[1])) for low, high in bounds]
        return tuple(Domain(low, high, False) for low, high in inside if low < high)


class Function(ABC):
    """Describes a named mathematical function of a Transformer. Subclasses register themselves in `FUNCTIONS`.

    Inputs are numbers, [N] for positions or [...] for elementwise functions. The values are `[N, width]` or
    `[heads, N]` for functions with such a shape, and have the shape of the inputs for elementwise functions.
    """

    name: ClassVar[str]
    located: str = ""
    """What `get_function` was asked for: the name, preceded by the file where it is in one of the user's."""
    slot: ClassVar[str]
    """The slot of a model that this function belongs in."""
    source: ClassVar[str]
    """Paper, section and equation."""
    closed_form: ClassVar[bool] = True
    """Whether it has a closed form; without one it is a trained table."""
    domain: ClassVar[Domain]
    """Where nets are fitted to it by default."""
    elementwise: ClassVar[bool] = False
    """Whether each value depends on the input in the same place alone."""
    default_shape: ClassVar[dict[str, int]] = {}
    """The shape arguments that it takes, with the values that a fit has by default."""
    optional_shape: ClassVar[tuple[str, ...]] = ()
    """More shape arguments, which may be left out: the function has values of its own for them."""
    trained_numbers: ClassVar[dict[str, float]] = {}
    """Numbers with their initial values that a slot trains in every arm; the function's inputs are computed by them."""
    tails: ClassVar[str] = ""
    """What it does outside its domain, in words."""
    asymptotes: ClassVar[tuple[Line | None, Line | None]] = (None, None)
    """The lines that it approaches far to the left and far to the right, None where it approaches none: a net in its
    place follows them outside its domain. Over a logarithmic domain lines of logarithms."""
    role: ClassVar[Role] = "elementwise"
    """How the slot's owner uses the values: added to embeddings, as a rotation, as a bias on scores, …"""
    support: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    """Where the function is defined at all."""
    kinks: ClassVar[tuple[float, ...]] = ()
    """Where its slope jumps: a fit has points there."""
    approximates: ClassVar[str] = ""
    """For a published approximation: the function that it approximates."""
    log_values: ClassVar[bool] = False
    """Whether values are positive and matter by their ratios: a net is then fitted to their logarithm."""
    takes: ClassVar[Takes] = "numbers"
    """The kind of an input; only a net of the same kind can stand in for the function."""
    fused: ClassVar[bool] = False
    """Whether a model's own fused operation computes this closed form, so that its slot need not be called."""
    fidelity_only: ClassVar[bool] = False
    """Whether it can be fitted though no model has a slot for it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "arms" in vars(cls):
            raise InputError(
                f"function {cls.__name__} lists arms, but it is the arms that say which functions they apply to: "
                f"remove the list, and override fittable(), correctable() or omissible() where the function is special."
            )

    @abstractmethod
    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute the function's values, in the dtype of the inputs."""

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute the derivative of the values by the input, in the shape of the values, by forward differentiation.

        An input of several numbers moves along `direction`.
        """
        moved = (self.direction(inputs),)
        slope: Tensor = torch.func.jvp(lambda x: self.analytic(x, **shape), (inputs,), moved)[1]
        return slope.detach()

    def direction(self, inputs: Tensor) -> Tensor:
        """Return the direction in which derivatives of a fidelity record are taken, in the shape of the inputs."""
        return torch.ones_like(inputs)

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms that apply to the function: each arm says to which it does."""
        arms = import_module("trans4init.ablations.slots.arms")  # by name: slots stand on functions
        return tuple(arms.arms_of(self))

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute what a model uses in the function's place when it is left out (arm `none`)."""
        raise InputError(f"{self.name} can't be left out of a model.")

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Compute the start of arm `free-table`, [rows, outputs]: the function's values where it has a closed form."""
        return self.as_rows(self.analytic(inputs, **shape))

    def table_index(self, inputs: Tensor, domain: Domain, **shape: int) -> Tensor:
        """Return the row that each integer input has in a table over `domain`, [N] to [N] int64."""
        return inputs.long() - int(domain.low)

    def open_ended(self) -> bool:
        """Return whether `table_index` has a row for every input, so that a table has no end."""
        return False

    def outputs(self, **shape: int) -> int:
        """Return how many values one input has; raises InputError for a shape that the function can't have."""
        self.check_shape(**shape)
        return 1

    def arrange(self, rows: Tensor) -> Tensor:
        """Bring one row of values per input, [..., outputs], into the layout of `analytic`."""
        return rows.squeeze(-1) if self.elementwise else rows

    def as_rows(self, values: Tensor) -> Tensor:
        """Bring values in the layout of `analytic` into one row per input, [..., outputs]: the inverse of `arrange`."""
        return values.unsqueeze(-1) if self.elementwise else values

    def gain_count(self, **shape: int) -> int:
        """Return how many gains arm `gained` trains: by default one for each value of a row."""
        return self.outputs(**shape)

    def gain_per_value(self, gains: Tensor, **shape: int) -> Tensor:
        """Return the gain of each value of a row, [outputs], from the `gain_count` gains."""
        return gains

    def points(self, domain: Domain, count: int = 1024, **shape: int) -> Tensor:
        """Return inputs that cover the domain, float64: [N], or [N, n] for a function of vectors."""
        points = domain.points(count)
        for kink in self.kinks:
            if domain.low < kink < domain.high:
                points[(points - kink).abs().argmin()] = kink
        return points

    def fittable(self) -> bool:
        """Return whether a net can be fitted to the function."""
        return self.closed_form

    def correctable(self) -> bool:
        """Return whether the values of a net may be added to the function's (arm `corrected`)."""
        return self.fittable()

    def omissible(self) -> bool:
        """Return whether a model can leave the function out (arm `none`): by default, if `left_out` is overridden."""
        return type(self).left_out is not Function.left_out

    def shape_in(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return the shape arguments that a model of these sizes gives to the function."""
        given = [name for name in self.optional_shape if name in sizes]
        return {name: sizes[name] for name in (*self.default_shape, *given)}

    def check_shape(self, **shape: int) -> None:
        """Raise InputError where a shape argument is missing, unknown or impossible."""
        if set(shape) - set(self.optional_shape) != set(self.default_shape):
            wanted = ", ".join(self.default_shape) or "no shape arguments"
            wanted += f" (or with {', '.join(self.optional_shape)})" if self.optional_shape else ""
            raise InputError(f"function {self.name!r} takes {wanted}, and {', '.join(shape) or 'none'} was given.")


FUNCTIONS: Registry[Function] = Registry("function")
