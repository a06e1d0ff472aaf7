"""Evaluate many small networks of one scalar at once, such as learned positional encodings and biases."""

from trans4init.kernels.positional_mlp.checks import IMPLEMENTATIONS
from trans4init.kernels.positional_mlp.op import positional_mlp
from trans4init.kernels.positional_mlp.reference import ACTIVATIONS, FEATURES
from trans4init.kernels.positional_mlp.relative import relative_mlp_attention

__all__ = ["ACTIVATIONS", "FEATURES", "IMPLEMENTATIONS", "positional_mlp", "relative_mlp_attention"]
