"""Nets that are a formula: a ratio of polynomials, a sum of waves, and a matrix.

B is any number of inputs, O the outputs.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize, Placed
from trans4init.ablations.settings.base import Field
from trans4init.ablations.settings.numbers import Count

__all__ = ["Fourier", "Linear", "Rational"]

_SMALLEST_WAVE = 1e-6
"""Singular values of waves below this share of the largest count as 0: their weights would be too large for float32."""


class RationalSize(NetSize):
    """Holds the degrees of numerator and denominator."""

    numerator: Annotated[int, Field(ge=0)] = 5
    """Degree of the polynomial above the line."""
    denominator: Count = 4
    """Degree of the polynomial below the line."""


@NETS.register
class Rational(Net):
    """Computes the ratio P(u) / (1 + |Q(u)|) of the scaled input u, which has no poles; Q is shared by all outputs."""

    name = "rational"
    source = "Molina et al. 2020, Padé Activation Units (safe PAU); Boullé et al. 2020, Rational Neural Networks"
    Size = RationalSize
    atlas_sizes = tuple({"numerator": m, "denominator": n} for m, n in ((3, 2), (5, 4), (7, 6)))
    atlas_position_sizes = ({"numerator": 7, "denominator": 6},)

    def __init__(self, domain: Domain, outputs: int, size: RationalSize) -> None:
        super().__init__(domain, outputs, size)
        self.numerator = nn.Parameter(torch.empty(size.numerator + 1, outputs, dtype=torch.float32))
        self.denominator = nn.Parameter(torch.empty(size.denominator, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [...] to [..., O]."""
        u = self.domain.coordinate(inputs)
        top = self.numerator.to(inputs.dtype)
        value = top[-1].expand(*u.shape, -1)
        for row in reversed(range(len(top) - 1)):
            value = value * u[..., None] + top[row]
        return value / self._below(u)[..., None]

    def _below(self, u: Tensor) -> Tensor:
        """Compute 1 + |Q(u)|, [B]; Q has no constant term."""
        bottom = self.denominator.to(u.dtype)
        value = torch.zeros_like(u)
        for coefficient in reversed(bottom.unbind()):
            value = (value + coefficient) * u
        return 1 + value.abs()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw 1 plus a random polynomial over 1 plus another; the numerator's deviation is 1 / √(its terms)."""
        self.numerator.normal_(0, 1 / math.sqrt(len(self.numerator)), generator=generator)
        self.numerator[0] += 1
        self.denominator.normal_(generator=generator)

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero the numerator."""
        self.numerator.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Solve for the numerator by least squares, in float64."""
        u = self.domain.coordinate(inputs.double())
        powers = u[:, None] ** torch.arange(len(self.numerator))
        design = powers / self._below(u)[:, None]
        self.numerator.copy_(torch.linalg.lstsq(design, targets.double(), driver="gelsd").solution)

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Solve P − f Q = f repeatedly, weighted by the last denominator (Sanathanan and Koerner 1963)."""
        if self.outputs != 1:
            return "no"
        u, f = self.domain.coordinate(inputs.double()), targets.double()
        top = u[:, None] ** torch.arange(len(self.numerator))
        bottom = u[:, None] ** torch.arange(1, len(self.denominator) + 1)
        weight, best = torch.ones_like(f), math.inf
        for _ in range(20):
            design = torch.cat([top, -f * bottom], dim=1) * weight
            solution = torch.linalg.lstsq(design, f * weight, driver="gelsd").solution[len(self.numerator) :, 0]
            before = self.denominator.clone()
            self.denominator.copy_(solution)
            self.solve_output(inputs, targets)
            error = (self(u * 0 + inputs)[:, 0] - f[:, 0]).abs().max().item()
            weight = 1 / (1 + bottom @ solution).abs().clamp_min(1e-3)[:, None]
            if error < best:
                best = error
            else:
                self.denominator.copy_(before)
        self.solve_output(inputs, targets)
        return "start"

    def flops(self) -> int:
        """Count Horner's rule for both polynomials, and one division per output."""
        return 2 * self.numerator.numel() + 2 * len(self.denominator) + 2 + self.outputs


class WavesSize(NetSize):
    """Holds the number of frequencies."""

    frequencies: Count = 64
    """Number of frequencies, each with a sine and a cosine."""


