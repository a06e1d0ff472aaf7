"""Which query sees which key: causal order, padding and explicit masks.

B batch, H heads, Lq queries, Lk keys.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.kernels.attention import RelativeBias
from trans4init.kernels.attention.reference import visible

__all__ = ["SeenKeys", "Visibility", "checked_lengths", "checked_mask"]


@dataclass(frozen=True)
class SeenKeys:
    """Which of Lk keys each of Lq queries sees."""

    seen: Tensor
    """Bool, broadcastable to [B, H, Lq, Lk]."""
    hidden: Tensor
    """The opposite of `seen`, but false for a blind query: softmax over a row without any key would be NaN."""
    blind: Tensor | None
    """Bool, [..., Lq, 1]: the queries that see no key. None where every query is sure to see one."""
    floats: Tensor | None
    """A mask of floats, which are added to scores, with 0 in place of −inf."""

    def counts(self) -> Tensor:
        """Return how many keys each query sees, at least 1: [Lq], [B, 1, Lq] or [B, H, Lq]."""
        return self.seen.sum(-1).clamp_min(1)

    def added(self, bias: RelativeBias | Tensor | None) -> Tensor | None:
        """Return the sum of a bias and the mask's floats, broadcastable to [B, H, Lq, Lk]; None if there is neither."""
        dense = bias.dense(*self.seen.shape[-2:]) if isinstance(bias, RelativeBias) else bias
        if self.floats is None:
            return dense
        return self.floats if dense is None else dense + self.floats

    def without_blind(self, rows: Tensor) -> Tensor:
        """Set the rows [B, H, Lq, n] of blind queries, which were computed as if they saw every key, to 0."""
        return rows if self.blind is None else rows.masked_fill(self.blind, 0.0)


@dataclass(frozen=True)
class Visibility:
    """Holds the rules that hide keys from queries. A query that sees no key gets 0 from attention."""

    causal: bool = False
    """Query i sees the keys j <= i + Lk − Lq: the ends are aligned."""
    lengths: Tensor | None = None
    """[B] int64: the number of real keys of each batch entry; the keys behind them are padding."""
    mask: Tensor | None = None
    """Broadcastable to [B, H, Lq, Lk]: bool, true where seen, or floats that are added to scores, −inf where not."""

    def of_last_query(self) -> "Visibility":
        """Return the rules for the last query when it is the only one."""
        return Visibility(lengths=self.lengths, mask=None if self.mask is None else self.mask[..., -1:, :])

    def seen_keys(self, queries: int, keys: int, device: torch.device) -> SeenKeys:
        """Apply the rules to that many queries and keys."""
        seen = visible(queries, keys, causal=self.causal, window=None, key_lengths=self.lengths, device=device)
        floats = None
        if self.mask is not None:
            seen = seen & (self.mask if self.mask.dtype == torch.bool else self.mask > -math.inf)
            floats = None if self.mask.dtype == torch.bool else self.mask.masked_fill(~seen, 0.0)
        if self.mask is None and self.lengths is None:
            return SeenKeys(seen, ~seen, None, None)
        some = seen.any(dim=-1, keepdim=True)
        return SeenKeys(seen, ~seen & some, ~some, floats)


def checked_mask(mask: Tensor | None, batch: int, heads: int, queries: int, keys: int) -> Tensor | None:
    """Return a mask [Lq, Lk], [B, Lq, Lk] or [B or 1, H or 1, Lq, Lk] in a shape that broadcasts to [B, H, Lq, Lk].

    Raises InputError for another shape, and for numbers that are neither bool nor floating-point.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"a mask is bool (true where a key is seen) or added floats, and {mask.dtype} was given.")
    by_head = mask[:, None] if mask.dim() == 3 else mask
    sizes = (batch, heads, queries, keys)
    if by_head.dim() not in (2, 4) or any(
        n not in (1, m) for n, m in zip(by_head.shape[::-1], sizes[::-1], strict=False)
    ):
        raise InputError(
            f"a mask is [{queries}, {keys}], [{batch}, {queries}, {keys}] or [{batch}, {heads}, {queries}, {keys}] "
            f"here, and {list(mask.shape)} was given."
        )
    return by_head


def checked_lengths(lengths: Tensor | None, batch: int, longest: int, name: str, *, least: int = 0) -> Tensor | None:
    """Return the lengths [B]; raise InputError, which calls them by `name`, if a batch [B, longest] can't have them.

    Their values are checked on a CPU only: on a GPU the check would wait for the device.
    """
    if lengths is None:
        return None
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise InputError(f"{name} must be [{batch}] integers, and is {list(lengths.shape)} {lengths.dtype}.")
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling() and batch:
        low, high = (int(value) for value in torch.aminmax(lengths))
        if low < least or high > longest:
            given = high if high > longest else low
            raise InputError(f"{name} must be from {least} to {longest}, and {given} was given.")
    return lengths
