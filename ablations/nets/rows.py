"""Nets of a whole row of numbers: the value for each number depends on all of them, not on their order.

B is any number of rows, n the numbers of a row, S the summed features, H the hidden width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize
from trans4init.ablations.settings.numbers import Count

__all__ = ["DeepSet"]

_RIDGE = 1e-8
"""Ridge penalty as a fraction of the hidden layer's mean square: keeps weights of collinear units small."""


class DeepSetSize(NetSize):
    """Holds the number of summed features, and of hidden units."""

    summed: Count = 2
    """Number of features that are summed over a row."""
    hidden: Count = 16
    """Number of hidden units of each number of a row."""


@NETS.register
class DeepSet(Net):
    """Is a linear layer on sigmoids of each number x of a row and log Σ softplus(features of every number in the row).

    A number of −∞ pads the row, and has the value 0. Rows may have any length.
    """

    name = "deep-set"
    source = "Zaheer et al. 2017, Deep Sets, theorem 2 (a function of a set is ρ of a sum over its members)"
    Size = DeepSetSize
    takes = "rows"
    folds = "not: its inputs are rows"
    atlas_sizes = ({"summed": 2, "hidden": 8}, {"summed": 4, "hidden": 32})
    atlas_position_sizes = ()

    def __init__(self, domain: Domain, outputs: int, size: DeepSetSize) -> None:
        super().__init__(domain, outputs, size)
        self.features = nn.Parameter(torch.empty(2, size.summed, dtype=torch.float32))
        self.own = nn.Parameter(torch.empty(size.hidden, dtype=torch.float32))
        self.all = nn.Parameter(torch.empty(size.summed, size.hidden, dtype=torch.float32))
        self.shift = nn.Parameter(torch.empty(size.hidden, dtype=torch.float32))
        self.weight = nn.Parameter(torch.empty(size.hidden, outputs, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(outputs, dtype=torch.float32))

    def hidden(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the hidden layer of each number, [B, n, H], and which numbers are not padding, [B, n, 1]."""
        real = (inputs > -math.inf)[..., None]
        place = self.domain.coordinate(inputs.masked_fill(~real[..., 0], 0.0))[..., None]
        rate, shift = self.features.to(inputs.dtype)
        summed = F.softplus(place * rate + shift).masked_fill(~real, 0.0).sum(dim=-2, keepdim=True)  # [B, 1, S]
        together = summed.clamp_min(torch.finfo(inputs.dtype).tiny).log() @ self.all.to(inputs.dtype)
        return torch.sigmoid(place * self.own.to(inputs.dtype) + together + self.shift.to(inputs.dtype)), real

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, n] to [B, n, outputs]."""
        hidden, real = self.hidden(inputs)
        values = hidden @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)
        return values.masked_fill(~real, 0.0)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw units that are sigmoids of how far a number is above the logarithm of the row's sum, at some rate."""
        half = (self.domain.high - self.domain.low) / 2
        self.features[0].uniform_(0.5 * half, 1.5 * half, generator=generator)
        self.features[1].uniform_(-half, 0, generator=generator)
        self.own.uniform_(0.5, 2, generator=generator)
        self.all.copy_((-self.own / len(self.all)).expand_as(self.all))
        self.own.mul_(half)
        self.shift.uniform_(-half, half, generator=generator)
        self.weight.normal_(0, 1 / math.sqrt(len(self.weight)), generator=generator)
        self.bias.zero_()

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero the last layer."""
        self.weight.zero_()
        self.bias.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Solve by ridge regression in float64, without padding."""
        hidden, real = self.hidden(inputs.double())
        design, wanted = hidden[real[..., 0]], targets.double()[real[..., 0]]
        design = torch.cat([design, design.new_ones(len(design), 1)], dim=1)
        penalty = _RIDGE * design.square().sum() / design.shape[1]
        gram = design.T @ design + penalty * torch.eye(design.shape[1], dtype=design.dtype)
        solution = torch.linalg.solve(gram, design.T @ wanted)
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def flops(self) -> int:
        """Count what one number of a row costs, without what is computed once for the row."""
        summed, hidden = self.all.shape
        return 4 * summed + 4 * hidden + 2 * self.weight.numel() + self.outputs
