"""Normalisation: the reciprocal root of a statistic over the width, and elementwise functions in its place."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function

__all__ = ["NORM_EPSILON", "Normalizer"]

NORM_EPSILON = 1e-5
"""Added to the statistic, as in PyTorch's LayerNorm."""


class Normalizer(Function):
    """Is the function that a normalisation layer applies before its gain and bias."""

    slot = "normalization"
    elementwise = True
    gain: ClassVar[float | None] = None
    """The initial value of a trained factor on the inputs, for functions of the state itself; None for others."""
    shift: ClassVar[bool] = False
    """Whether a trained shift, initially 0, is added after that factor."""


class Rsqrt(Normalizer):
    """Computes 1 / √(v + 1e-5): maps a statistic v of the state to the factor on the state."""

    domain = Domain(1e-4, 1e4, integer=False, log=True)
    log_values = True
    support = (0.0, math.inf)
    tails = "1 / √1e-5 towards 0, falls to 0 to the right"
    asymptotes = (0.0, -0.5 * math.log(NORM_EPSILON)), (-0.5, 0.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return torch.rsqrt(inputs + NORM_EPSILON)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """−½ (v + 1e-5)^(−3/2)."""
        self.check_shape(**shape)
        return -0.5 * (inputs + NORM_EPSILON).pow(-1.5)

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return 1: the state keeps its scale."""
        return torch.ones_like(inputs)


@FUNCTIONS.register
class LayerNormRsqrt(Rsqrt):
    """Gives the factor of LayerNorm, from the variance over the width. The layer subtracts the mean first."""

    name = "layernorm-rsqrt"
    fused = True
    source = "Ba et al. 2016, Layer Normalization, equation 4"
    role = "centred-statistic"


@FUNCTIONS.register
class RmsNormRsqrt(Rsqrt):
    """Gives the factor of RMSNorm, from the mean square over the width."""

    name = "rmsnorm-rsqrt"
    fused = True
    source = "Zhang and Sennrich 2019, Root Mean Square Layer Normalization, equation 4"
    role = "statistic"


@FUNCTIONS.register
class Dyt(Normalizer):
    """Computes tanh(α x) with a trained α that starts at 0.5. The function is tanh; α belongs to the layer."""

    name = "dyt"
    source = "Zhu et al. 2025, Transformers without Normalization, section 4, algorithm 1"
    domain = Domain(-4, 4, integer=False)
    gain = 0.5
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

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return the inputs."""
        return inputs


@FUNCTIONS.register
class Derf(Dyt):
    """Computes erf(α x + s) with a trained α that starts at 0.5 and a trained shift s that starts at 0."""

    name = "derf"
    source = "Chen et al. 2025, Stronger Normalization-Free Transformers"
    shift = True

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return torch.erf(inputs)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """2 e^(−x²) / √π."""
        self.check_shape(**shape)
        return 2 / math.sqrt(math.pi) * torch.exp(-inputs.square())
