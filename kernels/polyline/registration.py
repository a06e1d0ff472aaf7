"""Register the polyline's Triton kernel with PyTorch: result shapes for the compiler, and the gradient."""

from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.polyline import launch

__all__ = ["fused_polyline", "polyline_backward", "polyline_forward"]


@torch.library.custom_op("trans4init::polyline", mutates_args=())
def polyline_forward(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Return the polyline at each input [...]; kinks [K − 1] and lines [2, K] float32."""
    return launch.launch_value(inputs, kinks, lines)


@torch.library.custom_op("trans4init::polyline_backward", mutates_args=())
def polyline_backward(inputs: Tensor, upstream: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Return the gradient of the inputs [...] from that of the result, `upstream` [...]."""
    return launch.launch_gradient(inputs, upstream, kinks, lines)


@polyline_forward.register_fake
@polyline_backward.register_fake
def _shape(inputs: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    inputs, kinks, lines = ctx.saved_tensors
    return polyline_backward(inputs, upstream, kinks, lines), None, None


def _remember_slope(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    numbers, _, kinks, lines = inputs
    ctx.save_for_backward(numbers, kinks, lines)


def _differentiate_slope(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None, None]:
    """The gradient is linear in `upstream` and constant in the inputs between kinks."""
    inputs, kinks, lines = ctx.saved_tensors
    return None, polyline_backward(inputs, upstream, kinks, lines), None, None


polyline_forward.register_autograd(_differentiate, setup_context=_remember)
polyline_backward.register_autograd(_differentiate_slope, setup_context=_remember_slope)


def fused_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Compute `reference_polyline` in one kernel, for calls that `triton_refusal` does not refuse."""
    value: Tensor = polyline_forward(inputs, kinks.float(), lines.float())
    return value
