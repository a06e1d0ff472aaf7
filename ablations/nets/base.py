"""What a net is: a small network from scalars to the values of a function, with a size, a cost and a card."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trans4init.ablations.functions import Domain
from trans4init.ablations.functions.base import Takes
from trans4init.ablations.registry import Registry
from trans4init.ablations.settings.base import BaseModel, ConfigDict

__all__ = ["NETS", "Net", "NetSize", "Pieces", "Placed"]

Placed = Literal["no", "start", "best"]
"""Whether a net could start from the data: not, to be trained on from there, or as the best that it can be."""


@dataclass(frozen=True)
class Pieces:
    """A piecewise-linear function of one number, float64: line k holds between kinks k − 1 and k."""

    kinks: Tensor
    """[K − 1], ascending."""
    slopes: Tensor
    """[K, outputs]."""
    intercepts: Tensor
    """[K, outputs]."""

    def value(self, inputs: Tensor) -> Tensor:
        """[...] to [..., outputs]."""
        piece = torch.bucketize(inputs, self.kinks)
        return self.intercepts[piece] + self.slopes[piece] * inputs[..., None]


class NetSize(BaseModel):
    """The size of a net: what a study file may set. Each net has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Net(nn.Module, ABC):
    """A network from inputs [...] to [..., outputs]. Subclasses register themselves in `NETS`.

    Parameters are float32; inputs of float64 are evaluated in float64. The constructor leaves them undrawn: build a
    net with `build_net`, or call `initialise` before anything else.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    Size: ClassVar[type[NetSize]]
    takes: ClassVar[Takes] = "numbers"
    """What one input is: a vector is [..., outputs], a row [..., n] with one output for each of its n numbers."""
    folds: ClassVar[str] = "to a table over finite positions"
    """What the net becomes where it doesn't change, in words."""

    def __init__(self, domain: Domain, outputs: int, size: NetSize) -> None:
        super().__init__()
        self.domain, self.outputs, self.size = domain, outputs, size

    def added_to(self, state: Tensor, inputs: Tensor) -> Tensor:
        """The values of inputs [N] added to every entry of a state [B, N, outputs], in the state's dtype."""
        values: Tensor = self(inputs)
        return state + values.to(state.dtype)

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw every parameter anew from `generator`, in a fixed order."""

    @abstractmethod
    def zero_output(self) -> None:
        """Make the net 0 everywhere, with gradients that are not: the start of a correction."""

    @abstractmethod
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Set the last, linear layer to its least-squares optimum on inputs [N], targets [N, outputs]."""

    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations for one input; a transcendental function counts as one."""

    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Start from the data where the net knows how: inputs [N] ascending, targets [N, outputs], float64."""
        return "no"

    def pieces(self) -> Pieces | None:
        """The net as the piecewise-linear function of its input that it exactly is; None where it isn't one."""
        return None

    def alike(self) -> tuple[object, ...]:
        """What two nets must share to be `stacked`."""
        return type(self), self.size, self.domain, self.outputs

    def widest(self, nets: Sequence["Net"]) -> "Net":
        """A net that all of `nets`, which are alike, fit into with zeros behind their values."""
        return self

    def stacked(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """M nets like this one at once: parameters and buffers by name, [M, ...]; inputs [N] to [M, N, outputs]."""

        def one(own: dict[str, Tensor]) -> Tensor:
            values: Tensor = torch.func.functional_call(self, own, (inputs,))
            return values

        result: Tensor = torch.func.vmap(one)(dict(parameters))
        return result

    def parameter_count(self) -> int:
        """The number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def card(self) -> dict[str, Any]:
        """What is needed to build the same net again, JSON-ready."""
        return {
            "net": self.name,
            "size": self.size.model_dump(mode="json"),
            "domain": [self.domain.low, self.domain.high, self.domain.integer, *([True] if self.domain.log else [])],
            "outputs": self.outputs,
        }


NETS: Registry[Net] = Registry("net")
