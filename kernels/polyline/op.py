"""One function for a polyline at many numbers; `impl` says which code computes it."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from trans4init.kernels.polyline.launch import triton_polyline, triton_refusal
from trans4init.kernels.polyline.native import MAX_PIECES, native_polyline, native_refusal
from trans4init.kernels.polyline.reference import reference_polyline
from trans4init.kernels.polyline.summed import summed_polyline
from trans4init.kernels.polyline.unrolled import compiled_polyline, unrolled_polyline

__all__ = ["IMPLEMENTATIONS", "Implementation", "chosen", "polyline"]

Implementation = Literal["auto", "reference", "sum", "compile", "native", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "sum", "compile", "native", "triton")

_FEW_KINKS, _MANY_NUMBERS = 128, 4096
"""Up to so many kinks, and from so many numbers on, the eager sum is faster than the bisection on a CPU."""
_UNROLLED = 64
"""Up to so many pieces a compiled model is given an expression over all kinks."""


def polyline(inputs: Tensor, kinks: Tensor, lines: Tensor, *, impl: Implementation = "auto") -> Tensor:
    """K lines: inputs [...], kinks [K − 1] ascending, slopes and intercepts lines [2, K]; to [...], of their dtype.

    Floating-point inputs, on the polyline's device; computed in float32 at least. Differentiable in the inputs alone;
    the slope at a kink is that of the line to its left. NaN stays NaN. That the kinks ascend and the lines meet is not
    looked at.

    impl: "reference" is the eager specification, a bisection; "sum" eager too, in vectorised passes; "native" one pass
    in C, compiled by this machine's compiler when it is first needed (a CPU, float32, up to 256 lines); "triton" one
    kernel (float32, bfloat16, float16); "compile" an expression through `torch.compile`; "auto" what `chosen` says.
    Raises ValueError, in one sentence and before any computation, for what doesn't fit or can't be done here.
    """
    _check(inputs, kinks, lines)
    if impl == "auto":
        impl = chosen(inputs, lines.shape[1])
    elif impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    elif (refusal := _refusal(impl, inputs, lines.shape[1])) is not None:
        raise ValueError(refusal)
    return _IMPLEMENTATIONS[impl](inputs, kinks, lines)


def chosen(inputs: Tensor, pieces: int) -> Implementation:
    """The implementation that "auto" takes for such inputs and so many lines on this machine.

    On a GPU "triton". On a CPU "native" where there is a compiler, else "sum" for few kinks at many numbers. Inside a
    model that is being compiled an expression that the compiler makes its own. Else "reference".
    """
    if torch.compiler.is_compiling():
        return "compile" if pieces <= _UNROLLED else "reference"
    if torch._C._are_functorch_transforms_active():  # their tensors have no memory of their own
        return "reference"
    if inputs.is_cuda:
        return "reference" if triton_refusal(inputs) else "triton"
    if not inputs.is_cpu or inputs.dtype not in (torch.float32, torch.float64):
        return "reference"
    if inputs.dtype == torch.float32 and pieces <= MAX_PIECES and native_refusal() is None:
        return "native"
    few = pieces <= _FEW_KINKS + 1 and inputs.numel() >= _MANY_NUMBERS
    return "sum" if few else "reference"


def _check(inputs: Tensor, kinks: Tensor, lines: Tensor) -> None:
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


def _refusal(impl: Implementation, inputs: Tensor, pieces: int) -> str | None:
    """Why an implementation that was asked for by name can't do the call; None where it can."""
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
    return None if reason is None else f"impl 'native' can't be had here: {reason}."


def _compile(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    compute = unrolled_polyline if torch.compiler.is_compiling() else compiled_polyline
    return compute(inputs, kinks, lines)


_IMPLEMENTATIONS: dict[Implementation, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "reference": reference_polyline,
    "sum": summed_polyline,
    "compile": _compile,
    "native": native_polyline,
    "triton": triton_polyline,
}
