"""Evaluate a polyline at many numbers; `impl` says which code computes it."""

from collections.abc import Callable

import torch
from torch import Tensor

from trans4init.kernels.differentiation import forward_mode, in_transformation
from trans4init.kernels.polyline.checks import Implementation, check_call, refusal, triton_refusal
from trans4init.kernels.polyline.native import MAX_PIECES, native_polyline, native_refusal
from trans4init.kernels.polyline.reference import reference_polyline
from trans4init.kernels.polyline.registration import fused_polyline
from trans4init.kernels.polyline.summed import summed_polyline
from trans4init.kernels.polyline.unrolled import compiled_polyline

__all__ = ["chosen", "polyline"]

_FEW_KINKS, _MANY_NUMBERS = 128, 4096
"""On a CPU the eager sum is faster than the bisection up to so many kinks and from so many numbers on."""
_UNROLLED = 64
"""Up to so many pieces, a model that is being compiled gets one expression over all kinks; the expression grows with
the pieces, and with it the time to compile."""


def polyline(inputs: Tensor, kinks: Tensor, lines: Tensor, *, impl: Implementation = "auto") -> Tensor:
    """Return the value of K lines, joined at K − 1 kinks, at each input.

    inputs [...], floating-point; kinks [K − 1] ascending and lines [2, K], slopes and intercepts, on the same device;
    the result is [...] in the inputs' dtype, computed in float32 at least. The gradient goes to the inputs alone; the
    slope at a kink is that of the line to its left. NaN stays NaN. Whether the kinks ascend and the lines meet is not
    checked.

    impl: "reference" is the eager specification, a bisection; "sum" eager too, in vectorised passes; "native" one pass
    in C, compiled by this machine's compiler when it is first needed (a CPU, float32, up to 256 lines); "triton" one
    kernel (float32, bfloat16, float16), interpreted on a CPU; "compile" an expression through `torch.compile`; "auto"
    what `chosen` says.
    Raises ValueError, in one sentence, for what doesn't fit or can't be done here; before any computation, except
    that "compile" learns from `torch.compile` itself that it fails on this machine (`UnavailableError`).
    """
    check_call(inputs, kinks, lines, impl)
    if impl == "auto":
        impl = chosen(inputs, lines.shape[1])
    elif (reason := refusal(impl, inputs, lines.shape[1])) is not None:
        raise ValueError(reason)
    return _IMPLEMENTATIONS[impl](inputs, kinks, lines)


def chosen(inputs: Tensor, pieces: int) -> Implementation:
    """Return the implementation that "auto" takes for such inputs and so many lines on this machine.

    On a GPU that is "triton"; on a CPU "native" where there is a C compiler, else "sum" for few kinks at many numbers.
    Inside a model that is being compiled it is "compile", an expression that becomes part of the model's graph. In all
    other cases it is "reference".
    """
    if torch.compiler.is_compiling():
        return "compile" if pieces <= _UNROLLED else "reference"
    if in_transformation() or forward_mode():
        return "reference"
    if inputs.is_cuda:
        return "reference" if triton_refusal(inputs) else "triton"
    if not inputs.is_cpu or inputs.dtype not in (torch.float32, torch.float64):
        return "reference"
    if inputs.dtype == torch.float32 and pieces <= MAX_PIECES and native_refusal() is None:
        return "native"
    few = pieces <= _FEW_KINKS + 1 and inputs.numel() >= _MANY_NUMBERS
    return "sum" if few else "reference"


_IMPLEMENTATIONS: dict[Implementation, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "reference": reference_polyline,
    "sum": summed_polyline,
    "compile": compiled_polyline,
    "native": native_polyline,
    "triton": fused_polyline,
}
