"""Rotary positional encodings: queries and keys are rotated by angles that are proportional to their position.

The function maps a position to [cos of each angle, sin of each angle]. D is the head dimension, P <= D / 2 the number
of pairs of dimensions that are rotated.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function

__all__ = ["Rotary", "rotate"]


class Rotary(Function):
    """Maps positions [N] to [N, 2P]: P cosines, then P sines. Without it nothing is rotated."""

    slot = "position"
    role = "rotary"
    domain = Domain(0, 4095, integer=True)
    default_shape: ClassVar[dict[str, int]] = {"head_dim": 64}
    optional_shape = ("base",)
    tails = "defined for every position; bounded"
    base: ClassVar[float] = 10000.0
    """The slowest pair turns by about 1 / base radians per position; shape argument `base` has precedence."""
    trained: ClassVar[int] = 512
    """The context that the plain encoding was trained on, which the other forms extend by `factor`."""
    factor: ClassVar[float] = 4.0
    """How many times as long a context the extended forms are for."""

    def pairs(self, **shape: int) -> int:
        """Return P, the number of pairs of dimensions that are rotated."""
        self.check_shape(**shape)
        if shape["head_dim"] < 2 or shape["head_dim"] % 2:
            raise InputError(f"{self.name} turns pairs: the head dimension must be even, not {shape['head_dim']}.")
        if not self.base_in(**shape) > 1:
            raise InputError(f"{self.name} needs a base above 1, and {self.base_in(**shape):g} was given.")
        return shape["head_dim"] // 2

    def base_in(self, **shape: int) -> float:
        """Return the base of that shape."""
        return shape.get("base", self.base)

    def outputs(self, **shape: int) -> int:
        """Return 2P."""
        return 2 * self.pairs(**shape)

    def gain_count(self, **shape: int) -> int:
        """Return P: a pair's cosine and sine have one gain, so that it is still a rotation that is scaled."""
        return self.pairs(**shape)

    def gain_per_value(self, gains: Tensor, **shape: int) -> Tensor:
        """Give each gain [P] to its cosine and its sine, [2P]."""
        return torch.cat([gains, gains])

    def frequencies(self, **shape: int) -> Tensor:
        """Compute the radians per position of each pair, [P] float64."""
        pairs = self.pairs(**shape)
        frequencies: Tensor = self.base_in(**shape) ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
        return frequencies

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map positions [N] to [N, 2P]."""
        angles = inputs[..., None] * self.frequencies(**shape).to(inputs)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """d [cos, sin] / d position, [N, 2P]."""
        frequencies = self.frequencies(**shape).to(inputs)
        angles = inputs[..., None] * frequencies
        return torch.cat([-frequencies * angles.sin(), frequencies * angles.cos()], dim=-1)

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Cosines of 1, sines of 0: no rotation (NoPE)."""
        return self.analytic(torch.zeros_like(inputs), **shape)


def rotate(state: Tensor, values: Tensor, *, pairs: int, key: bool, interleaved: bool = False) -> Tensor:
    """Rotate pairs of dimensions (i, i + P), or interleaved (2i, 2i + 1), of queries or keys by rotary values.

    The two pairings differ by a fixed order of dimensions, which trained weights have one of: GPT-NeoX and Llama in
    transformers the first, the authors of RoFormer and xPos, and GPT-J, the second.

    state [B, H, L, D]; values [L, 2P] or [L, 3P]: the third part is a scale that queries are multiplied and keys
    divided by (xPos). Dimensions from 2P on are left as they are. Computed in float32 at least, and returned in the
    state's dtype, but for xPos: its rows are beyond the range of 16 bits, and stay in float32.
    """
    scaled, exact = values.shape[-1] == 3 * pairs, torch.promote_types(state.dtype, torch.float32)
    cos, sin = values[..., :pairs].to(exact), values[..., pairs : 2 * pairs].to(exact)
    if scaled:
        scale = values[..., 2 * pairs :].to(exact)
        cos, sin = (cos / scale, sin / scale) if key else (cos * scale, sin * scale)
    rest = state[..., 2 * pairs :]
    if interleaved:
        first, second = state[..., : 2 * pairs : 2], state[..., 1 : 2 * pairs : 2]
    else:
        first, second = state[..., :pairs], state[..., pairs : 2 * pairs]
    dtype = exact if scaled else state.dtype
    turned = (first * cos - second * sin).to(dtype), (second * cos + first * sin).to(dtype)
    joined = torch.stack(turned, dim=-1).flatten(-2) if interleaved else torch.cat(turned, dim=-1)
    return torch.cat([joined, rest.to(dtype)], dim=-1)


