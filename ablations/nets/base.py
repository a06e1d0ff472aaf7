"""What a net is: a small network from scalars to the values of a function, with a size, a cost and a card."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from trans4init.ablations.functions import Domain
from trans4init.ablations.registry import Registry

__all__ = ["NETS", "Net", "NetSize"]


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

    def __init__(self, domain: Domain, outputs: int, size: NetSize) -> None:
        super().__init__()
        self.domain, self.outputs, self.size = domain, outputs, size

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

    def parameter_count(self) -> int:
        """The number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def card(self) -> dict[str, Any]:
        """What is needed to build the same net again, JSON-ready."""
        return {
            "net": self.name,
            "size": self.size.model_dump(mode="json"),
            "domain": [self.domain.low, self.domain.high, self.domain.integer],
            "outputs": self.outputs,
        }


NETS: Registry[Net] = Registry("net")
