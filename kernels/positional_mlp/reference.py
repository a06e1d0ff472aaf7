"""The batched positional MLP in eager PyTorch: the specification that every other implementation is tested against.

G nets, N positions, F frequencies, B batch entries of `add_to`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ACTIVATIONS", "FEATURES", "add_encoding", "feature_dtype", "reference_positional_mlp"]


def _fourier(positions: Tensor, frequencies: Tensor) -> Tensor:
    angles = positions[..., None] * frequencies[..., None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _log(positions: Tensor, frequencies: Tensor) -> Tensor:
    return (frequencies[..., None, :] * positions.abs()[..., None]).log1p()


def _linear(positions: Tensor, frequencies: Tensor) -> Tensor:
    return positions[..., None] * frequencies[..., None, :]


FEATURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"fourier": _fourier, "log": _log, "linear": _linear}
"""Features by name: from positions p [..., N] and frequencies w [..., F] to [..., N, F], or [..., N, 2F] for "fourier".

"fourier" is [sin(p w), cos(p w)] (Tancik et al. 2020, section 4), "log" log(1 + w |p|) (KERPLE, Chi et al. 2022,
section 4), "linear" p w.
"""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sin": torch.sin,
}
"""Activations of the hidden layers by name; "gelu" is the exact form, with erf."""


def feature_dtype(positions: Tensor, frequencies: Tensor, weight: Tensor) -> torch.dtype:
    """Return the dtype that features are computed in: the widest of the three dtypes and float32, exact to 2^24."""
    widest = torch.promote_types(positions.dtype, frequencies.dtype)
    return torch.promote_types(torch.promote_types(widest, weight.dtype), torch.float32)


def reference_positional_mlp(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str,
    activation: str,
    add_to: Tensor | None,
) -> Tensor:
    """Compute features(p, w) -> [activation(h W + b)] one to three times -> h W + b, for G nets.

    Arguments and result are those of `positional_mlp`, which checks them.
    """
    exact = feature_dtype(positions, frequencies, weights[0])
    state = FEATURES[features](positions.to(exact), frequencies.to(exact)).to(weights[0].dtype)  # [N or G, N, inputs]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        state = ACTIVATIONS[activation](state @ weight + bias[:, None])  # [G, N, width]
    return add_encoding(state @ weights[-1] + biases[-1][:, None], add_to)


def add_encoding(encoding: Tensor, add_to: Tensor | None) -> Tensor:
    """Return encoding [G, N, out] + add_to [(G,) B, N, out], rounded once to add_to's dtype; or the encoding alone."""
    if add_to is None:
        return encoding
    return (add_to + (encoding[:, None] if add_to.dim() == 4 else encoding)).to(add_to.dtype)
