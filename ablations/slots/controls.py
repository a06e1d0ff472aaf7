"""What control arms put into a slot: the closed form changed by a few trained numbers, or a net's rows out of order."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.functions import Domain, Function
from trans4init.ablations.slots.contents import Content, NetContent

__all__ = ["Gained", "Mapped", "Scaled", "Shuffled"]


class ChangedForm(Content):
    """Changes a closed form's values by trained numbers; they start where they change no bit of it."""

    def __init__(self, function: Function, shape: dict[str, int], base: Content) -> None:
        super().__init__(function, shape)
        self.base = base

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Change the closed form's values, in float32 at least."""
        values: Tensor = self.base(inputs, highest)
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        return self.rounded(self.changed(exact, inputs), inputs)

    def changed(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Change values in the layout of the function's."""
        raise NotImplementedError


class Scaled(ChangedForm):
    """Computes the closed form times an amplitude, plus an offset: two numbers for all of its values."""

    def __init__(self, function: Function, shape: dict[str, int], base: Content) -> None:
        super().__init__(function, shape, base)
        self.amplitude = nn.Parameter(torch.ones((), dtype=torch.float32))
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float32))

    def changed(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Scale and shift; the padding of a row, which has no value, is not shifted."""
        shifted = values * self.amplitude + self.offset
        return shifted.masked_fill(inputs == -math.inf, 0.0) if self.function.takes == "rows" else shifted


class Gained(ChangedForm):
    """Computes the closed form with a gain for each dimension, pair of rotated dimensions, or head."""

    def __init__(self, function: Function, shape: dict[str, int], base: Content) -> None:
        super().__init__(function, shape, base)
        self.gains = nn.Parameter(torch.ones(function.gain_count(**shape), dtype=torch.float32))

    def changed(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Multiply each row by the gains."""
        gains = self.function.gain_per_value(self.gains, **self.shape)
        return self.function.arrange(self.function.as_rows(values) * gains)


class Mapped(ChangedForm):
    """Computes the closed form followed by a linear map of each row of values, W to W."""

    def __init__(self, function: Function, shape: dict[str, int], base: Content) -> None:
        super().__init__(function, shape, base)
        self.map = nn.Parameter(torch.eye(function.outputs(**shape), dtype=torch.float32))

    def changed(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Map each row; autocast would round it."""
        with torch.autocast(values.device.type, enabled=False):
            rows = F.linear(self.function.as_rows(values), self.map)
        return self.function.arrange(rows)


class Shuffled(Content):
    """Computes a content whose inputs, integers, are renumbered in an order that is drawn once and never changes.

    Inside of the domain, which has the positions of training, each position gets the value of another of them. Beyond
    it, each further stretch of the domain's length is reordered within itself, in the same order, so that the first two
    lengths together have the values of the first two lengths. A stretch that the net was fitted to in part only is left
    in order: else positions inside would get values from outside, where the net was never fitted.
    """

    def __init__(self, content: NetContent, domain: Domain, generator: torch.Generator) -> None:
        super().__init__(content.function, content.shape)
        self.content, self.first, self.last = content, int(domain.low), int(content.net.domain.high)
        self.register_buffer("order", torch.randperm(int(domain.high) - self.first + 1, generator=generator))
        self.order: Tensor
        """Where each position of the domain has its value from, counted from the domain's start, [N] int64."""

    def value(self, inputs: Tensor) -> Tensor:
        """Compute the content's values at the places that the inputs are renumbered to."""
        places = inputs.round().long() - self.first
        stretch = places.div(len(self.order), rounding_mode="floor") * len(self.order)
        end = stretch + len(self.order) - 1 + self.first
        in_part = (stretch + self.first <= self.last) & (self.last < end)
        places = torch.where(in_part, places, stretch + self.order[places - stretch]) + self.first
        return self.content.value(places.to(inputs.dtype))
