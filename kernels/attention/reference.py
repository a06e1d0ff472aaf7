"""Attention in eager PyTorch: the specification that every other implementation is tested against.

B batch, H query heads, Hkv key/value heads, Lq queries, Lk keys, D head dimension, Dv that of the values.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Options",
    "RelativeBias",
    "Window",
    "bounds",
    "dense_bias",
    "draw_seed",
    "kept",
    "reference_attention",
    "visible",
]

Window = int | tuple[int | None, int | None]
"""How many keys up to its own position a query sees; or how many before it and how many after it, None for all."""


@dataclass(frozen=True)
class RelativeBias:
    """Gives attention scores a bias that depends only on the head and on i - j.

    table: [H, Lq + Lk - 1] float32; entry [h, i - j + Lk - 1] is added to the scaled score of query i and key j,
    both counted from 0. T5, ALiBi, KERPLE and any network of i - j are such tables.

    Causal order and windows align the ends of queries and keys instead: query i stands at key position i + Lk - Lq.
    Where Lq and Lk differ, a bias by the distance from there, such as flash-attention's ALiBi, is the table shifted by
    Lk - Lq: entry [h, t] is then its value at the distance t - (Lk - 1) + Lk - Lq = t - Lq + 1.
    """

    table: Tensor

    def dense(self, queries: int, keys: int) -> Tensor:
        """Return the bias of every pair, [H, Lq, Lk]."""
        offset = torch.arange(queries, device=self.table.device)[:, None]
        offset = offset - torch.arange(keys, device=self.table.device) + keys - 1
        return self.table[:, offset]


@dataclass(frozen=True)
class Options:
    """Says what a call asks for besides its tensors.

    causal, window: which keys a query sees, as `visible` says; window None is no window. scale: the factor of q kᵀ.
    softcap: the bound c of the scaled scores, which become c tanh(s / c); None is no bound. dropout_p: the share of
    weights that is dropped. deterministic: the same gradients to the last bit in every run.
    """

    causal: bool
    window: Window | None
    scale: float
    dropout_p: float = 0.0
    deterministic: bool = False
    softcap: float | None = None

    @property
    def left(self) -> int | None:
        """How many keys before its own position a query sees; None for all."""
        return bounds(self.causal, self.window)[0]

    @property
    def right(self) -> int | None:
        """How many keys after its own position a query sees; None for all."""
        return bounds(self.causal, self.window)[1]


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    seed: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(scale · q kᵀ + bias) v over the visible keys (Vaswani et al. 2017, section 3.2.1, equation 1).

    q [B, H, Lq, D]; k [B, Hkv, Lk, D]; v [B, Hkv, Lk, Dv] -> out [B, H, Lq, Dv] and the log-sum-exp of each row's
    scores [B, H, Lq]. With a softcap c the scaled scores s become c tanh(s / c) before the bias is added (Gemma 2).
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
    if options.softcap is not None:
        scores = options.softcap * (scores / options.softcap).tanh()
    if bias is not None:
        scores = scores + dense_bias(bias, queries, keys, wide)
    mask = visible(
        queries,
        keys,
        causal=options.causal,
        window=options.window,
        key_lengths=key_lengths,
        query_lengths=query_lengths,
        device=q.device,
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


def bounds(causal: bool, window: Window | None) -> tuple[int | None, int | None]:
    """Return how many keys before and after its own position a query sees, each None for all."""
    left, right = window if isinstance(window, tuple) else (None if window is None else window - 1, None)
    return left, 0 if causal else right


def visible(
    queries: int,
    keys: int,
    *,
    causal: bool,
    window: Window | None,
    key_lengths: Tensor | None,
    device: torch.device,
    query_lengths: Tensor | None = None,
) -> Tensor:
    """Return which query sees which key: bool, broadcastable to [B, H, Lq, Lk].

    Query i stands at key position i + Lk - Lq: the ends are aligned. `causal` and `window` bound how far from there a
    key is seen, as `bounds` says. `key_lengths` [B] hides keys at and beyond each length. With `query_lengths` [B] the
    ends are aligned entry by entry: query i stands at i + key length - query length, and from the query length on
    queries see nothing.
    """
    row = torch.arange(queries, device=device)[:, None]
    key = torch.arange(keys, device=device)
    left, right = bounds(causal, window)
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    position = row + keys - queries
    if query_lengths is not None:
        real_queries = query_lengths.long().clamp(0, queries)[:, None, None, None]
        real_keys = keys if key_lengths is None else key_lengths.long().clamp(0, keys)[:, None, None, None]
        mask = mask & (row < real_queries)
        position = row + real_keys - real_queries
    if right is not None:
        mask = mask & (key <= position + right)
    if left is not None:
        mask = mask & (key >= position - left)
    if key_lengths is not None:
        mask = mask & (key < key_lengths[:, None, None, None])
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
