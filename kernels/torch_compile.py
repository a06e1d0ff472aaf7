"""Compile functions with `torch.compile`, and say in one sentence where this machine can't."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.availability import UnavailableError
from trans4init.kernels.torch_operators import once_differentiable

__all__ = ["compile_function"]


def compile_function(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    """Return `function` as `torch.compile` makes it, in one graph; options are those of `torch.compile`.

    A call raises UnavailableError where the backend fails on the graph, such as without a working C++ compiler. The
    result has no second derivative, and says so.
    """
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


def _sentence(error: Exception) -> str:
    """Say what failed, by the first line of the compiler's log that names an error, and the way out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    reason = next((line for line in lines if "error:" in line), lines[0])
    return (
        f"impl 'compile' can't be used on this machine, since torch.compile fails here ({type(error).__name__}: "
        f"{reason[:200].rstrip('.')}): choose another impl, such as 'auto', or another compiler or instruction set "
        f"(environment variables CXX and ATEN_CPU_CAPABILITY)."
    )
