"""What a net is: a small network from inputs to the values of a function, with a size and a cost."""

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
"""How far a net can be set from data without training: not at all ("no"), as a starting point for training ("start"),
or to its optimum ("best")."""


@dataclass(frozen=True)
class Pieces:
    """Is a piecewise-linear function of one number, float64: line k applies between kinks k − 1 and k."""

    kinks: Tensor
    """[K − 1], ascending."""
    slopes: Tensor
    """[K, outputs]."""
    intercepts: Tensor
    """[K, outputs]."""

    def value(self, inputs: Tensor) -> Tensor:
        """Map [...] to [..., outputs]."""
        piece = torch.bucketize(inputs, self.kinks)
        return self.intercepts[piece] + self.slopes[piece] * inputs[..., None]


class NetSize(BaseModel):
    """Holds the size of a net, as a study file may set it. Each net has a subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Net(nn.Module, ABC):
    """Maps inputs [...] to [..., outputs]. Subclasses register themselves in `NETS`.

    Parameters are float32; float64 inputs are evaluated in float64. The constructor leaves the parameters
    uninitialised: build a net with `build_net`, or call `initialise` first.
    """

    name: ClassVar[str]
    located: str = ""
    """What `build_net` was asked for: the name, preceded by the file where it is in one of the user's."""
    source: ClassVar[str]
    """Paper, section and equation."""
    Size: ClassVar[type[NetSize]]
    atlas_sizes: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """The sizes in which the atlas fits the net to functions of reals, the smallest first; {} is the default size."""
    atlas_position_sizes: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Likewise to functions of positions, which have many outputs."""
    size_on_reals: ClassVar[Mapping[str, Any]] = {}
    """What differs in the default size of a net for one value of a real, which takes less than a row for positions."""
    takes: ClassVar[Takes] = "numbers"
    """The kind of an input: a number; a vector [..., outputs]; or a row [..., n], with an output for each number."""
    folds: ClassVar[str] = "to a table over finite positions"
    """What a frozen net is folded to, in words."""

    def __init__(self, domain: Domain, outputs: int, size: NetSize) -> None:
        super().__init__()
        self.domain, self.outputs, self.size = domain, outputs, size

    def added_to(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Add the values of inputs [N] to every entry of a state [B, N, outputs], in the state's dtype."""
        values: Tensor = self(inputs)
        return state + values.to(state.dtype)

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator`, in a fixed order."""

    @abstractmethod
    def zero_output(self) -> None:
        """Make the net's values 0 everywhere, with gradients that are not 0: the start of a correction."""

    @abstractmethod
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Set the last, linear layer to its least-squares optimum on inputs [N], targets [N, outputs]."""

    @abstractmethod
    def flops(self) -> int:
        """Return the floating-point operations for one input; a transcendental function counts as one."""

    def points_wanted(self) -> int:
        """Return at how many reals the net is fitted."""
        return 1024

    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Set the net from inputs [N], ascending, and targets [N, outputs], float64, where it knows how."""
        return "no"

    def pieces(self) -> Pieces | None:
        """Return the net as a piecewise-linear function of its input; None where it isn't exactly one."""
        return None

    def alike(self) -> tuple[object, ...]:
        """Return what two nets must share to be evaluated by one call of `stacked`."""
        return type(self), self.size, self.domain, self.outputs

    def widest(self, nets: Sequence["Net"]) -> "Net":
        """Return a net that all of `nets`, which are alike, fit into when zeros are put behind their values."""
        return self

    def stacked(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Evaluate M nets like this one: parameters and buffers by name, [M, ...]; inputs [N] to [M, N, outputs]."""

        def evaluate(weights: dict[str, Tensor]) -> Tensor:
            values: Tensor = torch.func.functional_call(self, weights, (inputs,))
            return values

        if all(len(value) == 1 for value in parameters.values()):  # vmap would cost a third of a training step
            return evaluate({name: value[0] for name, value in parameters.items()})[None]
        result: Tensor = torch.func.vmap(evaluate)(dict(parameters))
        return result

    def parameter_count(self) -> int:
        """Return the number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def description(self) -> dict[str, Any]:
        """Return what `net_from_description` needs to build the same net again, JSON-ready."""
        return {
            "net": self.located or self.name,
            "size": self.size.model_dump(mode="json"),
            "domain": [self.domain.low, self.domain.high, self.domain.integer, *([True] if self.domain.log else [])],
            "outputs": self.outputs,
        }


NETS: Registry[Net] = Registry("net")
