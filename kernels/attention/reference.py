"""Attention in eager PyTorch: the specification that every other implementation is held against.

B batch, H query heads, Hkv key/value heads, Lq queries, Lk keys, D head dimension.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RelativeBias", "draw_seed", "kept", "reference_attention", "visible"]


@dataclass(frozen=True)
class RelativeBias:
    """A bias on attention scores that depends on the head and on i - j alone.

    table: [H, Lq + Lk - 1] float32; entry [h, i - j + Lk - 1] is added to the scaled score of query i and key j,
    both counted from 0. T5, ALiBi, KERPLE and any network of i - j are such tables.
    """

    table: Tensor

    def dense(self, queries: int, keys: int) -> Tensor:
        """The bias of every pair, [H, Lq, Lk]."""
        offset = torch.arange(queries, device=self.table.device)[:, None]
        offset = offset - torch.arange(keys, device=self.table.device) + keys - 1
        return self.table[:, offset]


def reference_attention(
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
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale · q kᵀ + bias) v over the visible keys (Vaswani et al. 2017, section 3.2.1, equation 1).

    q [B, H, Lq, D]; k, v [B, Hkv, Lk, D] -> out [B, H, Lq, D] and the log-sum-exp of each row's scores [B, H, Lq],
    float32 or better. A row that sees no key, or all of them with a bias of -inf, gives 0 and -inf. `seed` [1] int64
    decides what dropout keeps.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = scale * (q @ k.transpose(-1, -2))  # [B, H, Lq, Lk]
    if isinstance(bias, RelativeBias):
        scores = scores + bias.dense(queries, keys).to(scores.dtype)
    elif bias is not None:
        scores = scores + bias.to(scores.dtype)
    seen = visible(queries, keys, causal=causal, window=window, key_lengths=key_lengths, device=q.device)
    scores = scores.masked_fill(~seen, -math.inf)
    some = scores.detach().amax(dim=-1, keepdim=True) != -math.inf
    scores = scores.masked_fill(~some, 0.0)  # a row of -inf alone would make NaN, here and in the gradient
    weights = scores.softmax(dim=-1)
    if seed is not None and dropout_p > 0:
        keep = kept(seed, q.shape[0], q.shape[1], queries, keys, dropout_p)
        weights = (weights / (1 - dropout_p) if dropout_p < 1 else weights).masked_fill(~keep, 0.0)
    wide = torch.promote_types(scores.dtype, torch.float32)
    lse = scores.to(wide).logsumexp(dim=-1).masked_fill(~some[..., 0], -math.inf)
    return (weights @ v).masked_fill(~some, 0.0), lse


def visible(
    queries: int,
    keys: int,
    *,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Which query sees which key: bool, broadcastable to [B, H, Lq, Lk].

    Query i stands at key position i + Lk - Lq: the ends are aligned. Causal, it sees j up to there; with a window w,
    only keys with i + Lk - Lq - w < j. `key_lengths` [B] hides keys at and beyond each length.
    """
    position = torch.arange(queries, device=device)[:, None] + keys - queries
    key = torch.arange(keys, device=device)
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if causal:
        seen = seen & (key <= position)
    if window is not None:
        seen = seen & (key > position - window)
    if key_lengths is not None:
        return seen & (key < key_lengths[:, None, None, None])
    return seen


def draw_seed(device: torch.device) -> Tensor:
    """A dropout seed from PyTorch's generator of that device: [1] int64, never read by the host."""
    return torch.randint(0, 2**31 - 1, (1,), device=device)


def kept(seed: Tensor, batch: int, heads: int, queries: int, keys: int, dropout_p: float) -> Tensor:
    """Which weights dropout keeps, bool [B, H, Lq, Lk]: a function of the seed and of each weight's place alone.

    A weight is kept where 24 hashed bits reach dropout_p · 2²⁴, so that any code that knows the place can ask again.
    """
    device = seed.device
    planes = torch.arange(batch * heads, device=device).view(batch, heads, 1, 1)
    rows = torch.arange(queries, device=device)[:, None]
    columns = torch.arange(keys, device=device)
    key = _mix((_mix(seed ^ _mix(planes)) + rows) & 0xFFFFFFFF)
    return (_mix(key ^ _mix(columns)) >> 8) >= round(dropout_p * 2**24)


def _mix(x: Tensor) -> Tensor:
    """lowbias32 (C. Wellons, "Prospecting for hash functions") on uint32 values kept in int64."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
