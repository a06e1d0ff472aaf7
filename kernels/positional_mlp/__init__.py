"""Many small networks of one scalar, evaluated at once."""

from trans4init.kernels.positional_mlp.op import IMPLEMENTATIONS, positional_mlp
from trans4init.kernels.positional_mlp.reference import ACTIVATIONS, FEATURES
from trans4init.kernels.positional_mlp.relative import relative_mlp_attention

__all__ = ["ACTIVATIONS", "FEATURES", "IMPLEMENTATIONS", "positional_mlp", "relative_mlp_attention"]
