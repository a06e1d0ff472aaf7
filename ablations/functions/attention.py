"""Functions around attention: the scale of scores, fixed or by the number of keys, and linear maps of vectors.

Head mixing maps the H heads' outputs to H outputs; transposing a matrix is an example of what nets are bad at.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function
from trans4init.ablations.seeding import keyed_generator

__all__ = ["Scale", "VectorFunction"]


class Scale(Function):
    """Gives the factor on the scores of a query that sees n keys, from n [N] to [N]. Without it the factor is 1."""

    slot = "scale"
    elementwise = True
    role = "row"
    domain = Domain(1, 512, integer=True)
    default_shape: ClassVar[dict[str, int]] = {"head_dim": 64}

    def root(self, **shape: int) -> float:
        """Compute 1/√D."""
        self.check_shape(**shape)
        if shape["head_dim"] < 1:
            raise InputError(f"{self.name} needs a head dimension of at least 1, and {shape['head_dim']} was given.")
        return 1 / math.sqrt(shape["head_dim"])

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return 1: scores are not scaled."""
        return torch.ones_like(inputs)


@FUNCTIONS.register
class AttentionScale(Scale):
    """Is 1/√D, independent of the number of keys."""

    name = "attention-scale"
    fused = True
    source = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1, equation 1"
    tails = "constant"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [N] to [N]."""
        return torch.full_like(inputs, self.root(**shape))

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """0."""
        self.check_shape(**shape)
        return torch.zeros_like(inputs)


@FUNCTIONS.register
class ScalableSoftmax(Scale):
    """Is s ln(n) / √D with s = 0.43: attention doesn't flatten as the number of keys grows."""

    name = "scalable-softmax"
    source = "Nakanishi 2025, Scalable-Softmax Is Superior for Attention, section 2 (s trained there; 0.43 fits it)"
    tails = "grows as the logarithm"
    slope: ClassVar[float] = 0.43

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [N] to [N]."""
        return self.slope * self.root(**shape) * inputs.log()

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """s / (n √D)."""
        return self.slope * self.root(**shape) / inputs


class VectorFunction(Function):
    """Maps vectors [..., n] to vectors [..., n]. Its domain bounds each of the n numbers."""

    takes = "vectors"
    role = "row"

    def points(self, domain: Domain, count: int = 1024, **shape: int) -> Tensor:
        """Draw vectors uniformly from the cube, the same ones every time, [count, n]."""
        generator = keyed_generator(count, self.name, str(domain))
        share = torch.rand(count, self.outputs(**shape), dtype=torch.float64, generator=generator)
        return domain.low + (domain.high - domain.low) * share


@FUNCTIONS.register
class HeadMixing(VectorFunction):
    """Is the identity on the vector of head outputs. Arm `corrected` adds a trained mixing that starts from 0."""

    name = "head-mixing"
    slot = "head-mixing"
    source = "Shazeer et al. 2020, Talking-Heads Attention (here on the outputs, and zero-initialised)"
    domain = Domain(-4, 4, integer=False)
    default_shape: ClassVar[dict[str, int]] = {"heads": 8}
    tails = "the identity everywhere"
    fused = True

    def fittable(self) -> bool:
        """False: there is nothing to learn in an identity."""
        return False

    def correctable(self) -> bool:
        """True: a net's values are the mixing."""
        return True

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [..., H] to [..., H]."""
        self.check_shape(**shape)
        return inputs

    def outputs(self, **shape: int) -> int:
        """Return the number of heads."""
        self.check_shape(**shape)
        return shape["heads"]


@FUNCTIONS.register
class Transpose(VectorFunction):
    """Maps the n² numbers of a matrix, row by row, to those of its transpose: a permutation, which costs nothing.

    A trained linear layer needs n⁴ weights for it. It can be fitted, but no model has a slot for it.
    """

    name = "transpose"
    slot = "none"
    source = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1, equation 1: the T of Q Kᵀ"
    fidelity_only = True
    domain = Domain(-1, 1, integer=False)
    default_shape: ClassVar[dict[str, int]] = {"side": 8}
    tails = "linear everywhere"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [..., n²] to [..., n²]."""
        self.check_shape(**shape)
        side = shape["side"]
        matrices = inputs.reshape(*inputs.shape[:-1], side, side)
        return matrices.transpose(-1, -2).flatten(-2)

    def outputs(self, **shape: int) -> int:
        """Return n²."""
        self.check_shape(**shape)
        if shape["side"] < 1:
            raise InputError(f"transpose needs a side of at least 1, and {shape['side']} was given.")
        return int(shape["side"]) ** 2
