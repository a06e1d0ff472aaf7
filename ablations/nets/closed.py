"""Nets with a formula of their own: ratios of polynomials, sums of waves, and a matrix.

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

__all__ = ["Fourier", "Linear", "Rational"]

_SMALLEST_WAVE = 1e-6
"""Singular values of waves below this share of the largest count as 0: their weights would be too large for float32."""


class RationalSize(NetSize):
    """Degrees of numerator and denominator."""

    numerator: Annotated[int, Field(ge=0)] = 5
    denominator: Annotated[int, Field(ge=1)] = 4


@NETS.register
class Rational(Net):
    """P(u) / (1 + |Q(u)|), u the scaled input, Q without constant term and the same for every output: no poles."""

    name = "rational"
    source = "Molina et al. 2020, Padé Activation Units (safe PAU); Boullé et al. 2020, Rational Neural Networks"
    Size = RationalSize

    def __init__(self, domain: Domain, outputs: int, size: RationalSize) -> None:
        super().__init__(domain, outputs, size)
        self.numerator = nn.Parameter(torch.empty(size.numerator + 1, outputs))
        self.denominator = nn.Parameter(torch.empty(size.denominator))

    def forward(self, inputs: Tensor) -> Tensor:
        """[...] to [..., O]."""
        u = self.domain.coordinate(inputs)
        top = self.numerator.to(inputs.dtype)
        value = top[-1].expand(*u.shape, -1)
        for row in reversed(range(len(top) - 1)):
            value = value * u[..., None] + top[row]
        return value / self._below(u)[..., None]

    def _below(self, u: Tensor) -> Tensor:
        """1 + |Q(u)|, [B]."""
        bottom = self.denominator.to(u.dtype)
        value = torch.zeros_like(u)
        for coefficient in reversed(bottom.unbind()):
            value = (value + coefficient) * u
        return 1 + value.abs()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """1 plus a random polynomial, over 1 plus another: standard deviations of 1 over the root of the terms."""
        self.numerator.normal_(0, 1 / math.sqrt(len(self.numerator)), generator=generator)
        self.numerator[0] += 1
        self.denominator.normal_(generator=generator)

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero the numerator."""
        self.numerator.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Least squares over the numerator, in float64."""
        u = self.domain.coordinate(inputs.double())
        powers = u[:, None] ** torch.arange(len(self.numerator))
        design = powers / self._below(u)[:, None]
        self.numerator.copy_(torch.linalg.lstsq(design, targets.double(), driver="gelsd").solution)

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Linearised, P − f Q = f, weighed by the last denominator, again and again (Sanathanan and Koerner 1963)."""
        if self.outputs != 1:
            return "no"
        u, f = self.domain.coordinate(inputs.double()), targets.double()
        top = u[:, None] ** torch.arange(len(self.numerator))
        bottom = u[:, None] ** torch.arange(1, len(self.denominator) + 1)
        weight, best = torch.ones_like(f), math.inf
        for _ in range(20):
            design = torch.cat([top, -f * bottom], dim=1) * weight
            solution = torch.linalg.lstsq(design, f * weight, driver="gelsd").solution[len(self.numerator) :, 0]
            kept = self.denominator.clone()
            self.denominator.copy_(solution)
            self.solve_output(inputs, targets)
            error = (self(u * 0 + inputs)[:, 0] - f[:, 0]).abs().max().item()
            weight = 1 / (1 + bottom @ solution).abs().clamp_min(1e-3)[:, None]
            if error < best:
                best = error
            else:
                self.denominator.copy_(kept)
        self.solve_output(inputs, targets)
        return "start"

    def flops(self) -> int:
        """Horner's rule above and below, one division per output."""
        return 2 * self.numerator.numel() + 2 * len(self.denominator) + 2 + self.outputs


class WavesSize(NetSize):
    """How many frequencies."""

    frequencies: Annotated[int, Field(ge=1)] = 64


