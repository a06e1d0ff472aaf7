"""Check what a call of `polyline` is given, and say why an implementation can't do it."""

from typing import Literal

import torch
from torch import Tensor

from trans4init.kernels.availability import DTYPES, dtype_names, machine_refusal
from trans4init.kernels.differentiation import forward_mode, in_transformation
from trans4init.kernels.polyline.native import MAX_PIECES, native_refusal

__all__ = ["IMPLEMENTATIONS", "Implementation", "check_call", "refusal", "triton_refusal"]

Implementation = Literal["auto", "reference", "sum", "compile", "native", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "sum", "compile", "native", "triton")


def check_call(inputs: Tensor, kinks: Tensor, lines: Tensor, impl: str) -> None:
    """Raise ValueError, in one sentence, for the first thing that doesn't fit."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    if not inputs.is_floating_point():
        raise ValueError(f"a polyline takes floating-point inputs, and got {inputs.dtype}.")
    if kinks.dim() != 1 or lines.shape != (2, kinks.shape[0] + 1):
        raise ValueError(
            f"a polyline of K lines has kinks [K - 1] and lines [2, K], and got {list(kinks.shape)} and "
            f"{list(lines.shape)}."
        )
    if kinks.device != inputs.device or lines.device != inputs.device:
        raise ValueError(f"the inputs are on {inputs.device}, and the polyline on {kinks.device} and {lines.device}.")
    if kinks.requires_grad or lines.requires_grad:
        raise ValueError("a polyline has no gradient to its kinks and lines, and they require one.")


def refusal(impl: Implementation, inputs: Tensor, pieces: int) -> str | None:
    """Return why an implementation that was asked for by name can't do the call; None where it can."""
    if impl in ("native", "triton", "compile") and in_transformation():  # their tensors have no memory of their own
        return f"impl {impl!r} can't be called inside torch.func's transformations; 'reference' can."
    part_of_a_graph = impl == "compile" and torch.compiler.is_compiling()
    if impl in ("native", "triton", "compile") and forward_mode() and not part_of_a_graph:
        return f"impl {impl!r} has no derivative in forward mode; 'reference' and 'sum' have one."
    if impl == "triton":
        return triton_refusal(inputs)
    if impl == "sum" and inputs.dtype not in (torch.float32, torch.float64):
        return f"impl 'sum' takes float32 and float64, and got {inputs.dtype}."
    if impl != "native":
        return None
    if not inputs.is_cpu or inputs.dtype != torch.float32 or pieces > MAX_PIECES:
        return (
            f"impl 'native' takes float32 on a CPU and at most {MAX_PIECES} lines, and got {inputs.dtype} on "
            f"{inputs.device} and {pieces}."
        )
    reason = native_refusal()
    return None if reason is None else f"impl 'native' can't be used here: {reason}."


def triton_refusal(inputs: Tensor) -> str | None:
    """Return why the Triton kernel can't do a call, in one sentence; None where it can."""
    if (reason := machine_refusal(inputs)) is not None:
        return reason
    if inputs.dtype not in DTYPES:
        return f"impl 'triton' takes inputs in {dtype_names()}, and got {inputs.dtype}."
    return None