@FUNCTIONS.register
class Rope(Rotary):
    """Rotates pair i rotated by p / 10000^(2i/D) at position p."""

    name = "rope"
    source = "Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding, section 3.2, equation 15"


@FUNCTIONS.register
class RopePartial(Rotary):
    """Applies rope to the first quarter of the head's dimensions (at least one pair); the rest is not rotated."""

    name = "rope-partial"
    source = "Black et al. 2022, GPT-NeoX-20B, section 2.1.1 (rotary on 25 % of the dimensions)"

    def pairs(self, **shape: int) -> int:
        """Return an eighth of the head dimension, at least 1."""
        return max(1, super().pairs(**shape) // 4)


@FUNCTIONS.register
class RopeInterpolated(Rotary):
    """Is rope at p / factor: positions are compressed into the trained range."""

    name = "rope-interpolated"
    source = "Chen et al. 2023, Extending Context Window of Large Language Models via Positional Interpolation, eq. 4"

    def frequencies(self, **shape: int) -> Tensor:
        """Compute the radians per position of each pair, [P] float64."""
        return super().frequencies(**shape) / self.factor


@FUNCTIONS.register
class RopeNtk(Rotary):
    """Is rope with base · factor^(D/(D−2)): the fastest pair is kept, the slowest is slowed by the factor."""

    name = "rope-ntk"
    source = "bloc97 2023, NTK-Aware Scaled RoPE; Peng et al. 2023, YaRN, section 3.1, definition 1"

    def frequencies(self, **shape: int) -> Tensor:
        """Compute the radians per position of each pair, [P] float64."""
        pairs = self.pairs(**shape)
        base = self.base_in(**shape) * self.factor ** (pairs / max(1, pairs - 1))
        frequencies: Tensor = base ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
        return frequencies


@FUNCTIONS.register
class RopeLlama3(Rotary):
    """Is rope whose pairs that turn 4 times or more in 8192 positions are kept, and those that turn once slowed.

    The slow ones are slowed by a factor of 8, and those between by a share that is linear in their turns. These numbers
    and the base of 500000 are Llama 3.1's.
    """

    name = "rope-llama3"
    source = "Grattafiori et al. 2024, The Llama 3 Herd of Models; the code of Llama 3.1's apply_scaling"
    base: ClassVar[float] = 500000.0
    trained: ClassVar[int] = 8192
    factor: ClassVar[float] = 8.0
    slow: ClassVar[float] = 1.0
    fast: ClassVar[float] = 4.0

    def frequencies(self, **shape: int) -> Tensor:
        """Compute the radians per position of each pair, [P] float64."""
        return _slowed(super().frequencies(**shape), self.trained, self.factor, self.slow, self.fast)


def _slowed(plain: Tensor, trained: int, factor: float, slow: float, fast: float) -> Tensor:
    """Slow frequencies by `factor` where they turn `slow` times at most in `trained` positions, less up to `fast`."""
    turns = trained * plain / (2 * math.pi)
    kept_share = ((turns - slow) / (fast - slow)).clamp(0, 1)
    return (1 - kept_share) * plain / factor + kept_share * plain


@FUNCTIONS.register
class RopeYarn(Rotary):
    """Is rope whose pairs that rotate often in the trained context are kept, and the others slowed by the factor.

    Between the pairs that rotate 32 times and once, rounded outwards to whole pairs, the share that is slowed is linear
    in the pair's number, as in the authors' code and released checkpoints; `rope-yarn-paper` has the paper's ramp.
    Cosines and sines are multiplied by the attention temperature, 0.1 ln(factor) + 1, for queries and keys each.
    """

    name = "rope-yarn"
    source = "Peng et al. 2023, YaRN: Efficient Context Window Extension, section 3.4; its code's find_correction_range"
    slow: ClassVar[float] = 1.0
    fast: ClassVar[float] = 32.0

    def frequencies(self, **shape: int) -> Tensor:
        """Compute the radians per position of each pair, [P] float64."""
        plain, pairs = super().frequencies(**shape), self.pairs(**shape)
        first = max(0, math.floor(self._pair_that_turns(self.fast, **shape)))
        last = min(2 * pairs - 1, math.ceil(self._pair_that_turns(self.slow, **shape)))
        span = last - first or 0.001  # the code's way out of a ramp without length
        slowed_share = ((torch.arange(pairs, dtype=torch.float64) - first) / span).clamp(0, 1)
        return slowed_share * plain / self.factor + (1 - slowed_share) * plain

    def _pair_that_turns(self, times: float, **shape: int) -> float:
        """Return the number of the pair, not rounded, that turns that many times in the trained context."""
        turns_of_first = self.trained / (2 * math.pi)
        return self.pairs(**shape) * math.log(turns_of_first / times) / math.log(self.base_in(**shape))

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map positions [N] to [N, 2P]."""
        return (0.1 * math.log(self.factor) + 1) * super().analytic(inputs, **shape)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute d value / d position, [N, 2P]."""
        return (0.1 * math.log(self.factor) + 1) * super().derivative(inputs, **shape)

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return the values of no rotation, without the temperature."""
        return Rope().left_out(inputs, **shape)


@FUNCTIONS.register
class RopeYarnPaper(RopeYarn):
    """Is `rope-yarn` with the paper's ramp, which is linear in how often a pair rotates in the trained context."""

    name = "rope-yarn-paper"
    source = "Peng et al. 2023, YaRN: Efficient Context Window Extension, sections 3.2 and 3.4"

    def frequencies(self, **shape: int) -> Tensor:
        """Compute the radians per position of each pair, [P] float64."""
        return _slowed(Rotary.frequencies(self, **shape), self.trained, self.factor, self.slow, self.fast)


@FUNCTIONS.register
class XPos(Rotary):
    """Is rope with a scale ζ_i^(p/512), ζ_i = (i/P + 0.4) / 1.4, so scores fall with distance: [cos, sin, scale]."""

    name = "xpos"
    source = "Sun et al. 2022, A Length-Extrapolatable Transformer, algorithm 1"
    domain = Domain(0, 2047, integer=True)
    tails = "the scale of the fast pairs falls to 0, which float32 holds up to position 35694: not defined beyond"

    def outputs(self, **shape: int) -> int:
        """Return how many values a position has: a cosine, a sine and a scale for each of the P pairs."""
        return 3 * self.pairs(**shape)

    def gain_per_value(self, gains: Tensor, **shape: int) -> Tensor:
        """Give no gain to the scale, [3P]: queries are multiplied and keys divided by it, so that one would cancel."""
        return torch.cat([super().gain_per_value(gains, **shape), torch.ones_like(gains)])

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map positions [N] to [N, 3P]."""
        return torch.cat([super().analytic(inputs, **shape), self._scales(inputs, **shape)], dim=-1)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute d value / d position, [N, 3P]."""
        rates = self._decay(**shape).to(inputs).log() / 512
        return torch.cat([super().derivative(inputs, **shape), rates * self._scales(inputs, **shape)], dim=-1)

    def _decay(self, **shape: int) -> Tensor:
        pairs = self.pairs(**shape)
        return (torch.arange(pairs, dtype=torch.float64) / pairs + 0.4) / 1.4

    def _scales(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute the scales [N, P]; raises InputError for positions so far that the inputs' dtype doesn't hold them.

        The positions are looked at on a CPU alone, and not inside torch.compile or torch.func.
        """
        readable = not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
        furthest = 512 * math.log(torch.finfo(inputs.dtype).tiny) / math.log(0.4 / 1.4)
        if inputs.device.type == "cpu" and readable and inputs.numel() and inputs.abs().max().item() > furthest:
            raise InputError(
                f"{self.name} is defined up to position {math.floor(furthest)}, and {inputs.abs().max().item():g} was "
                f"asked for: its scale is beyond {inputs.dtype} there."
            )
        return self._decay(**shape).to(inputs) ** (inputs[..., None] / 512)
