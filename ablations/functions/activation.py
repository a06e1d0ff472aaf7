"""Activations: elementwise functions between the two matrices of a feed-forward layer."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function

__all__ = ["Activation"]


class Activation(Function):
    """Maps [...] to [...], number by number. Without it the feed-forward layer becomes linear."""

    slot = "activation"
    domain = Domain(-4, 4, integer=False)
    elementwise = True

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return the inputs: the feed-forward layer becomes linear."""
        return inputs


@FUNCTIONS.register
class Relu(Activation):
    """Computes max(x, 0)."""

    name = "relu"
    source = "Nair and Hinton 2010, Rectified Linear Units Improve Restricted Boltzmann Machines, section 2"
    tails = "0 to the left, x to the right"
    asymptotes = (0.0, 0.0), (1.0, 0.0)
    kinks = (0.0,)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return F.relu(inputs)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """1 for x > 0, else 0."""
        self.check_shape(**shape)
        return (inputs > 0).to(inputs.dtype)


@FUNCTIONS.register
class Gelu(Activation):
    """Computes x · Φ(x) with Φ the normal distribution function: the exact form, by erf."""

    name = "gelu"
    source = "Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2"
    tails = "0 to the left, x to the right"
    asymptotes = (0.0, 0.0), (1.0, 0.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return F.gelu(inputs)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Φ(x) + x φ(x)."""
        self.check_shape(**shape)
        density = torch.exp(-0.5 * inputs.square()) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(inputs / math.sqrt(2))) + inputs * density


@FUNCTIONS.register
class GeluTanh(Activation):
    """Computes ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))): the form of GPT-2, an approximation of GELU."""

    name = "gelu-tanh"
    source = "Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2"
    tails = "0 to the left, x to the right"
    asymptotes = (0.0, 0.0), (1.0, 0.0)
    approximates = "gelu"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return F.gelu(inputs, approximate="tanh")


@FUNCTIONS.register
class Silu(Activation):
    """Computes x σ(x), also called swish."""

    name = "silu"
    source = "Elfwing et al. 2018, Sigmoid-Weighted Linear Units for Neural Network Function Approximation"
    domain = Domain(-8, 8, integer=False)
    tails = "0 to the left, x to the right"
    asymptotes = (0.0, 0.0), (1.0, 0.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return F.silu(inputs)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """σ(x) (1 + x (1 − σ(x)))."""
        self.check_shape(**shape)
        sigmoid = inputs.sigmoid()
        return sigmoid * (1 + inputs * (1 - sigmoid))


@FUNCTIONS.register
class Sigmoid(Activation):
    """Computes 1 / (1 + e^−x)."""

    name = "sigmoid"
    source = "Rumelhart et al. 1986, Learning Representations by Back-Propagating Errors, equation 2"
    domain = Domain(-8, 8, integer=False)
    tails = "0 to the left, 1 to the right"
    asymptotes = (0.0, 0.0), (0.0, 1.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return inputs.sigmoid()

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """σ(x) (1 − σ(x))."""
        self.check_shape(**shape)
        return inputs.sigmoid() * (1 - inputs.sigmoid())


@FUNCTIONS.register
class Tanh(Activation):
    """Computes (e^x − e^−x) / (e^x + e^−x)."""

    name = "tanh"
    source = "LeCun et al. 1998, Efficient BackProp, section 4.4"
    tails = "−1 to the left, 1 to the right"
    asymptotes = (0.0, -1.0), (0.0, 1.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return inputs.tanh()

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """1 − tanh²(x)."""
        self.check_shape(**shape)
        return 1 - inputs.tanh().square()
