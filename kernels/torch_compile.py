"""Compile functions with `torch.compile`, and say in one sentence where this machine can't."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.availability import UnavailableError
from trans4init.kernels.torch_operators import once_differentiable

__all__ = ["compile_function", "instruction_set"]


def compile_function(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    """Return `function` as `torch.compile` makes it, in one graph; options are those of `torch.compile`.

    A call raises UnavailableError where the backend fails on the graph, such as without a working C++ compiler. The
    result has no second derivative, and says so.
    """
    if "backend" not in options:
        options["options"] = instruction_set()
    fast = torch.compile(function, fullgraph=True, **options)

    def call(*arguments: Any, **keywords: Any) -> Tensor:
        try:
            result: Tensor = fast(*arguments, **keywords)
        except RuntimeError as error:
            from torch._dynamo.exc import BackendCompilerFailed  # an import that takes a second before the first call

            if not isinstance(error, BackendCompilerFailed):
                raise
            raise UnavailableError(_sentence(error.inner_exception)) from None  # the error holds the compiler's log
        return once_differentiable(result, "impl 'compile'")

    return call


def instruction_set() -> dict[str, Any]:
    """Return the options of `torch.compile` that name the width of the vectors that PyTorch uses on this processor.

    PyTorch (2.13) takes code out of its cache that was made for vectors of another width, and then computes wrong
    values or writes beyond its memory, where two processes differ in `ATEN_CPU_CAPABILITY` or in the processor. What is
    named by an option is told apart.
    """
    bits = {"AVX2": 256, "AVX512": 512}.get(torch.backends.cpu.get_cpu_capability())
    if bits is None and os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        bits = 0
    return {} if bits is None else {"cpp.simdlen": bits}


def _sentence(error: Exception) -> str:
    """Say what failed, by the first line of the compiler's log that names an error, and the way out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    reason = next((line for line in lines if "error:" in line), lines[0])
    return (
        f"impl 'compile' can't be used on this machine, since torch.compile fails here ({type(error).__name__}: "
        f"{reason[:200].rstrip('.')}): choose another impl, such as 'auto', or another compiler or instruction set "
        f"(environment variables CXX and ATEN_CPU_CAPABILITY)."
    )
