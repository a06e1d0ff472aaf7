"""Nets of a whole row of numbers: what one of them gives depends on all, in whatever order they stand.

B is any number of rows, n the numbers of a row, S the summed features, H the hidden width.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize
from trans4init.ablations.settings.base import Field

__all__ = ["DeepSet"]

_RIDGE = 1e-8
"""Of the mean square of the hidden layer: keeps the least-squares weights small where features are collinear."""


class DeepSetSize(NetSize):
    """Summed features, and hidden units of what is made of them."""

    summed: Annotated[int, Field(ge=1)] = 2
    hidden: Annotated[int, Field(ge=1)] = 16


@NETS.register
class DeepSet(Net):
    """For each number x of a row, sigmoids of x and of log Σ softplus(features of every number); then a linear layer.

    A number of −∞ is no part of the row, and has the value 0. Rows may have any length.
    """

    name = "deep-set"
    source = "Zaheer et al. 2017, Deep Sets, theorem 2 (a function of a set is ρ of a sum over its members)"
    Size = DeepSetSize
    takes = "rows"
    folds = "not: its inputs are rows"

    def __init__(self, domain: Domain, outputs: int, size: DeepSetSize) -> None:
        super().__init__(domain, outputs, size)
        self.features = nn.Parameter(torch.empty(2, size.summed))
        self.own = nn.Parameter(torch.empty(size.hidden))
        self.all = nn.Parameter(torch.empty(size.summed, size.hidden))
        self.shift = nn.Parameter(torch.empty(size.hidden))
        self.weight = nn.Parameter(torch.empty(size.hidden, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def hidden(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden layer of each number, [B, n, H], and which numbers there are, [B, n, 1]."""
        seen = (inputs > -math.inf)[..., None]
        place = self.domain.coordinate(inputs.masked_fill(~seen[..., 0], 0.0))[..., None]
        rate, shift = self.features.to(inputs.dtype)
        summed = F.softplus(place * rate + shift).masked_fill(~seen, 0.0).sum(dim=-2, keepdim=True)  # [B, 1, S]
        together = summed.clamp_min(torch.finfo(inputs.dtype).tiny).log() @ self.all.to(inputs.dtype)
        return torch.sigmoid(place * self.own.to(inputs.dtype) + together + self.shift.to(inputs.dtype)), seen

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, n] to [B, n, outputs]."""
        hidden, seen = self.hidden(inputs)
        values = hidden @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)
        return values.masked_fill(~seen, 0.0)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Each unit is a sigmoid of how far a number is above the logarithm of the row's sum, at some rate."""
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
        """Ridge regression in float64 over the numbers that there are."""
        hidden, seen = self.hidden(inputs.double())
        there = seen[..., 0]
        design, wanted = hidden[there], targets.double()[there]
        design = torch.cat([design, design.new_ones(len(design), 1)], dim=1)
        penalty = _RIDGE * design.square().sum() / design.shape[1]
        gram = design.T @ design + penalty * torch.eye(design.shape[1], dtype=design.dtype)
        solution = torch.linalg.solve(gram, design.T @ wanted)
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def flops(self) -> int:
        """For one number of a row; what is computed once for all of a row is left out."""
        summed, hidden = self.all.shape
        return 4 * summed + 4 * hidden + 2 * self.weight.numel() + self.outputs
