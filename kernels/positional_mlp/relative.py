"""Compute attention whose relative bias is a network of i - j: network, table and attention in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.attention import RelativeBias, attention
from trans4init.kernels.positional_mlp.checks import Implementation
from trans4init.kernels.positional_mlp.op import positional_mlp

__all__ = ["relative_mlp_attention"]


def relative_mlp_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str,
    activation: str = "gelu",
    unit: float = 1.0,
    mlp_impl: Implementation = "auto",
    **attention_options: Any,
) -> Tensor:
    """Return softmax(scale · q kᵀ + net((i - j) / unit)) v, with exact gradients to the network.

    q [B, H, Lq, D]; k, v [B, Hkv, Lk, D] -> [B, H, Lq, D]. frequencies, weights, biases, features, activation: as for
    `positional_mlp`; the G nets with `out` outputs each give the biases of the H = G · out heads, net by net.
    unit: the distance that counts as 1, such as the context length for "linear". attention_options: as for
    `attention`, without `bias`.

    The networks are evaluated at the Lq + Lk - 1 distances, not at the Lq · Lk pairs. "log" features give KERPLE
    (Chi et al. 2022) and FIRE below its threshold (Li et al. 2024, with a constant normaliser): FIRE's division by
    the query's position is not a function of i - j and is not covered.
    Raises ValueError where the networks don't have one output per head, and where the two functions do.
    """
    if "bias" in attention_options:
        raise ValueError("the networks give the bias: a second one can't be given as `bias`.")
    heads = weights[0].shape[0] * weights[-1].shape[2]
    if heads != q.shape[1]:
        raise ValueError(f"the networks have {heads} outputs, and there are {q.shape[1]} query heads.")
    queries, keys = q.shape[2], k.shape[2]
    exact = torch.promote_types(frequencies.dtype, torch.float32)
    distances = torch.arange(1 - keys, queries, device=q.device, dtype=exact) / unit
    values = positional_mlp(
        distances, frequencies, weights, biases, features=features, activation=activation, impl=mlp_impl
    )
    table = values.transpose(1, 2).reshape(heads, queries + keys - 1)  # [G, T, out] to [H, T]
    out: Tensor = attention(q, k, v, bias=RelativeBias(table), **attention_options)
    return out
