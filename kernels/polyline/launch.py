"""Launch the Triton kernel of the polyline on tensors."""

from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.interpretation import KernelFiles

__all__ = ["BLOCK", "KERNELS", "WARPS", "constants_of", "launch_gradient", "launch_value"]

KERNELS = KernelFiles("trans4init.kernels.polyline", ("kernel",))

BLOCK, WARPS = 1024, 4
"""Inputs and warps of a program. Each thread has eight inputs: two loads of 16 bytes in float32, one in 16 bits."""


def constants_of(pieces: int, *, slope: bool) -> dict[str, Any]:
    """Return the kernel's constants for K pieces; `slope` for the gradient, else for the value."""
    return {"PIECES": pieces, "LEVELS": (pieces - 1).bit_length(), "SLOPE": slope, "BLOCK": BLOCK}


def launch_value(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Return the polyline at each input [...]; kinks [K − 1] and lines [2, K] float32."""
    return _launch(inputs, inputs, kinks, lines, slope=False)


def launch_gradient(inputs: Tensor, upstream: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Return `upstream` [...] times the polyline's slope at each input [...]."""
    return _launch(inputs, upstream, kinks, lines, slope=True)


def _launch(inputs: Tensor, upstream: Tensor, kinks: Tensor, lines: Tensor, *, slope: bool) -> Tensor:
    inputs, upstream = inputs.contiguous(), upstream.contiguous()
    out = torch.empty_like(inputs)
    count = inputs.numel()
    if not count:
        return out
    arguments = {
        "inputs": inputs,
        "upstream": upstream,
        "kinks": kinks.contiguous() if len(kinks) else lines.new_zeros(1),  # an empty tensor has no pointer
        "lines": lines.contiguous(),
        "out": out,
        "count": count,
    }
    arguments |= constants_of(lines.shape[1], slope=slope)
    KERNELS.launch("polyline_kernel", (-(-count // BLOCK),), inputs.device, arguments, warps=WARPS, stages=1)
    return out
