"""What a function is: an analytic form on a domain, with a shape contract, a derivative and a source."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.registry import Registry

__all__ = ["FUNCTIONS", "Domain", "Function"]


@dataclass(frozen=True)
class Domain:
    """The inputs for which a function is asked for: the integers low..high, or the reals between them."""

    low: float
    high: float
    integer: bool

    def __post_init__(self) -> None:
        if self.low > self.high or (self.low == self.high and not self.integer):
            raise InputError(f"a domain goes from low to high, and {self.low:g}..{self.high:g} was given.")

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    def points(self, count: int = 1024) -> Tensor:
        """All integers of the domain, or `count` evenly spaced reals with both ends. [N] float64."""
        if self.integer:
            return torch.arange(int(self.low), int(self.high) + 1, dtype=torch.float64)
        return torch.linspace(self.low, self.high, count, dtype=torch.float64)

    def beyond(self) -> tuple["Domain", "Domain"]:
        """The stretches outside that reach 1 to 2 and 2 to 4 times as far: where it has not been fitted."""
        size = self.high - self.low + (1 if self.integer else 0)
        start = self.low + size
        gap = 1 if self.integer else 0
        return (
            Domain(start, start + size - gap, self.integer),
            Domain(start + size, start + 3 * size - gap, self.integer),
        )


class Function(ABC):
    """A named mathematical function of a Transformer. Subclasses register themselves in `FUNCTIONS`.

    The inputs are always a tensor of scalars, [N] for positions or [...] for elementwise functions; what comes out
    is `[N, outputs]` for functions with a shape (`width=…`), and has the shape of the inputs for elementwise ones.
    """

    name: ClassVar[str]
    slot: ClassVar[str]
    """The slot of a model that this function belongs in."""
    source: ClassVar[str]
    """Paper, section and equation."""
    arms: ClassVar[tuple[str, ...]]
    """The arms that make sense for it."""
    domain: ClassVar[Domain]
    """Where it is fitted unless something else is asked for."""
    elementwise: ClassVar[bool] = False
    default_shape: ClassVar[dict[str, int]] = {}
    """The shape arguments that it takes, with the values of a fit that doesn't say."""
    tails: ClassVar[str] = ""
    """What it does outside its domain, in words."""

    @abstractmethod
    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """The function's value, in the dtype of the inputs."""

    @abstractmethod
    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """The derivative of the value by the input, same shape as the value."""

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """What a model computes in its place when the function is left out (arm `none`)."""
        raise InputError(f"{self.name} can't be left out of a model.")

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """The start of arm `free-table`: the function's values, unless the function has none."""
        return self.analytic(inputs, **shape)

    def outputs(self, **shape: int) -> int:
        """How many values there are for one input; raises InputError for a shape the function doesn't have."""
        return 1

    def check_shape(self, **shape: int) -> None:
        """Raise InputError where a shape argument is missing, unknown or impossible."""
        if set(shape) != set(self.default_shape):
            wanted = ", ".join(self.default_shape) or "no shape arguments"
            raise InputError(f"function {self.name!r} takes {wanted}, and {', '.join(shape) or 'none'} was given.")


FUNCTIONS: Registry[Function] = Registry("function")
