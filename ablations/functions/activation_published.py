"""Published approximations of GELU, with the coefficients of their papers: evaluated, never fitted."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.ablations.functions.activation import Activation
from trans4init.ablations.functions.base import FUNCTIONS

__all__ = ["PublishedGelu"]


class PublishedGelu(Activation):
    """Approximates GELU as a paper does: a closed form of its own, and a named point in GELU's figures."""

    approximates = "gelu"

    def fittable(self) -> bool:
        """False: a net is fitted to GELU itself."""
        return False


def _polynomial(coefficients: tuple[float, ...], inputs: Tensor) -> Tensor:
    """Evaluate a polynomial by Horner's rule, highest power first."""
    value = torch.full_like(inputs, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * inputs + coefficient
    return value


@FUNCTIONS.register
class IGelu(PublishedGelu):
    """Computes ½ x (1 + L(x / √2)), L(x) = sgn(x) (a (min(|x|, −b) + b)² + 1), a = −0.2888, b = −1.769."""

    name = "i-gelu"
    source = "Kim et al. 2021, I-BERT: Integer-only BERT Quantization, section 3.4"
    tails = "0 to the left, x to the right, exactly"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        scaled = inputs / math.sqrt(2)
        erf = scaled.sign() * (-0.2888 * (scaled.abs().clamp_max(1.769) - 1.769).square() + 1)
        return inputs * 0.5 * (1 + erf)


@FUNCTIONS.register
class HGelu(PublishedGelu):
    """Computes x · ReLU6(1.702 x + 3) / 6."""

    name = "h-gelu"
    source = "Kim et al. 2021, I-BERT, section 3.4 (after h-swish, Howard et al. 2019)"
    tails = "0 to the left, x to the right, exactly"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return inputs * F.relu6(1.702 * inputs + 3) / 6


@FUNCTIONS.register
class QuadraticGelu(PublishedGelu):
    """Computes 0.125 x² + 0.25 x + 0.5: models are trained with it; it is not meant to be accurate."""

    name = "quadratic-gelu"
    source = "Li et al. 2023, MPCFormer: Fast, Performant and Private Transformer Inference with MPC, stage 1"
    tails = "grows quadratically on both sides"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return _polynomial((0.125, 0.25, 0.5), inputs)


@FUNCTIONS.register
class PumaGelu(PublishedGelu):
    """Is 0 below −4, a cubic to −1.95, a polynomial of degree 6 to 3, x above."""

    name = "puma-gelu"
    source = "Dong et al. 2023, PUMA: Secure Inference of LLaMA-7B in Five Minutes, secure GeLU"
    tails = "0 to the left, x to the right, exactly"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        cubic = (-0.011034134030615728, -0.11807612951181953, -0.42226581151983866, -0.5054031199708174)
        even = (0.0018067462606141187, -0.037688200365904236, 0.3603292692789629, 0.008526321541038084)
        near = _polynomial(even, inputs.square()) + 0.5 * inputs
        below = torch.where(inputs < -4, torch.zeros_like(inputs), _polynomial(cubic, inputs))
        return torch.where(inputs < -1.95, below, torch.where(inputs > 3, inputs, near))


@FUNCTIONS.register
class BoltGelu(PublishedGelu):
    """Is 0 below −2.7, a polynomial of degree 4 in |x| plus x / 2 to 2.7, x above."""

    name = "bolt-gelu"
    source = "Pang et al. 2024, BOLT: Privacy-Preserving, Accurate and Efficient Inference for Transformers"
    tails = "0 to the left, x to the right, exactly"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        even = (
            0.020848611754127593,
            -0.18352506127082727,
            0.5410550166368381,
            -0.03798164612714154,
            0.001620808531841547,
        )
        near = _polynomial(even, inputs.abs()) + 0.5 * inputs
        return torch.where(inputs.abs() <= 2.7, near, F.relu(inputs))
