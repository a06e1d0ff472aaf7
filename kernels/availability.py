"""Whether Triton's kernels can run here, on which tensors, and on which device."""

import contextlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "HAS_TRITON", "dtype_names", "interpreted", "machine_refusal", "on_device_of"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HAS_TRITON = importlib.util.find_spec("triton") is not None  # looked up here: PyTorch 2.11's compiler can't follow it


def machine_refusal(tensor: Tensor) -> str | None:
    """Why kernels that Triton decorates as it is set up can't run on a tensor's device; None where they can."""
    if not HAS_TRITON:
        return "impl 'triton' needs Triton, which is not installed here."
    if not tensor.is_cuda and not interpreted():
        return (
            f"impl 'triton' runs on a GPU, or on a CPU where TRITON_INTERPRET=1 was set before Triton was imported, "
            f"and the tensors are on {tensor.device}."
        )
    return None


def interpreted() -> bool:
    """Whether Triton was imported for interpretation, its own library included."""
    from triton.language import standard
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(standard.cdiv, InterpretedFunction)


def dtype_names() -> str:
    """The dtypes that the kernels take, for a refusal."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current GPU, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
