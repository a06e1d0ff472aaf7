"""Attention with a relative bias."""

from trans4init.kernels.attention.op import IMPLEMENTATIONS, attention
from trans4init.kernels.attention.reference import RelativeBias

__all__ = ["IMPLEMENTATIONS", "RelativeBias", "attention"]
