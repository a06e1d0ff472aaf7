"""Absolute positional encodings: a vector for each position, added to the token embedding."""

from typing import ClassVar

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function

__all__ = ["AbsolutePosition"]


class AbsolutePosition(Function):
    """Maps positions [N] to encodings [N, width]. Without it nothing is added (NoPE)."""

    slot = "position"
    role = "added"
    domain = Domain(0, 511, integer=True)
    default_shape: ClassVar[dict[str, int]] = {"width": 128}

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return zeros [N, width]: no encoding (Haviv et al. 2022, NoPos)."""
        return inputs.new_zeros(*inputs.shape, self.outputs(**shape))

    def outputs(self, **shape: int) -> int:
        """Return the width."""
        self.check_shape(**shape)
        if shape["width"] < 1:
            raise InputError(f"{self.name} needs a width of at least 1, and {shape['width']} was given.")
        return shape["width"]


@FUNCTIONS.register
class Sinusoidal(AbsolutePosition):
    """Computes PE(p, 2i) = sin(p / 10000^(2i/width)), PE(p, 2i+1) = cos(p / 10000^(2i/width)), interleaved."""

    name = "sinusoidal"
    source = "Vaswani et al. 2017, Attention Is All You Need, section 3.5"
    tails = "defined for every position; bounded by 1"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map positions [N] to encodings [N, width]."""
        angles = inputs[..., None] * self.frequencies(inputs.dtype, inputs.device, **shape)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute d PE / d position, [N, width]."""
        frequencies = self.frequencies(inputs.dtype, inputs.device, **shape)
        angles = inputs[..., None] * frequencies
        return torch.stack([frequencies * angles.cos(), -frequencies * angles.sin()], dim=-1).flatten(-2)

    def frequencies(self, dtype: torch.dtype, device: torch.device, **shape: int) -> Tensor:
        """Compute 10000^(-2i/width), the radians per position, [width / 2]."""
        width = self.outputs(**shape)
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
        return (10000.0**-exponents).to(dtype)

    def outputs(self, **shape: int) -> int:
        """Return the width, which must be even: each frequency gives a sine and a cosine."""
        width = super().outputs(**shape)
        if width % 2:
            raise InputError(f"{self.name} needs an even width (a sine and a cosine per frequency); {width} is odd.")
        return width


@FUNCTIONS.register
class SinusoidalHalves(Sinusoidal):
    """Puts sin(p w_i) in the first half and cos(p w_i) in the second; w_i is geometric from 1 to 1/10000, included."""

    name = "sinusoidal-halves"
    source = "Vaswani et al. 2018, Tensor2Tensor, common_attention.get_timing_signal_1d"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map positions [N] to encodings [N, width]."""
        angles = inputs[..., None] * self.frequencies(inputs.dtype, inputs.device, **shape)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute d PE / d position, [N, width]."""
        frequencies = self.frequencies(inputs.dtype, inputs.device, **shape)
        angles = inputs[..., None] * frequencies
        return torch.cat([frequencies * angles.cos(), -frequencies * angles.sin()], dim=-1)

    def frequencies(self, dtype: torch.dtype, device: torch.device, **shape: int) -> Tensor:
        """Compute 10000^(-i / (width / 2 - 1)), the radians per position, [width / 2]."""
        count = self.outputs(**shape) // 2
        exponents = torch.arange(count, dtype=torch.float64, device=device) / max(1, count - 1)
        return (10000.0**-exponents).to(dtype)


@FUNCTIONS.register
class Sinusoidal2d(AbsolutePosition):
    """Encodes an image's patches, row by row: half of the width encodes the column, half the row.

    Each half has the frequencies of `sinusoidal`, its sines before its cosines. The order is that of the authors' code.
    A model of images gives the shape: `columns` patches a row, 16 where it is left out, after `class_tokens` class
    tokens, which are encoded by zeros.
    """

    name = "sinusoidal-2d"
    source = "He et al. 2022, Masked Autoencoders, appendix A.1; its code's get_2d_sincos_pos_embed"
    domain = Domain(0, 255, integer=True)
    optional_shape = ("columns", "class_tokens")
    tails = "defined for every row; bounded by 1"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map positions [N] to encodings [N, width]; patch 0 is at position `class_tokens`."""
        width, columns = self.outputs(**shape), shape.get("columns", 16)
        patches = inputs - shape.get("class_tokens", 0)
        rows = torch.floor(patches / columns)
        frequencies = Sinusoidal().frequencies(inputs.dtype, inputs.device, width=width // 2)
        angles = [place[..., None] * frequencies for place in (patches - columns * rows, rows)]
        encodings = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=-1)
        return encodings.masked_fill((patches < 0)[..., None], 0.0)

    def outputs(self, **shape: int) -> int:
        """Return the width, which must be a multiple of 4."""
        width = super().outputs(**shape)
        if width % 4:
            raise InputError(f"sinusoidal-2d needs a width that is a multiple of 4, and {width} was given.")
        if shape.get("columns", 1) < 1 or shape.get("class_tokens", 0) < 0:
            raise InputError(f"sinusoidal-2d needs at least 1 column and 0 class tokens or more, not {shape}.")
        return width


@FUNCTIONS.register
class NoPosition(AbsolutePosition):
    """Adds no positional encoding. A causal Transformer can still infer positions: its mask differs between them."""

    name = "none"
    source = (
        "Haviv et al. 2022, Transformer Language Models without Positional Encodings Still Learn Positional Information"
    )
    tails = "0 everywhere"

    def fittable(self) -> bool:
        """False: there is nothing to learn."""
        return False

    def omissible(self) -> bool:
        """False: it is what is left without an encoding."""
        return False

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return zeros [N, width]."""
        return self.left_out(inputs, **shape)

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return zeros [N, width]."""
        return self.left_out(inputs, **shape)


@FUNCTIONS.register
class LearnedTable(AbsolutePosition):
    """Holds one trained vector per position, from a random start. No closed form: its only arm is `free-table`."""

    name = "learned-table"
    source = "Gehring et al. 2017, Convolutional Sequence to Sequence Learning, section 3.1"
    closed_form = False
    tails = "undefined: a position that was not trained has no vector"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Raise InputError: there is no closed form."""
        raise InputError("learned-table has no closed form; its only arm is free-table.")

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Raise InputError: there is no closed form."""
        raise InputError("learned-table has no closed form, and so no derivative.")

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Draw from a standard normal distribution, [N, width]: as wide as the token embeddings they are added to."""
        return torch.randn(*inputs.shape, self.outputs(**shape), dtype=inputs.dtype, generator=generator)
