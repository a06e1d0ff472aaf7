"""The key/value cache: with the keys and values of all earlier tokens kept, a new token costs one token's work.

B batch, L new tokens, M room, Hkv key/value heads, D head dimension.
"""

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError

__all__ = ["KeyValueCache", "KeysValues"]

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each [B, Hkv, L, D]."""


class KeyValueCache:
    """Holds the keys and values of self-attention by layer, and those of the encoder's output for cross-attention.

    Each batch entry has its own length: a key is stored at its token's position, so prompts may differ in length.
    """

    def __init__(self, layers: int, room: int, example_key: Tensor) -> None:
        """Make an empty cache for `room` tokens; example_key [B, Hkv, 1, D] has the dtype and device of the keys."""
        batch, heads, _, head_dim = example_key.shape
        self.room = room
        self.lengths = torch.zeros(batch, dtype=torch.long, device=example_key.device)
        """The number of tokens read, [B]."""
        self.filled = 0
        """An upper bound of `lengths`, known without asking the device."""
        self.uniform = True
        """Whether all entries have the same length."""
        shape = (layers, 2, batch, heads, room, head_dim)
        self._keys_values = torch.zeros(shape, dtype=example_key.dtype, device=example_key.device)
        self.cross: list[KeysValues] = []
        """Keys and values of the encoder's output by layer; empty in a model without cross-attention."""
        self.source_lengths: Tensor | None = None

    @property
    def batch(self) -> int:
        """The number of batch entries, B."""
        return self._keys_values.shape[2]

    def positions(self, count: int) -> Tensor:
        """Return the positions of the next `count` tokens, [B, count]."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def check_room(self, count: int) -> None:
        """Raise InputError if `count` more tokens don't fit."""
        if self.filled + count > self.room:
            raise InputError(
                f"the cache has room for {self.room} tokens, and {count} more after {self.filled} don't fit."
            )

    def extend(self, layer: int, k: Tensor, v: Tensor) -> KeysValues:
        """Store the keys and values of new tokens at their positions; return all stored so far, [B, Hkv, Lk, D].

        The first decide whether the cache keeps them in a wider dtype than that of its example.
        """
        if not self.filled:
            self._keys_values = self._keys_values.to(torch.promote_types(self._keys_values.dtype, k.dtype))
        stored, count = self._keys_values[layer], k.shape[-2]
        if self.filled == 0:
            stored[0, :, :, :count], stored[1, :, :, :count] = k, v
            return k, v
        index = self.positions(count)[:, None, :, None].expand(k.shape)
        for old, new in zip(stored, (k, v), strict=True):
            old.scatter_(2, index, new.to(old.dtype))
        return stored[0, :, :, : self.filled + count], stored[1, :, :, : self.filled + count]

    def advance(self, count: int, lengths: Tensor | None) -> None:
        """Count `count` more tokens as read, of which the first `lengths` [B] are real; None: all of them."""
        self.lengths = self.lengths + (count if lengths is None else lengths)
        self.filled += count
        self.uniform = self.uniform and lengths is None

    def reorder(self, rows: Tensor, *, same_source: bool = False) -> None:
        """Make entry i what entry rows[i] was, rows [B'] int64: beam search picks, repeats and drops hypotheses.

        same_source: B' is B, and every entry rows[i] has the same source as entry i, so that the source's keys stay.
        """
        chosen = self._keys_values[..., : self.filled, :].index_select(2, rows)
        if len(rows) != self.batch:
            layers, two, _, heads, room, head_dim = self._keys_values.shape
            self._keys_values = self._keys_values.new_zeros(layers, two, len(rows), heads, room, head_dim)
        self._keys_values[..., : self.filled, :] = chosen
        self.lengths = self.lengths[rows]
        if not same_source:
            self.cross = [(k[rows], v[rows]) for k, v in self.cross]
            self.source_lengths = None if self.source_lengths is None else self.source_lengths[rows]
