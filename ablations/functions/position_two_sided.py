"""Relative encodings without a closed form, for attention that also sees ahead: each side has its own values.

A function of |i − j| can't tell keys before the query from keys after it; these are functions of the signed i − j.
"""

import torch
from torch import Tensor

from trans4init.ablations.functions.base import Domain, Function
from trans4init.ablations.functions.position_relative import T5, LearnedDistance, RelativeFunction

__all__ = ["TwoSided", "two_sided"]


class TwoSided(RelativeFunction):
    """Is a relative function of the signed distance i − j, negative for keys ahead of the query."""


class T5TwoSided(TwoSided, T5):
    """Holds a bias for each of 16 buckets a side: one each up to distance 7, then logarithmically wider up to 127."""

    source = "Raffel et al. 2020, T5, section 2.1; its code's relative_position_bucket(bidirectional=True)"
    tails = "constant from distance 91 on, on each side"

    def table_index(self, inputs: Tensor, domain: Domain, **shape: int) -> Tensor:
        """Return the bucket, 0 to 15 for keys at or behind the query, 16 to 31 ahead; [...] to [...] int64."""
        side = _HalfT5().table_index(inputs, domain, **shape)
        return torch.where(inputs < 0, side + self.buckets // 2, side)


class _HalfT5(T5):
    buckets = T5.buckets // 2


class LearnedDistanceTwoSided(TwoSided, LearnedDistance):
    """Holds one trained bias per head and signed distance; the outermost are used for every distance beyond."""

    def table_index(self, inputs: Tensor, domain: Domain, **shape: int) -> Tensor:
        """Number the distances 0..n behind the query, then −1..−n ahead of it."""
        reach = int(domain.high) - int(domain.low)
        near = inputs.clamp(-reach, reach).long()
        return torch.where(near < 0, reach - near, near)

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Draw from a normal distribution with deviation 0.02, a row for each signed distance, [2 N − 1, H]."""
        rows = 2 * len(inputs) - 1
        return 0.02 * torch.randn(rows, self.outputs(**shape), dtype=inputs.dtype, generator=generator)


_TWO_SIDED: dict[type[Function], type[Function]] = {T5: T5TwoSided, LearnedDistance: LearnedDistanceTwoSided}


def two_sided(function: Function) -> Function:
    """Return the two-sided form of a function, for attention that sees both ways; the function itself without one."""
    form = _TWO_SIDED.get(type(function))
    return function if form is None else form()
