"""The keys and values of what a model has read, so that each new token costs one token's work.

B batch, L new tokens, M room, Hkv key/value heads, D head dimension.
"""

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError

__all__ = ["DecodingCache", "KeysValues"]

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each [B, Hkv, L, D]."""


class DecodingCache:
    """Self-attention's keys and values by layer, and the memory's for cross-attention.

    Each batch entry has its own length: a key stands at its token's position, so prompts may differ in length.
    """

    def __init__(self, layers: int, room: int, start: Tensor) -> None:
        """Room for `room` tokens; start [B, Hkv, 1, D]: a tensor of the shape, dtype and device of the keys."""
        batch, heads, _, head_dim = start.shape
        self.room = room
        self.lengths = torch.zeros(batch, dtype=torch.long, device=start.device)
        """Tokens read, [B]."""
        self.filled = 0
        """The most tokens that any entry may have; known without asking the device."""
        self.uniform = True
        """Whether all entries have the same length."""
        shape = (layers, 2, batch, heads, room, head_dim)
        self._kept = torch.zeros(shape, dtype=start.dtype, device=start.device)
        self.cross: list[KeysValues] = []
        """Keys and values of the memory by layer; empty in a model without cross-attention."""
        self.source_lengths: Tensor | None = None

    @property
    def batch(self) -> int:
        """B."""
        return self._kept.shape[2]

    def positions(self, count: int) -> Tensor:
        """Where the next `count` tokens stand, [B, count]."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def check_room(self, count: int) -> None:
        """Raise InputError where that many more tokens don't fit."""
        if self.filled + count > self.room:
            raise InputError(
                f"the cache has room for {self.room} tokens, and {count} more after {self.filled} don't fit."
            )

    def extend(self, layer: int, k: Tensor, v: Tensor) -> KeysValues:
        """Keep the keys and values of new tokens at their positions; all of them by now, [B, Hkv, Lk, D]."""
        kept, count = self._kept[layer], k.shape[-2]
        if self.filled == 0:
            kept[0, :, :, :count], kept[1, :, :, :count] = k, v
            return k, v
        index = self.positions(count)[:, None, :, None].expand(k.shape)
        for one, new in zip(kept, (k, v), strict=True):
            one.scatter_(2, index, new.to(one.dtype))
        return kept[0, :, :, : self.filled + count], kept[1, :, :, : self.filled + count]

    def advance(self, count: int, lengths: Tensor | None) -> None:
        """Count what was read: `count` tokens, of which `lengths` [B] are real."""
        self.lengths = self.lengths + (count if lengths is None else lengths)
        self.filled += count
        self.uniform = self.uniform and lengths is None

    def reorder(self, rows: Tensor, *, same_source: bool = False) -> None:
        """Make entry i what entry rows[i] was, rows [B'] int64: as hypotheses are chosen, repeated or given up.

        same_source: B' is B, and each entry goes on from one with the same source.
        """
        used = self._kept[..., : self.filled, :].index_select(2, rows)
        if len(rows) != self.batch:
            layers, two, _, heads, room, head_dim = self._kept.shape
            self._kept = self._kept.new_zeros(layers, two, len(rows), heads, room, head_dim)
        self._kept[..., : self.filled, :] = used
        self.lengths = self.lengths[rows]
        if not same_source:
            self.cross = [(k[rows], v[rows]) for k, v in self.cross]
            self.source_lengths = None if self.source_lengths is None else self.source_lengths[rows]
