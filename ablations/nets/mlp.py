"""Multilayer perceptrons of one number: features of the input, hidden layers, a linear last layer.

B is any number of inputs, F the number of features, H a hidden width.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize, Pieces, Placed
from trans4init.ablations.nets.best_relu import best_relu_units, resampled
from trans4init.ablations.settings.base import Field
from trans4init.ablations.settings.numbers import Count
from trans4init.kernels.positional_mlp import ACTIVATIONS, FEATURES, positional_mlp

__all__ = ["FourierMlp", "Mlp", "MlpGelu", "MlpRelu", "ScalarMLP", "Siren"]

Widths = Annotated[tuple[Count, ...], Field(min_length=1)]

_RIDGE = 1e-7
"""Ridge penalty as a fraction of the last hidden layer's mean square: keeps weights of collinear units small."""

_PAPER_OMEGA = 30.0
"""SIREN's first frequency for inputs in [-1, 1] (section 3.2)."""


class MlpSize(NetSize):
    """Holds the hidden widths, first to last."""

    hidden: Widths = (128, 128)
    """Widths of the hidden layers, first to last."""


class SirenSize(MlpSize):
    """Holds the widths and `omega`, the largest first frequency in rad per unit of scaled input; 0: from the domain."""

    omega: float = Field(default=0.0, ge=0)
    """Largest frequency of the first layer, in rad per unit of scaled input; 0: from the domain."""


class FourierSize(MlpSize):
    """Holds the number of frequencies of the features, and whether they are fixed or trained."""

    hidden: Widths = (256,)
    frequencies: Count = 32
    """Number of frequencies of the features, each with a sine and a cosine."""
    fixed: bool = False
    """Whether the frequencies stay as they start; otherwise they are trained."""


