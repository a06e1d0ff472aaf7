"""Tell whether this machine can run an implementation, and in one sentence why not."""

import importlib.util

import torch
from torch import Tensor

__all__ = ["DTYPES", "HAS_TRITON", "UnavailableError", "dtype_names", "machine_refusal"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes that the Triton kernels take, and that autocast casts from."""
HAS_TRITON = importlib.util.find_spec("triton") is not None  # looked up here: PyTorch 2.11's compiler can't trace it


class UnavailableError(ValueError):
    """An implementation that was asked for by name can't run on this machine; the message says why, in one sentence."""


def machine_refusal(tensor: Tensor) -> str | None:
    """Return why a tensor's device can't run Triton kernels, in one sentence; None where it can."""
    if not HAS_TRITON:
        return "impl 'triton' needs Triton, which is not installed here."
    if tensor.device.type not in ("cuda", "cpu"):
        return f"impl 'triton' runs on a GPU, or interpreted on a CPU, and the tensors are on {tensor.device}."
    return None


def dtype_names() -> str:
    """Return the names of `DTYPES` for an error message."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
