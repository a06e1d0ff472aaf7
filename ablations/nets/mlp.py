"""Multilayer perceptrons of one scalar: features of the input, hidden layers, a linear last layer.

B is any number of inputs, F the number of features, H a hidden width.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize, Pieces, Placed
from trans4init.ablations.nets.best_relu import best_relu_units, resampled
from trans4init.ablations.settings.base import Field
from trans4init.kernels.positional_mlp import ACTIVATIONS, FEATURES, positional_mlp

__all__ = ["FourierMlp", "Mlp", "MlpGelu", "MlpRelu", "ScalarMLP", "Siren"]

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

_RIDGE = 1e-7
"""Of the mean square of the last hidden layer: keeps the least-squares weights small where features are collinear."""

_PAPER_OMEGA = 30.0
"""SIREN's first frequency for inputs in [-1, 1] (section 3.2)."""


class MlpSize(NetSize):
    """Hidden widths, first to last."""

    hidden: Widths = (128, 128)


class SirenSize(MlpSize):
    """`omega`: the largest first frequency in radians per unit of the scaled input; 0 takes it from the domain."""

    omega: float = Field(default=0.0, ge=0)


class FourierSize(MlpSize):
    """How many frequencies the features have, and whether they are trained or stay where they start."""

    hidden: Widths = (256,)
    frequencies: int = Field(default=32, ge=1)
    fixed: bool = False