class ScalarMLP(Net):
    """Computes x -> features(x) -> [activation(W h + b)] once or more -> W h + b."""

    Size = MlpSize
    size_on_reals: ClassVar[Mapping[str, Any]] = {"hidden": (32,)}
    size: MlpSize
    feature: str = "linear"
    activation: str

    def __init__(self, domain: Domain, outputs: int, size: MlpSize, features: int = 1) -> None:
        super().__init__(domain, outputs, size)
        widths = [features, *size.hidden, outputs]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(i, o, dtype=torch.float32)) for i, o in pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.empty(o, dtype=torch.float32)) for o in widths[1:])

    def scalars(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what features are computed from: the input scaled to [-1, 1] on the domain, and a frequency of 1."""
        return self.domain.coordinate(inputs), inputs.new_ones(1)

    def hidden(self, inputs: Tensor) -> Tensor:
        """Compute the last hidden layer, [B, H]."""
        state = FEATURES[self.feature](*self.scalars(inputs))
        layers = list(zip(self.weights, self.biases, strict=True))  # slices of a ParameterList are new parameters
        for weight, bias in layers[:-1]:
            state = ACTIVATIONS[self.activation](state @ weight.to(inputs.dtype) + bias.to(inputs.dtype))
        return state

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [...] to [..., outputs]."""
        if not self._operator_takes_it():
            last = self.weights[-1].to(inputs.dtype), self.biases[-1].to(inputs.dtype)
            values: Tensor = self.hidden(inputs) @ last[0] + last[1]
            return values
        return self._operator(inputs.reshape(-1), None).view(*inputs.shape, self.outputs)

    def added_to(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Add the values in one pass over the state, where the operator takes the net."""
        return self._operator(inputs, state) if self._operator_takes_it() else super().added_to(state, inputs)

    def _operator_takes_it(self) -> bool:
        return self.domain.integer and len(self.weights) <= 4  # reals may be infinite; it takes 3 hidden layers

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
        """Return all but the hidden widths, and how many layers there are where `positional_mlp` takes them, 1 to 3."""
        hidden = self.size.hidden
        depth = len(hidden) if len(hidden) <= 3 else hidden
        return type(self), self.size.model_copy(update={"hidden": ()}), depth, self.domain, self.outputs

    def widest(self, nets: Sequence[Net]) -> Net:
        """Return a net of the largest width in each layer: activations are 0 at 0, so that padded units stay 0."""
        widths = [net.size.hidden for net in nets if isinstance(net, ScalarMLP)]
        widest = tuple(max(layer) for layer in zip(*widths, strict=True))
        size = self.size.model_copy(update={"hidden": widest})
        return type(self)(self.domain, self.outputs, size)

    def stacked(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map [N] to [M, N, outputs], several nets by one call of `positional_mlp` up to its depth."""
        if len(self.weights) > 4 or len(parameters["weights.0"]) == 1:
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
        """Draw as He et al. 2015, but the first layer's biases uniformly, which spreads kinks over the domain."""
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
        """Solve by ridge regression in float64."""
        hidden = self.hidden(inputs.double())
        design = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        penalty = _RIDGE * design.square().sum() / design.shape[1]
        gram = design.T @ design + penalty * torch.eye(design.shape[1], dtype=design.dtype)
        solution = torch.linalg.solve(gram, design.T @ targets.double())
        self.weights[-1].copy_(solution[:-1])
        self.biases[-1].copy_(solution[-1])

    def flops(self) -> int:
        """Count two per weight, and one each per bias, activation and feature."""
        products = sum(2 * weight.numel() for weight in self.weights)
        sums = sum(bias.numel() for bias in self.biases)
        activations = sums - self.outputs
        return int(products + sums + activations + 2 * self.weights[0].shape[0])


@NETS.register
class MlpGelu(ScalarMLP):
    """Is a plain MLP of the scaled input with GELU."""

    name = "mlp-gelu"
    activation = "gelu"
    source = "Hendrycks and Gimpel 2016; Hornik 1991"
    atlas_sizes = ({"hidden": (8,)}, {"hidden": (32,)})
    atlas_position_sizes = ({"hidden": (128,)},)


@NETS.register
class MlpRelu(ScalarMLP):
    """Is a plain MLP of the scaled input with ReLU: piecewise linear in its input."""

    name = "mlp-relu"
    activation = "relu"
    source = "Nair and Hinton 2010; Arora et al. 2018, Understanding Deep Neural Networks with ReLU, theorem 2.2"
    size_on_reals: ClassVar[Mapping[str, Any]] = {"hidden": (15,)}
    folds = "to a table over finite positions; with one hidden layer exactly to the kinks and lines that it is"
    atlas_sizes = ({"hidden": (3,)}, {"hidden": (7,)}, {"hidden": (15,)})
    atlas_position_sizes = ({"hidden": (128,)},)

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Set a net of one hidden layer and one output to the smallest largest error; leave others as drawn."""
        if len(self.weights) != 2 or self.outputs != 1 or len(inputs) < 2:
            return "no"
        x, y = self.domain.coordinate(inputs).numpy(), targets[:, 0].numpy()
        units = self.weights[0].shape[1]
        if not self.domain.integer:
            x, y = resampled(x, y, 801, units + 1)
        best = best_relu_units(x, y, units)
        side = torch.from_numpy(1.0 - 2.0 * best.left)
        self.weights[0].copy_(side[None])
        self.biases[0].copy_(-side * torch.from_numpy(best.kinks))
        self.weights[1].copy_(torch.from_numpy(best.changes)[:, None])
        self.biases[1].fill_(best.offset)
        return "best"

    @torch.no_grad()
    def pieces(self) -> Pieces | None:
        """With one hidden layer: the kinks where units switch, and between them the sum of the units that are on."""
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
    """Holds any number of hidden widths, and the activation between them."""

    activation: Literal["relu", "gelu", "silu", "tanh", "sin"] = "silu"
    """The function of each number between the layers."""


@NETS.register
class Mlp(ScalarMLP):
    """Is a plain MLP of the scaled input: any depth, width and activation."""

    name = "mlp"
    source = "Hornik 1991, Approximation Capabilities of Multilayer Feedforward Networks"
    Size = MlpChoice
    size_on_reals: ClassVar[Mapping[str, Any]] = {"hidden": (32, 32)}
    atlas_sizes = ({"hidden": (8, 8)}, {"hidden": (32, 32)})
    atlas_position_sizes = ({"hidden": (64, 64)},)

    def __init__(self, domain: Domain, outputs: int, size: MlpChoice) -> None:
        super().__init__(domain, outputs, size)
        self.activation = size.activation


@NETS.register
class Siren(ScalarMLP):
    """Is an MLP with sine activations whose first layer spans the frequencies that the domain can hold."""

    name = "siren"
    activation = "sin"
    source = "Sitzmann et al. 2020, Implicit Neural Representations with Periodic Activation Functions, section 3.2"
    Size = SirenSize
    atlas_sizes = ({"hidden": (8,)}, {"hidden": (32,)})
    atlas_position_sizes = ({"hidden": (64, 64)},)

    def __init__(self, domain: Domain, outputs: int, size: SirenSize) -> None:
        super().__init__(domain, outputs, size)
        half_nyquist = math.pi * (domain.high - domain.low) / 4
        self.omega = size.omega or (max(_PAPER_OMEGA, half_nyquist) if domain.integer else _PAPER_OMEGA)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw uniformly: ±omega in the first layer, ±√(6 / fan-in) after it (section 3.2, omega folded into W)."""
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            bound = self.omega if index == 0 else math.sqrt(6 / weight.shape[0])
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-math.pi, math.pi, generator=generator)
        self.biases[-1].zero_()


@NETS.register
class FourierMlp(ScalarMLP):
    """Is an MLP with GELU on the sines and cosines of the input at F frequencies, trained or fixed."""

    name = "fourier-mlp"
    activation = "gelu"
    feature = "fourier"
    source = (
        "Tancik et al. 2020, Fourier Features Let Networks Learn High Frequency Functions, section 4; Li et al. 2021"
    )
    Size = FourierSize
    size_on_reals: ClassVar[Mapping[str, Any]] = {"hidden": (32,), "frequencies": 4}
    atlas_sizes = ({"hidden": (8,), "frequencies": 4},)
    atlas_position_sizes = ({"hidden": (64,), "frequencies": 32},)

    def __init__(self, domain: Domain, outputs: int, size: FourierSize) -> None:
        super().__init__(domain, outputs, size, features=2 * size.frequencies)
        frequencies = torch.empty(size.frequencies, dtype=torch.float32)
        if size.fixed:
            self.register_buffer("frequencies", frequencies)
        else:
            self.frequencies = nn.Parameter(frequencies)

    def scalars(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input as it is, or over a logarithmic domain its scaled logarithm, and the frequencies."""
        return self.domain.coordinate(inputs) if self.domain.log else inputs, self.frequencies.to(inputs.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw as any MLP; frequencies are geometric from π per position, Nyquist's, to 1 over the domain."""
        super().initialise(generator)
        size = 2.0 if self.domain.log else max(1.0, self.domain.high - self.domain.low)
        highest = math.pi if self.domain.integer else math.pi * 16 / size
        count = len(self.frequencies)
        steps = torch.arange(count, dtype=torch.float32) / max(1, count - 1)
        self.frequencies.copy_(highest * (1 / (size * highest)) ** steps)