@NETS.register
class Fourier(Net):
    """Sines and cosines of the input at F trained frequencies, and a linear layer: periodic by construction."""

    name = "fourier"
    source = "Rahimi and Recht 2007, Random Features for Large-Scale Kernel Machines; frequencies placed by Prony 1795"
    Size = WavesSize

    def __init__(self, domain: Domain, outputs: int, size: WavesSize) -> None:
        super().__init__(domain, outputs, size)
        self.frequencies = nn.Parameter(torch.empty(size.frequencies))
        self.weight = nn.Parameter(torch.empty(2 * size.frequencies, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def waves(self, inputs: Tensor) -> Tensor:
        """[sin(x w), cos(x w)], [B, 2F]; of the scaled input on the reals."""
        exact = inputs if self.domain.integer else self.domain.coordinate(inputs)
        angles = exact[..., None] * self.frequencies.to(inputs.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """[...] to [..., O]."""
        result: Tensor = self.waves(inputs) @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)
        return result

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Frequencies geometric from π per position (16 π over the reals) to one radian over the domain."""
        highest = math.pi if self.domain.integer else 16 * math.pi
        lowest = 1 / max(1.0, self.domain.high - self.domain.low) if self.domain.integer else 0.5
        steps = torch.arange(len(self.frequencies)) / max(1, len(self.frequencies) - 1)
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
        """The smallest least-squares solution, in float64; waves that nearly cancel get no weights that do."""
        waves = self.waves(inputs.double())
        design = torch.cat([waves, waves.new_ones(len(waves), 1)], dim=1)
        solution = torch.linalg.lstsq(design, targets.double(), rcond=_SMALLEST_WAVE, driver="gelsd").solution
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Each output's own frequency by Prony's method, where every output is one wave.

        That is y(n+1) + y(n−1) = 2 cos(w) y(n), solved for w by least squares.

        Outputs share a frequency where theirs are the same; each then reads its own alone, so that nothing but the
        wave goes on outside the domain.
        """
        if not self.domain.integer or len(inputs) < 8:
            return "no"
        values = targets.double()
        middle, around = values[1:-1], values[2:] + values[:-2]
        cosines = (middle * around).sum(0) / middle.square().sum(0)
        own = torch.arccos((cosines / 2).clamp(-1, 1))  # [O]
        found = own.sort().values
        found = found[torch.cat([found.new_ones(1, dtype=torch.bool), found.diff() > 1e-6 * found[1:]])]
        if len(found) > len(self.frequencies) or not bool((own > 0).all()):
            return "no"
        kept = self.frequencies.clone(), self.weight.clone(), self.bias.clone()
        self.frequencies[: len(found)] = found.to(self.frequencies.dtype)
        self.zero_output()
        exact = inputs.double()
        for index, frequency in enumerate(self.frequencies[: len(found)].double()):
            mine = (own / found[index] - 1).abs() < 2e-6
            design = torch.stack([(exact * frequency).sin(), (exact * frequency).cos()], dim=1)
            solution = torch.linalg.lstsq(design, values[:, mine], driver="gelsd").solution
            columns = mine.nonzero()[:, 0]
            self.weight[index, columns] = solution[0].to(self.weight.dtype)
            self.weight[index + len(self.frequencies), columns] = solution[1].to(self.weight.dtype)
        error = (self(exact) - values).square().mean().sqrt()
        if error > 1e-3 * values.square().mean().sqrt():  # not one wave each
            for parameter, value in zip((self.frequencies, self.weight, self.bias), kept, strict=True):
                parameter.copy_(value)
            return "no"
        return "best"

    def flops(self) -> int:
        """Two transcendental functions and a product per frequency, two operations per weight."""
        return 3 * len(self.frequencies) + 2 * self.weight.numel() + self.outputs


class LinearSize(NetSize):
    """A matrix has the size of its vectors."""


@NETS.register
class Linear(Net):
    """A trained matrix from vectors of n numbers to vectors of n numbers, with a bias."""

    name = "linear"
    source = "Vaswani et al. 2017, section 3.2.2: the linear layers of a Transformer"
    Size = LinearSize
    takes = "vectors"
    folds = "not: it is a matrix"

    def __init__(self, domain: Domain, outputs: int, size: LinearSize) -> None:
        if domain.integer:
            raise InputError(f"net 'linear' is of vectors of reals, and integers {domain} were asked for.")
        super().__init__(domain, outputs, size)
        self.weight = nn.Parameter(torch.empty(outputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., n]."""
        result: Tensor = inputs @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)
        return result

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Normal with variance 1 / n."""
        self.weight.normal_(0, 1 / math.sqrt(len(self.weight)), generator=generator)
        self.bias.zero_()

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero all."""
        self.weight.zero_()
        self.bias.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Least squares in float64."""
        design = torch.cat([inputs.double(), inputs.new_ones(len(inputs), 1, dtype=torch.float64)], dim=1)
        solution = torch.linalg.lstsq(design, targets.double(), driver="gelsd").solution
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """The least-squares optimum, which is all that the net can do."""
        self.solve_output(inputs, targets)
        return "best"

    def flops(self) -> int:
        """Two per weight."""
        return 2 * self.weight.numel() + self.outputs
