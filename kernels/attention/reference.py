"""Attention in eager PyTorch: the specification that every other implementation is tested against.

B batch, H query heads, Hkv key/value heads, Lq queries, Lk keys, D head dimension.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Options", "RelativeBias", "dense_bias", "draw_seed", "kept", "reference_attention", "visible"]


@dataclass(frozen=True)
class RelativeBias:
    """A bias on attention scores that depends only on the head and on i - j.

    table: [H, Lq + Lk - 1] float32; entry [h, i - j + Lk - 1] is added to the scaled score of query i and key j,
    both counted from 0. T5, ALiBi, KERPLE and any network of i - j are such tables.
    """

    table: Tensor

    def dense(self, queries: int, keys: int) -> Tensor:
        """Return the bias of every pair, [H, Lq, Lk]."""
        offset = torch.arange(queries, device=self.table.device)[:, None]
        offset = offset - torch.arange(keys, device=self.table.device) + keys - 1
        return self.table[:, offset]


@dataclass(frozen=True)
class Options:
    """What a call asks for besides its tensors.

    causal, window: which keys a query sees, as `visible` says; window None is no window. scale: the factor of q kᵀ.
    dropout_p: the share of weights that is dropped. deterministic: the same gradients to the last bit in every run.
    """

    causal: bool
    window: int | None
    scale: float
    dropout_p: float = 0.0
    deterministic: bool = False


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    key_lengths: Tensor | None,
    seed: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(scale · q kᵀ + bias) v over the visible keys (Vaswani et al. 2017, section 3.2.1, equation 1).

    q [B, H, Lq, D]; k, v [B, Hkv, Lk, D] -> out [B, H, Lq, D] and the log-sum-exp of each row's scores [B, H, Lq].
    Everything is computed in float32, or in float64 for float64 inputs, and `out` is rounded once to q's dtype: q kᵀ
    can pass what float16 holds. A row that sees no key, or all of them with a bias of -inf, gives 0 and -inf. `seed`
    [1] int64 decides what dropout keeps; without one nothing is dropped.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    groups = q.shape[1] // k.shape[1]
    dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    q, k, v = options.scale * q.to(wide), k.to(wide), v.to(wide)
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(-1, -2)  # [B, H, Lq, Lk]
    if bias is not None:
        scores = scores + dense_bias(bias, queries, keys, wide)
    mask = visible(
        queries, keys, causal=options.causal, window=options.window, key_lengths=key_lengths, device=q.device
    )
    scores = scores.masked_fill(~mask, -math.inf)
    sees_any = scores.detach().amax(dim=-1, keepdim=True) != -math.inf
    scores = scores.masked_fill(~sees_any, 0.0)  # a row that is all -inf would give NaN, here and in the gradient
    weights = scores.softmax(dim=-1)
    dropped = options.dropout_p
    if seed is not None and dropped > 0:
        keep = kept(seed, q.shape[0], q.shape[1], queries, keys, dropped)
        weights = (weights / (1 - dropped) if dropped < 1 else weights).masked_fill(~keep, 0.0)
    lse = scores.logsumexp(dim=-1).masked_fill(~sees_any[..., 0], -math.inf)
    return (weights @ v).masked_fill(~sees_any, 0.0).to(dtype), lse


def dense_bias(bias: RelativeBias | Tensor, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Return a bias in `dtype`, broadcastable to [B, H, Lq, Lk].

    It is cast before it is spread, so that its gradient is summed in `dtype` and rounded once.
    """
    if isinstance(bias, RelativeBias):
        return RelativeBias(bias.table.to(dtype)).dense(queries, keys)
    return bias.to(dtype)


def visible(
    queries: int,
    keys: int,
    *,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Return which query sees which key: bool, broadcastable to [B, H, Lq, Lk].

    Query i stands at key position i + Lk - Lq: the ends are aligned. With `causal` it sees no key j after that; with a
    window w only keys with i + Lk - Lq - w < j. `key_lengths` [B] hides keys at and beyond each length.
    """
    position = torch.arange(queries, device=device)[:, None] + keys - queries
    key = torch.arange(keys, device=device)
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if causal:
        mask = mask & (key <= position)
    if window is not None:
        mask = mask & (key > position - window)
    if key_lengths is not None:
        return mask & (key < key_lengths[:, None, None, None])
    return mask


def draw_seed(device: torch.device) -> Tensor:
    """Draw a dropout seed from PyTorch's generator of that device: [1] int64, which the host never reads."""
    return torch.randint(0, 2**31 - 1, (1,), device=device)


def kept(seed: Tensor, batch: int, heads: int, queries: int, keys: int, dropout_p: float) -> Tensor:
    """Return which weights dropout keeps, bool [B, H, Lq, Lk]: a function of the seed and each weight's place alone.

    A weight is kept where 24 bits of a hash reach dropout_p · 2²⁴, so that any code that knows the place can compute
    the same answer.
    """
    device = seed.device
    planes = torch.arange(batch * heads, device=device).view(batch, heads, 1, 1)
    rows = torch.arange(queries, device=device)[:, None]
    columns = torch.arange(keys, device=device)
    key = _mix((_mix(seed ^ _mix(planes)) + rows) & 0xFFFFFFFF)
    return (_mix(key ^ _mix(columns)) >> 8) >= round(dropout_p * 2**24)


def _mix(x: Tensor) -> Tensor:
    """Hash uint32 values that are held in int64, by lowbias32 (C. Wellons, "Prospecting for hash functions")."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