class ScalarMLP(Net):
    """x -> features(x) -> [activation(W h + b)] once or more -> W h + b."""

    Size = MlpSize
    size: MlpSize
    feature: str = "linear"
    activation: str

    def __init__(self, domain: Domain, outputs: int, size: MlpSize, features: int = 1) -> None:
        super().__init__(domain, outputs, size)
        widths = [features, *size.hidden, outputs]
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(i, o)) for i, o in pairwise(widths))
        self.biases = nn.ParameterList(nn.Parameter(torch.empty(o)) for o in widths[1:])

    def scalars(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What the features are made of: the input scaled to [-1, 1] on the domain, and a frequency of 1."""
        return self.domain.coordinate(inputs), inputs.new_ones(1)

    def hidden(self, inputs: Tensor) -> Tensor:
        """The last hidden layer, [B, H]."""
        state = FEATURES[self.feature](*self.scalars(inputs))
        layers = list(zip(self.weights, self.biases, strict=True))  # a slice of a ParameterList makes new parameters
        for weight, bias in layers[:-1]:
            state = ACTIVATIONS[self.activation](state @ weight.to(inputs.dtype) + bias.to(inputs.dtype))
        return state

    def forward(self, inputs: Tensor) -> Tensor:
        """[...] to [..., outputs]."""
        if not self._operator_takes_it():
            last = self.weights[-1].to(inputs.dtype), self.biases[-1].to(inputs.dtype)
            values: Tensor = self.hidden(inputs) @ last[0] + last[1]
            return values
        return self._operator(inputs.reshape(-1), None).view(*inputs.shape, self.outputs)

    def added_to(self, state: Tensor, inputs: Tensor) -> Tensor:
        """In one pass over the state, where the operator takes the net."""
        return self._operator(inputs, state) if self._operator_takes_it() else super().added_to(state, inputs)

    def _operator_takes_it(self) -> bool:
        return self.domain.integer and len(self.weights) <= 4  # activations may be infinite; it takes 3 hidden layers

    def _operator(self, inputs: Tensor, add_to: Tensor | None) -> Tensor:
        positions, frequencies = self.scalars(inputs)
        return positional_mlp(
            positions,
            frequencies,
            [weight.to(inputs.dtype)[None] for weight in self.weights],
            [bias.to(inputs.dtype)[None] for bias in self.biases],
            features=self.feature,
            activation=self.activation,
            add_to=add_to,
        )

    def alike(self) -> tuple[object, ...]:
        """All but the hidden widths, of which there must be as many: 1 to 3, as `positional_mlp` takes."""
        hidden = self.size.hidden
        depth = len(hidden) if len(hidden) <= 3 else hidden
        return type(self), self.size.model_copy(update={"hidden": ()}), depth, self.domain, self.outputs

    def widest(self, nets: Sequence[Net]) -> Net:
        """Of the largest width in each layer: every activation is 0 at 0, so that units of weight 0 stay there."""
        widths = [net.size.hidden for net in nets if isinstance(net, ScalarMLP)]
        widest = tuple(max(layer) for layer in zip(*widths, strict=True))
        size = self.size.model_copy(update={"hidden": widest})
        return type(self)(self.domain, self.outputs, size)

    def stacked(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """[N] to [M, N, outputs], by one call of `positional_mlp` up to its depth."""
        if len(self.weights) > 4:
            return super().stacked(parameters, inputs)
        positions, frequencies = self.scalars(inputs)
        return positional_mlp(
            positions,
            parameters.get("frequencies", frequencies).to(inputs.dtype),
            [parameters[f"weights.{layer}"].to(inputs.dtype) for layer in range(len(self.weights))],
            [parameters[f"biases.{layer}"].to(inputs.dtype) for layer in range(len(self.weights))],
            features=self.feature,
            activation=self.activation,
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """He et al. 2015, with kinks spread over the domain: the first layer's biases are uniform."""
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            fan_in, last = weight.shape[0], index == len(self.weights) - 1
            weight.normal_(0, math.sqrt((1 if last else 2) / fan_in), generator=generator)
            bias.zero_()
            if index == 0:
                bias.uniform_(-1, 1, generator=generator)
                bias.mul_(weight.square().sum(0).sqrt())

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero the last layer."""
        self.weights[-1].zero_()
        self.biases[-1].zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Ridge regression in float64."""
        hidden = self.hidden(inputs.double())
        design = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        penalty = _RIDGE * design.square().sum() / design.shape[1]
        gram = design.T @ design + penalty * torch.eye(design.shape[1], dtype=design.dtype)
        solution = torch.linalg.solve(gram, design.T @ targets.double())
        self.weights[-1].copy_(solution[:-1])
        self.biases[-1].copy_(solution[-1])

    def flops(self) -> int:
        """Two per weight, and bias, activation and features once each."""
        products = sum(2 * weight.numel() for weight in self.weights)
        sums = sum(bias.numel() for bias in self.biases)
        activations = sums - self.outputs
        return int(products + sums + activations + 2 * self.weights[0].shape[0])


@NETS.register
class MlpGelu(ScalarMLP):
    """A plain MLP of the scaled input with GELU."""

    name = "mlp-gelu"
    activation = "gelu"
    source = "Hendrycks and Gimpel 2016; Hornik 1991"


@NETS.register
class MlpRelu(ScalarMLP):
    """A plain MLP of the scaled input with ReLU: piecewise linear in its input."""

    name = "mlp-relu"
    activation = "relu"
    source = "Nair and Hinton 2010; Arora et al. 2018, Understanding Deep Neural Networks with ReLU, theorem 2.2"
    folds = "to a table over finite positions; with one hidden layer exactly to the kinks and lines that it is"

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """One hidden layer and one output: the kinks of the smallest largest error. Else from the random start."""
        if len(self.weights) != 2 or self.outputs != 1 or len(inputs) < 2:
            return "no"
        x, y = self.domain.coordinate(inputs).numpy(), targets[:, 0].numpy()
        units = self.weights[0].shape[1]
        if not self.domain.integer:
            x, y = resampled(x, y, 801, units + 1)
        found = best_relu_units(x, y, units)
        side = torch.from_numpy(1.0 - 2.0 * found.left)
        self.weights[0].copy_(side[None])
        self.biases[0].copy_(-side * torch.from_numpy(found.kinks))
        self.weights[1].copy_(torch.from_numpy(found.changes)[:, None])
        self.biases[1].fill_(found.offset)
        return "best"

    @torch.no_grad()
    def pieces(self) -> Pieces | None:
        """With one hidden layer: kinks where units switch, and the sum of those that are on between them."""
        if len(self.weights) != 2 or self.domain.log:
            return None
        middle = (self.domain.high + self.domain.low) / 2
        half = (self.domain.high - self.domain.low) / 2 or 1.0
        slope = self.weights[0].double()[0] / half
        shift = self.biases[0].double() - self.weights[0].double()[0] * middle / half
        bends = slope != 0
        kinks = torch.unique(-shift[bends] / slope[bends])
        ends = (
            torch.cat([kinks[:1] - 1, (kinks[1:] + kinks[:-1]) / 2, kinks[-1:] + 1])
            if len(kinks)
            else kinks.new_zeros(1)
        )
        on = (ends[:, None] * slope + shift > 0).double()  # [K, H]
        last = self.weights[1].double()
        return Pieces(kinks, (on * slope) @ last, (on * shift) @ last + self.biases[1].double())


class MlpChoice(MlpSize):
    """Hidden widths of any number, and the activation between them."""

    activation: Literal["relu", "gelu", "silu", "tanh", "sin"] = "silu"


@NETS.register
class Mlp(ScalarMLP):
    """A plain MLP of the scaled input: any depth, width and activation."""

    name = "mlp"
    source = "Hornik 1991, Approximation Capabilities of Multilayer Feedforward Networks"
    Size = MlpChoice

    def __init__(self, domain: Domain, outputs: int, size: MlpChoice) -> None:
        super().__init__(domain, outputs, size)
        self.activation = size.activation


@NETS.register
class Siren(ScalarMLP):
    """An MLP with sine activations whose first layer spans the frequencies that the domain can hold."""

    name = "siren"
    activation = "sin"
    source = "Sitzmann et al. 2020, Implicit Neural Representations with Periodic Activation Functions, section 3.2"
    Size = SirenSize

    def __init__(self, domain: Domain, outputs: int, size: SirenSize) -> None:
        super().__init__(domain, outputs, size)
        half_nyquist = math.pi * (domain.high - domain.low) / 4
        self.omega = size.omega or (max(_PAPER_OMEGA, half_nyquist) if domain.integer else _PAPER_OMEGA)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Uniform: ±omega in the first layer, ±√(6 / fan-in) after it (section 3.2, with omega folded into W)."""
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            bound = self.omega if index == 0 else math.sqrt(6 / weight.shape[0])
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-math.pi, math.pi, generator=generator)
        self.biases[-1].zero_()


@NETS.register
class FourierMlp(ScalarMLP):
    """An MLP with GELU on the sines and cosines of the input at F frequencies, trained or fixed."""

    name = "fourier-mlp"
    activation = "gelu"
    feature = "fourier"
    source = (
        "Tancik et al. 2020, Fourier Features Let Networks Learn High Frequency Functions, section 4; Li et al. 2021"
    )
    Size = FourierSize

    def __init__(self, domain: Domain, outputs: int, size: FourierSize) -> None:
        super().__init__(domain, outputs, size, features=2 * size.frequencies)
        frequencies = torch.empty(size.frequencies)
        if size.fixed:
            self.register_buffer("frequencies", frequencies)
        else:
            self.frequencies = nn.Parameter(frequencies)

    def scalars(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The input as it is, or its logarithm scaled, at the frequencies."""
        return self.domain.coordinate(inputs) if self.domain.log else inputs, self.frequencies.to(inputs.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Frequencies geometric from Nyquist's, π per position, to one radian over the domain."""
        super().initialise(generator)
        size = 2.0 if self.domain.log else max(1.0, self.domain.high - self.domain.low)
        highest = math.pi if self.domain.integer else math.pi * 16 / size
        count = len(self.frequencies)
        steps = torch.arange(count) / max(1, count - 1)
        self.frequencies.copy_(highest * (1 / (size * highest)) ** steps)
