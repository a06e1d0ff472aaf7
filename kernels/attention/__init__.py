"""Attention with a relative bias: a specification in eager PyTorch, PyTorch's own functions, and Triton kernels."""

from trans4init.kernels.attention.checks import IMPLEMENTATIONS
from trans4init.kernels.attention.op import attention
from trans4init.kernels.attention.reference import RelativeBias

__all__ = ["IMPLEMENTATIONS", "RelativeBias", "attention"]
