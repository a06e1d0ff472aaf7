"""PyTorch's own attention behind our signature: `scaled_dot_product_attention` and `flex_attention`."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trans4init.kernels.attention.reference import RelativeBias, visible

__all__ = ["flex", "sdpa"]


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """Attention by `scaled_dot_product_attention`; what it can't name becomes a mask of Lq · Lk entries.

    A bias keeps cuDNN out: its gradient of a float mask has been wrong on Hopper GPUs.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    # The comparison itself is a symbol where shapes are, which PyTorch's function doesn't take.
    grouped: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    attend = functools.partial(F.scaled_dot_product_attention, q, k, v, scale=scale, dropout_p=dropout_p, **grouped)
    if bias is None and window is None and key_lengths is None and (not causal or queries == keys):
        return attend(is_causal=causal)
    seen = visible(queries, keys, causal=causal, window=window, key_lengths=key_lengths, device=q.device)
    some = seen.any(dim=-1, keepdim=True)
    # A row without a key would be NaN: let it see all of them, then take its result away.
    mask = seen | ~some
    backends: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if bias is not None:
        dense = bias.dense(queries, keys) if isinstance(bias, RelativeBias) else bias
        mask = dense.to(q.dtype).masked_fill(~mask, -math.inf)
        if q.device.type == "cuda":
            backends = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    with backends:
        return attend(attn_mask=mask).masked_fill(~some, 0.0)


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    scale: float,
) -> Tensor:
    """Attention by `flex_attention`, compiled on a GPU, its unfused form elsewhere."""
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    score: Callable[..., Tensor] | None = None
    if isinstance(bias, RelativeBias):
        table = bias.table

        def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return value + table[h, i - j + keys - 1]
    elif bias is not None:
        dense = bias.expand(batch, heads, queries, keys)

        def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return value + dense[b, h, i, j]

    mask = None
    if key_lengths is not None:
        mask = _new_block_mask(causal, window, queries, keys, q.device, key_lengths)
    elif causal or window is not None:
        mask = _block_mask(causal, window, queries, keys, q.device)
    out: Tensor = _flex_attention(q.device.type)(
        q, k, v, score_mod=score, block_mask=mask, scale=scale, enable_gqa=heads != k.shape[1]
    )
    return out


def _new_block_mask(
    causal: bool, window: int | None, queries: int, keys: int, device: torch.device, key_lengths: Tensor | None
) -> Any:
    """Which blocks of keys a block of queries sees; of each batch entry where their lengths differ."""
    from torch.nn.attention.flex_attention import create_block_mask

    shift = keys - queries

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        result = j < keys
        if causal:
            result = result & (j <= i + shift)
        if window is not None:
            result = result & (j > i + shift - window)
        if key_lengths is not None:
            result = result & (j < key_lengths[b])
        return result

    batch = None if key_lengths is None else len(key_lengths)
    return create_block_mask(seen, B=batch, H=None, Q_LEN=queries, KV_LEN=keys, device=device)


@functools.lru_cache(maxsize=8)
def _block_mask(causal: bool, window: int | None, queries: int, keys: int, device: torch.device) -> Any:
    """The same for all batch entries, made once: it takes longer than the attention."""
    return _new_block_mask(causal, window, queries, keys, device, None)


@functools.cache
def _flex_attention(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=False)
