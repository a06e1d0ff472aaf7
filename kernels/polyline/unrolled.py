"""Write a polyline as one expression over its kinks, which `torch.compile` turns into a loop with a single pass."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.torch_compile import compile_function

__all__ = ["compiled_polyline", "unrolled_polyline"]


def unrolled_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Compute `reference_polyline` as c + s x + Σ Δ_k max(x, t_k), one operation per kink: slow in eager PyTorch."""
    exact = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    value: Tensor = _Unrolled.apply(exact, kinks.to(exact.dtype), lines.to(exact.dtype))  # type: ignore[no-untyped-call]
    return value.to(inputs.dtype)


class _Unrolled(torch.autograd.Function):
    """Writes the slope as an expression too: the one that autograd derives, compiled, is 100 times slower."""

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
    """Made when it is first needed: the import of PyTorch's compiler alone takes a second."""
    return compile_function(unrolled_polyline, dynamic=True)


def compiled_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Compute `unrolled_polyline` compiled; in a model that is being compiled, as a part of the model's graph.

    Raises UnavailableError where `torch.compile` fails on this machine.
    """
    compute = unrolled_polyline if torch.compiler.is_compiling() else _compiled()
    return compute(inputs, kinks, lines)
