"""Which query sees which key: causal order, padding and explicit masks, as one thing that attention applies.

B batch, H heads, Lq queries, Lk keys, D head dimension.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.kernels.attention import RelativeBias, attention
from trans4init.kernels.attention.reference import visible

__all__ = ["Visibility", "checked_lengths", "checked_mask"]


@dataclass(frozen=True)
class Visibility:
    """A query sees a key that nothing here hides; one that sees none gets 0."""

    causal: bool = False
    """Query i sees the keys j <= i + Lk − Lq: the ends are aligned."""
    lengths: Tensor | None = None
    """[B] int64: the keys of each batch entry that are real."""
    mask: Tensor | None = None
    """Broadcastable to [B, H, Lq, Lk]: bool, true where seen, or floats that are added to scores, −inf where not."""

    def of_last(self) -> "Visibility":
        """What the last query sees, where it is the only one."""
        return Visibility(lengths=self.lengths, mask=None if self.mask is None else self.mask[..., -1:, :])

    def seen(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Bool, broadcastable to [B, H, Lq, Lk]."""
        seen = visible(queries, keys, causal=self.causal, window=None, key_lengths=self.lengths, device=device)
        if self.mask is None:
            return seen
        return seen & (self.mask if self.mask.dtype == torch.bool else self.mask > -math.inf)

    def count(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """How many keys each query sees, at least 1: [Lq], or [B, 1, Lq], or what the mask makes of it."""
        if self.mask is None and self.lengths is None:
            first = keys - queries + 1 if self.causal else keys
            return torch.arange(first, first + queries, device=device) if self.causal else _full(first, queries, device)
        return self.seen(queries, keys, device).sum(-1).clamp_min(1)

    def added(self, seen: Tensor, bias: RelativeBias | Tensor | None, queries: int, keys: int) -> Tensor | None:
        """What is added to scores where a key is seen, from bias and mask, broadcastable to [B, H, Lq, Lk]."""
        dense = bias.dense(queries, keys) if isinstance(bias, RelativeBias) else bias
        if self.mask is None or self.mask.dtype == torch.bool:
            return dense
        mask = self.mask.masked_fill(~seen, 0.0)
        return mask if dense is None else dense + mask

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        bias: RelativeBias | Tensor | None,
        scale: float | None,
        dropout: float,
    ) -> Tensor:
        """Softmax attention by a fused operation: q [B, H, Lq, D], k, v [B, Hkv, Lk, D] to [B, H, Lq, D]."""
        alone = self.mask is None and self.lengths is None and bias is None and not dropout
        if alone and _is_one_of_few(q, k, v):
            return _one_of_few(q, k, v, scale)
        if self.mask is None:
            return attention(
                q, k, v, causal=self.causal, key_lengths=self.lengths, bias=bias, scale=scale, dropout_p=dropout
            )
        queries, keys = q.shape[-2], k.shape[-2]
        seen = self.seen(queries, keys, q.device)
        some = seen.any(dim=-1, keepdim=True)
        added = self.added(seen, bias, queries, keys)
        dense = torch.zeros((), dtype=q.dtype, device=q.device) if added is None else added.to(q.dtype)
        dense = torch.where(seen | ~some, dense, -math.inf)  # a row of −inf alone would be NaN
        return attention(q, k, v, bias=dense, scale=scale, dropout_p=dropout).masked_fill(~some, 0.0)


_FEW = 4
"""Keys up to which sums are quicker than PyTorch's fused operation: 14 ms against 27 for 6384 × 4 queries of 3 keys."""


def _is_one_of_few(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether it is training on a CPU with a single query for a few keys each."""
    if q.shape[-2] > 1 or k.shape[-2] > _FEW or q.shape[1] != k.shape[1] or not torch.is_grad_enabled():
        return False
    return q.device.type == "cpu" and q.dtype == k.dtype == v.dtype and not torch.is_autocast_enabled("cpu")


def _one_of_few(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """q [B, H, 1, D], k, v [B, H, Lk, D] to [B, H, 1, D]; the one query sees every key, also in causal order."""
    scores = (q * k).sum(dim=-1) * (q.shape[-1] ** -0.5 if scale is None else scale)  # [B, H, Lk]
    return (scores.softmax(dim=-1)[..., None] * v).sum(dim=-2, keepdim=True)


def _full(value: int, count: int, device: torch.device) -> Tensor:
    return torch.full((count,), value, device=device)


def checked_mask(mask: Tensor | None, batch: int, heads: int, queries: int, keys: int) -> Tensor | None:
    """A mask [Lq, Lk], [B, Lq, Lk] or [B or 1, H or 1, Lq, Lk] made to broadcast to [B, H, Lq, Lk].

    Raises InputError for another shape, and for numbers that are neither bool nor floating-point.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"a mask is bool (true where a key is seen) or added floats, and {mask.dtype} was given.")
    four = mask[:, None] if mask.dim() == 3 else mask
    wanted = (batch, heads, queries, keys)
    if four.dim() not in (2, 4) or any(n not in (1, m) for n, m in zip(four.shape[::-1], wanted[::-1], strict=False)):
        raise InputError(
            f"a mask is [{queries}, {keys}], [{batch}, {queries}, {keys}] or [{batch}, {heads}, {queries}, {keys}] "
            f"here, and {list(mask.shape)} was given."
        )
    return four


def checked_lengths(lengths: Tensor | None, batch: int, longest: int, what: str) -> Tensor | None:
    """Lengths [B]; raises InputError where they can't be those of a batch [B, longest].

    Their values are looked at on a CPU alone: on a GPU that would wait for it.
    """
    if lengths is None:
        return None
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise InputError(f"{what} must be [{batch}] integers, and is {list(lengths.shape)} {lengths.dtype}.")
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling() and batch:
        low, high = (int(value) for value in torch.aminmax(lengths))
        if low < 0 or high > longest:
            raise InputError(f"{what} must be from 0 to {longest}, and {high if high > longest else low} was given.")
    return lengths
