"""A polyline as one expression over its kinks, for `torch.compile`: a single pass where it makes a loop of it."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["compiled_polyline", "unrolled_polyline"]


def unrolled_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """`reference_polyline` as c + s x + Σ Δ_k max(x, t_k), an operation a kink: slow in eager PyTorch."""
    exact = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    value: Tensor = _Unrolled.apply(exact, kinks.to(exact.dtype), lines.to(exact.dtype))  # type: ignore[no-untyped-call]
    return value.to(inputs.dtype)


class _Unrolled(torch.autograd.Function):
    """The slope is an expression of its own: what autograd makes of the sum is 100 times slower, compiled."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, kinks, lines)
        slopes, intercepts = lines
        changes = slopes.diff()
        value: Tensor = slopes[0] * inputs + (intercepts[0] - (changes * kinks).sum())
        for kink, change in zip(kinks.unbind(), changes.unbind(), strict=True):
            value = value + change * torch.maximum(inputs, kink)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        inputs, kinks, lines = ctx.saved_tensors
        first, *others = lines[0].unbind()
        slope = first.expand_as(inputs)
        for kink, after in zip(kinks.unbind(), others, strict=True):
            slope = torch.where(inputs > kink, after, slope)
        return upstream * slope, None, None


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The compiler's import alone takes a second."""
    return torch.compile(unrolled_polyline, fullgraph=True, dynamic=True)


def compiled_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """`unrolled_polyline`, compiled when it is first asked for."""
    return _compiled()(inputs, kinks, lines)
