"""What one call of a stack hands to all of its layers.

B batch, L length, N distinct states, W width.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from trans4init.ablations.transformer.kv_cache import KeysValues, KeyValueCache
from trans4init.ablations.transformer.masks import Visibility
from trans4init.ablations.transformer.positions import PositionValues

__all__ = ["ForwardPass", "MemoryKeysValues"]


@dataclass(frozen=True)
class MemoryKeysValues:
    """Holds the keys and values that a decoder's layers compute from the encoder's output, the memory."""

    by_layer: list[KeysValues]
    visibility: Visibility


@dataclass(frozen=True)
class ForwardPass:
    """Holds what one call of a stack hands to all of its layers; each picks its part by its own number."""

    positions: PositionValues
    visibility: Visibility
    memory: MemoryKeysValues | None = None
    """None in a stack without cross-attention."""
    cache: KeyValueCache | None = None
    last_only_in: int | None = None
    """Index of the last layer if it computes only the last row; None if every row is needed."""
    index: Tensor | None = None
    """[B, L]: layer 0's state is [N, W], and its row index[b, l] is the state of token l of batch entry b."""

    def rows(self, layer: int, state: Tensor) -> Tensor:
        """Return the rows that a layer computes outputs for, [B, L, W] or the last alone, [B, 1, W]."""
        last_only = layer == self.last_only_in
        if layer == 0 and self.index is not None:
            return nn.functional.embedding(self.index[:, -1:] if last_only else self.index, state)
        return state[:, -1:] if last_only else state
