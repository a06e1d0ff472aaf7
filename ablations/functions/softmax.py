"""Softmax in parts: functions from scores to positive weights, and the reciprocal that normalises a row.

A row of attention weights is w(s) / Σ w(s). Functions with `after_max` get s − max(s), in (−∞, 0].
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function
from trans4init.ablations.seeding import keyed_generator

__all__ = ["SoftmaxWeight"]


class SoftmaxWeight(Function):
    """Gives each score its weight, elementwise. Without it every visible key has the same weight."""

    slot = "softmax"
    elementwise = True
    after_max: ClassVar[bool] = True
    """Whether the row's largest score is subtracted first."""
    uniform_without_weight: ClassVar[bool] = False
    """Whether a row without any weight is spread over its keys evenly; it gives 0 otherwise."""

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return 1: attention becomes the mean of the visible values."""
        return torch.ones_like(inputs)


class PublishedWeight(SoftmaxWeight):
    """Is a published replacement, which is evaluated and never fitted."""

    approximates = "softmax-exp"

    def fittable(self) -> bool:
        """False: a net is fitted to the exponential itself."""
        return False


@FUNCTIONS.register
class SoftmaxExp(SoftmaxWeight):
    """Computes e^x after the largest score has been subtracted."""

    name = "softmax-exp"
    fused = True
    source = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1, equation 1; Milakov and Gimelshein 2018"
    domain = Domain(-8, 0, integer=False)
    support = (-math.inf, 0.0)
    tails = "falls to 0 on the left, e^-8 = 3.4e-4 at the end of the domain; no inputs above 0"
    asymptotes = (0.0, 0.0), None

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return inputs.exp()

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """e^x."""
        return self.analytic(inputs, **shape)


@FUNCTIONS.register
class SoftmaxRow(SoftmaxWeight):
    """Computes all weights of a row at once, e^x / Σ e^x, so that a net replaces the sum and its reciprocal as well.

    A row has the scores of n keys, and −∞ for a key that is not visible.
    """

    name = "softmax-row"
    fused = True
    takes = "rows"
    source = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1, equation 1"
    domain = Domain(-8, 0, integer=False)
    support = (-math.inf, 0.0)
    tails = "a low score weighs next to nothing; no inputs above 0"
    longest: ClassVar[int] = 32
    """The number of keys of the longest rows that a net is fitted on."""

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [..., n] to [..., n]; a row without keys has weights of 0."""
        self.check_shape(**shape)
        empty = (inputs == -math.inf).all(dim=-1, keepdim=True)
        return inputs.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)

    def points(self, domain: Domain, count: int = 1024, **shape: int) -> Tensor:
        """Draw rows of 1 to 32 keys, the same every time, [count / 4, 32]: one score is 0, the others in the domain."""
        generator = keyed_generator(count, self.name, str(domain))
        rows = max(1, count // 4)
        scores = torch.rand(rows, self.longest, dtype=torch.float64, generator=generator)
        scores = domain.low + (domain.high - domain.low) * scores
        scores[:, 0] = 0.0
        keys = self.longest ** (
            torch.arange(rows, dtype=torch.float32) / rows
        )  # many short rows, since their weights are large
        return scores.masked_fill(torch.arange(self.longest) >= keys[:, None], -math.inf)

    def direction(self, inputs: Tensor) -> Tensor:
        """Move a row's first score alone: moving all of them together would change nothing."""
        first: Tensor = torch.zeros_like(inputs)
        first[..., 0] = 1
        return first

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return 1 / n for each of the n visible keys."""
        visible = (inputs > -math.inf).to(inputs.dtype)
        return visible / visible.sum(dim=-1, keepdim=True).clamp_min(1.0)


@FUNCTIONS.register
class IExp(PublishedWeight):
    """Computes L(p) 2^−z with x = −z ln 2 + p, p in (−ln 2, 0], L(p) = 0.35815147 p² + 0.96963238 p + 1.

    The coefficients are those of the authors' code; `i-exp-paper` has the paper's. Their integers are left out, and so
    is the rounding of ln 2 to 0.6931.
    """

    name = "i-exp"
    source = "Kim et al. 2021, I-BERT: Integer-only BERT Quantization, section 3.5; its code's IntSoftmax"
    domain = Domain(-8, 0, integer=False)
    support = (-math.inf, 0.0)
    tails = "falls to 0 on the left by halves; no inputs above 0"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        halvings = torch.floor(-inputs / math.log(2))
        return self.near_zero(inputs + halvings * math.log(2)) * torch.exp2(-halvings)

    def near_zero(self, inputs: Tensor) -> Tensor:
        """Compute L."""
        return (0.35815147 * inputs + 0.96963238) * inputs + 1


@FUNCTIONS.register
class IExpPaper(IExp):
    """Is `i-exp` with the paper's rounded coefficients, L(p) = 0.3585 (p + 1.353)² + 0.344."""

    name = "i-exp-paper"
    source = "Kim et al. 2021, I-BERT: Integer-only BERT Quantization, section 3.5"

    def near_zero(self, inputs: Tensor) -> Tensor:
        """Compute L."""
        return 0.3585 * (inputs + 1.353).square() + 0.344


@FUNCTIONS.register
class TwoRelu(PublishedWeight):
    """Computes ReLU(x): rows are ReLU(x) / Σ ReLU(x), and uniform where no score is positive, as in MPCFormer's code.

    That code adds 1e-12 to the sum, and its share to each weight.
    """

    name = "2relu"
    source = "Mohassel and Zhang 2017, SecureML; Li et al. 2023, MPCFormer, stage 1: 2ReLU; its code's softmax_2relu"
    uniform_without_weight = True
    domain = Domain(-8, 8, integer=False)
    after_max = False
    approximates = ""
    tails = "0 to the left, x to the right"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return F.relu(inputs)


@FUNCTIONS.register
class TwoQuad(PublishedWeight):
    """Computes (x + 5)²: rows are (x + c)² / Σ (x + c)² with the paper's c = 5."""

    name = "2quad"
    source = "Li et al. 2023, MPCFormer: Fast, Performant and Private Transformer Inference with MPC, stage 1"
    domain = Domain(-8, 8, integer=False)
    after_max = False
    approximates = ""
    tails = "grows quadratically on both sides: a very low score weighs much"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return (inputs + 5).square()


@FUNCTIONS.register
class StableMax(SoftmaxWeight):
    """Is x + 1 for x >= 0, 1 / (1 − x) below."""

    name = "stablemax"
    source = "Prieto et al. 2025, Grokking at the Edge of Numerical Stability"
    domain = Domain(-8, 8, integer=False)
    after_max = False
    tails = "falls to 0 as 1 / |x| on the left, x + 1 to the right"
    asymptotes = (0.0, 0.0), (1.0, 1.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return torch.where(inputs >= 0, inputs + 1, 1 / (1 - inputs.clamp_max(0)))


@FUNCTIONS.register
class Reciprocal(Function):
    """Computes 1 / x of a row's sum of weights: between 1 and the number of keys where the largest score is 0."""

    name = "reciprocal"
    slot = "softmax-reciprocal"
    fused = True
    source = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1, equation 1"
    domain = Domain(1, 1024, integer=False, log=True)
    elementwise = True
    log_values = True
    support = (0.0, math.inf)
    tails = "falls to 0 to the right; unbounded towards 0"
    asymptotes = (-1.0, 0.0), (-1.0, 0.0)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map [...] to [...]."""
        self.check_shape(**shape)
        return inputs.reciprocal()

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """−1 / x²."""
        self.check_shape(**shape)
        return -inputs.reciprocal().square()
