"""One attention function for every model of the project; `impl` says which code computes it."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.kernels.attention.reference import RelativeBias, reference_attention, visible

__all__ = ["IMPLEMENTATIONS", "attention"]

Implementation = Literal["auto", "reference", "sdpa"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "sdpa")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    key_lengths: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    impl: Implementation = "auto",
) -> Tensor:
    """softmax(scale · q kᵀ + bias) v.

    q [B, H, Lq, D]; k, v [B, Hkv, Lk, D], H a multiple of Hkv (grouped queries) -> [B, H, Lq, D].
    bias: `RelativeBias`, or a float tensor broadcastable to [B, H, Lq, Lk]. causal: query i sees keys
    j <= i + Lk - Lq. window w: and i + Lk - Lq - w < j. key_lengths: [B], the keys of each batch entry that are
    real. scale: 1/√D unless given. A query that sees no key gives 0.

    impl: "reference" is the eager specification; "sdpa" is `torch.nn.functional.scaled_dot_product_attention`, and
    refuses a bias, whose gradient it gets wrong on some GPUs; "auto" is the faster of the two that can do the call.
    Raises ValueError, in one sentence and before any computation, for shapes that don't fit and for a combination
    that the implementation can't do.
    """
    _check(q, k, v, bias, window, key_lengths, impl)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if impl == "reference" or (impl == "auto" and bias is not None):
        return reference_attention(
            q,
            k,
            v,
            bias=bias,
            causal=causal,
            window=window,
            key_lengths=key_lengths,
            scale=scale,
            dropout_p=dropout_p,
        )
    return _sdpa(q, k, v, causal=causal, window=window, key_lengths=key_lengths, scale=scale, dropout_p=dropout_p)


def _sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    scale: float,
    dropout_p: float,
) -> Tensor:
    queries, keys = q.shape[-2], k.shape[-2]
    grouped = q.shape[1] != k.shape[1]
    if window is None and key_lengths is None and (not causal or queries == keys):
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, dropout_p=dropout_p, enable_gqa=grouped
        )
    seen = visible(queries, keys, causal=causal, window=window, key_lengths=key_lengths, device=q.device)
    some = seen.any(dim=-1, keepdim=True)
    # A row without a key would be NaN: let it see all of them, then take its result away.
    result = F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen | ~some, scale=scale, dropout_p=dropout_p, enable_gqa=grouped
    )
    return result.masked_fill(~some, 0.0)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    window: int | None,
    key_lengths: Tensor | None,
    impl: str,
) -> None:
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} must be [batch, heads, length, head dim], and has shape {list(tensor.shape)}.")
    if k.shape != v.shape or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"k and v must share a shape that fits q; q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}."
        )
    if not q.dtype == k.dtype == v.dtype or not q.device == k.device == v.device:
        raise ValueError(f"q, k and v must share dtype and device; given are {q.dtype}, {k.dtype}, {v.dtype}.")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads can't share {k.shape[1]} key heads evenly.")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, and {window} was given.")
    if key_lengths is not None and key_lengths.shape != (q.shape[0],):
        raise ValueError(f"key_lengths must be [{q.shape[0]}], and has shape {list(key_lengths.shape)}.")
    if isinstance(bias, RelativeBias):
        expected = (q.shape[1], q.shape[2] + k.shape[2] - 1)
        if bias.table.shape != expected:
            raise ValueError(f"the bias table must be {list(expected)}, and has shape {list(bias.table.shape)}.")
    if bias is not None and impl == "sdpa":
        raise ValueError("impl 'sdpa' takes no bias: its gradient is not right everywhere; use 'reference' or 'auto'.")
    if not isinstance(q, torch.Tensor) or not q.is_floating_point():
        raise ValueError(f"q must be a floating-point tensor, and is {q.dtype}.")