@NETS.register
class Fourier(Net):
    """Is a linear layer on sines and cosines of the input at F trained frequencies: periodic by construction."""

    name = "fourier"
    source = "Rahimi and Recht 2007, Random Features for Large-Scale Kernel Machines; frequencies placed by Prony 1795"
    Size = WavesSize
    atlas_sizes = ({"frequencies": 4}, {"frequencies": 16})
    atlas_position_sizes = ({"frequencies": 16}, {"frequencies": 64})

    def __init__(self, domain: Domain, outputs: int, size: WavesSize) -> None:
        super().__init__(domain, outputs, size)
        self.frequencies = nn.Parameter(torch.empty(size.frequencies, dtype=torch.float32))
        self.weight = nn.Parameter(torch.empty(2 * size.frequencies, outputs, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(outputs, dtype=torch.float32))

    def waves(self, inputs: Tensor) -> Tensor:
        """Compute [sin(x w), cos(x w)], [B, 2F]; on the reals x is the scaled input."""
        exact = inputs if self.domain.integer else self.domain.coordinate(inputs)
        angles = exact[..., None] * self.frequencies.to(inputs.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [...] to [..., O]."""
        result: Tensor = self.waves(inputs) @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)
        return result

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights; frequencies are geometric, from π per position (16 π on the reals) to 1 over the domain."""
        highest = math.pi if self.domain.integer else 16 * math.pi
        lowest = 1 / max(1.0, self.domain.high - self.domain.low) if self.domain.integer else 0.5
        steps = torch.arange(len(self.frequencies), dtype=torch.float32) / max(1, len(self.frequencies) - 1)
        self.frequencies.copy_(highest * (lowest / highest) ** steps)
        self.weight.normal_(0, 1 / math.sqrt(len(self.weight)), generator=generator)
        self.bias.zero_()

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero the last layer."""
        self.weight.zero_()
        self.bias.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Take the smallest least-squares solution, in float64: waves that nearly cancel don't get large weights."""
        waves = self.waves(inputs.double())
        design = torch.cat([waves, waves.new_ones(len(waves), 1)], dim=1)
        solution = torch.linalg.lstsq(design, targets.double(), rcond=_SMALLEST_WAVE, driver="gelsd").solution
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Find the frequency of each output by Prony's method, where every output is a single wave.

        The method solves y(n+1) + y(n−1) = 2 cos(w) y(n) for w by least squares. Outputs of equal frequency share it;
        each output has weights for its own frequency alone, so that nothing but the wave goes on outside the domain.
        """
        if not self.domain.integer or len(inputs) < 8:
            return "no"
        values = targets.double()
        middle, around = values[1:-1], values[2:] + values[:-2]
        cosines = (middle * around).sum(0) / middle.square().sum(0)
        by_output = torch.arccos((cosines / 2).clamp(-1, 1))  # [O]
        distinct = by_output.sort().values
        distinct = distinct[torch.cat([distinct.new_ones(1, dtype=torch.bool), distinct.diff() > 1e-6 * distinct[1:]])]
        if len(distinct) > len(self.frequencies) or not bool((by_output > 0).all()):
            return "no"
        drawn = self.frequencies.clone(), self.weight.clone(), self.bias.clone()
        self.frequencies[: len(distinct)] = distinct.to(self.frequencies.dtype)
        self.zero_output()
        exact = inputs.double()
        for index, frequency in enumerate(self.frequencies[: len(distinct)].double()):
            outputs = (by_output / distinct[index] - 1).abs() < 2e-6
            design = torch.stack([(exact * frequency).sin(), (exact * frequency).cos()], dim=1)
            solution = torch.linalg.lstsq(design, values[:, outputs], driver="gelsd").solution
            columns = outputs.nonzero()[:, 0]
            self.weight[index, columns] = solution[0].to(self.weight.dtype)
            self.weight[index + len(self.frequencies), columns] = solution[1].to(self.weight.dtype)
        error = (self(exact) - values).square().mean().sqrt()
        if error > 1e-3 * values.square().mean().sqrt():  # some output is not a single wave
            for parameter, value in zip((self.frequencies, self.weight, self.bias), drawn, strict=True):
                parameter.copy_(value)
            return "no"
        return "best"

    def flops(self) -> int:
        """Count two transcendental functions and a product per frequency, and two operations per weight."""
        return 3 * len(self.frequencies) + 2 * self.weight.numel() + self.outputs


class LinearSize(NetSize):
    """Has no options: the vectors determine the matrix's size."""


@NETS.register
class Linear(Net):
    """Is a trained matrix from vectors of n numbers to vectors of n numbers, with a bias."""

    name = "linear"
    source = "Vaswani et al. 2017, section 3.2.2: the linear layers of a Transformer"
    Size = LinearSize
    takes = "vectors"
    folds = "not: it is a matrix"
    atlas_position_sizes = ()

    def __init__(self, domain: Domain, outputs: int, size: LinearSize) -> None:
        if domain.integer:
            raise InputError(f"net 'linear' takes vectors of reals, and the domain is the integers {domain}.")
        super().__init__(domain, outputs, size)
        self.weight = nn.Parameter(torch.empty(outputs, outputs, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(outputs, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., n] to [..., n]."""
        result: Tensor = inputs @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)
        return result

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights from a normal distribution with variance 1 / n."""
        self.weight.normal_(0, 1 / math.sqrt(len(self.weight)), generator=generator)
        self.bias.zero_()

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero weight and bias."""
        self.weight.zero_()
        self.bias.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Solve by least squares in float64."""
        design = torch.cat([inputs.double(), inputs.new_ones(len(inputs), 1, dtype=torch.float64)], dim=1)
        solution = torch.linalg.lstsq(design, targets.double(), driver="gelsd").solution
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Set the least-squares optimum, which no training can improve."""
        self.solve_output(inputs, targets)
        return "best"

    def flops(self) -> int:
        """Count two per weight."""
        return 2 * self.weight.numel() + self.outputs
