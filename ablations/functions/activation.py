"""Activations: elementwise functions between the two matrices of a feed-forward layer."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function


@FUNCTIONS.register
class Gelu(Function):
    """x · Φ(x) with Φ the normal distribution function: the exact form, by erf."""

    name = "gelu"
    slot = "activation"
    source = "Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2"
    arms = (
        "analytic",
        "learned-frozen",
        "learned-fine-tuned",
        "learned-from-scratch",
        "random-frozen",
        "corrected",
        "none",
    )
    domain = Domain(-4, 4, integer=False)
    elementwise = True
    tails = "0 to the left, x to the right"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """[...] to [...]."""
        self.check_shape(**shape)
        return F.gelu(inputs)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Φ(x) + x φ(x)."""
        self.check_shape(**shape)
        density = torch.exp(-0.5 * inputs.square()) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(inputs / math.sqrt(2))) + inputs * density

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """The identity: the feed-forward layer becomes linear."""
        return inputs
