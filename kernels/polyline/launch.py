"""The Triton kernel as a PyTorch operator: launch, autograd, and what it refuses."""

from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.ahead_of_time import CODE_OPTIONS
from trans4init.kernels.availability import DTYPES, dtype_names, machine_refusal, on_device_of

__all__ = ["BLOCK", "WARPS", "constants_of", "triton_polyline", "triton_refusal"]

BLOCK, WARPS = 1024, 4
"""Eight numbers a thread: two loads of 16 bytes of float32, one of a 16-bit type."""


def triton_refusal(inputs: Tensor) -> str | None:
    """Why the kernel can't do a call, in one sentence; None where it can."""
    if (refusal := machine_refusal(inputs)) is not None:
        return refusal
    if inputs.dtype not in DTYPES:
        return f"impl 'triton' takes inputs in {dtype_names()}, and got {inputs.dtype}."
    return None


def triton_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """`reference_polyline` in one kernel; `triton_refusal` says what it can't do."""
    value: Tensor = _forward(inputs, kinks.float(), lines.float())
    return value


def constants_of(pieces: int, *, slope: bool) -> dict[str, Any]:
    """The kernel's constants for K pieces."""
    return {"PIECES": pieces, "LEVELS": (pieces - 1).bit_length(), "SLOPE": slope, "BLOCK": BLOCK}


def _launch(inputs: Tensor, upstream: Tensor, kinks: Tensor, lines: Tensor, *, slope: bool) -> Tensor:
    from trans4init.kernels.polyline.kernel import polyline_kernel

    inputs, upstream = inputs.contiguous(), upstream.contiguous()
    kinks = kinks.contiguous() if len(kinks) else lines.new_zeros(1)  # a pointer there must be
    out = torch.empty_like(inputs)
    count = inputs.numel()
    if not count:
        return out
    with on_device_of(inputs):
        polyline_kernel[(-(-count // BLOCK),)](
            inputs,
            upstream,
            kinks,
            lines.contiguous(),
            out,
            count,
            num_warps=WARPS,
            num_stages=1,
            **CODE_OPTIONS,
            **constants_of(lines.shape[1], slope=slope),
        )
    return out


@torch.library.custom_op("trans4init::polyline", mutates_args=())
def _forward(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    return _launch(inputs, inputs, kinks, lines, slope=False)


@torch.library.custom_op("trans4init::polyline_backward", mutates_args=())
def _backward(inputs: Tensor, upstream: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    return _launch(inputs, upstream, kinks, lines, slope=True)


@_forward.register_fake
def _(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(inputs: Tensor, upstream: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    inputs, kinks, lines = ctx.saved_tensors
    return _backward(inputs, upstream, kinks, lines), None, None


_forward.register_autograd(_differentiate, setup_context=_remember)
