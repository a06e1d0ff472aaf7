"""A polyline at many numbers at once: its value and its slope in a few passes over memory.

On a CPU, a polyline of few kinks at many numbers is summed, c + s x + Σ Δ_k max(x, t_k): passes that
are vectorised, where a bisection has every branch guessed wrong. With 16 lines at 393,216 numbers, forward and back,
it costs 5 times the closed form of GELU and not 15 times.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["polyline"]

_CHUNK = 16384
"""Numbers whose kinks are summed together: their rows of `max(x, t)` stay in the cache."""

_FEW_KINKS, _MANY_NUMBERS = 128, 4096
"""Up to so many kinks, and from so many numbers on, the sum is the faster of the two on a CPU."""


def polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """K lines: inputs [...], kinks [K − 1] ascending, slopes and intercepts lines [2, K]; to [...], of their dtype.

    Differentiable in the inputs; the slope at a kink is that of the line to its left.
    """
    if inputs.device.type == "cpu" and len(kinks) <= _FEW_KINKS and inputs.numel() >= _MANY_NUMBERS:
        value: Tensor = _Summed.apply(inputs, kinks, lines)  # type: ignore[no-untyped-call]
        return value
    piece = torch.bucketize(inputs.detach(), kinks.to(inputs.dtype))
    slopes, intercepts = lines.to(inputs.dtype)
    return torch.addcmul(intercepts[piece], slopes[piece], inputs)


class _Summed(torch.autograd.Function):
    """The sum over the kinks. The slope is found again in the backward pass, which is cheaper than to keep it."""

    @staticmethod
    def forward(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
        slopes, intercepts = lines.double()
        changes = slopes.diff()
        start = inputs.mul(slopes[0].item()).add_((intercepts[0] - changes @ kinks.double()).item())
        return _add_kinks(start, inputs, kinks, changes, torch.maximum)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * _slope(*ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0] * _slope(*ctx.saved_tensors)


def _slope(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    slopes = lines[0].double()
    return _add_kinks(torch.full_like(inputs, slopes[0].item()), inputs, kinks, slopes.diff(), torch.gt)


def _add_kinks(total: Tensor, inputs: Tensor, kinks: Tensor, changes: Tensor, by: Callable[..., Tensor]) -> Tensor:
    """total [...] + Σ Δ_k by(x, t_k), `by` a maximum or a comparison that counts 1 where it holds."""
    flat, result = inputs.reshape(-1), total.reshape(-1)
    column, weights = kinks.to(inputs.dtype)[:, None], changes.to(inputs.dtype)
    rows = flat.new_empty(len(kinks), min(_CHUNK, len(flat)))
    for start in range(0, len(flat) if len(kinks) else 0, _CHUNK):
        some = flat[start : start + _CHUNK]
        row = rows[:, : len(some)]
        by(some, column, out=row)
        result[start : start + _CHUNK].addmv_(row.T, weights)
    return result.view(inputs.shape)
