"""Multi-head attention with a slot for each of its functions, and fused wherever they hold the closed form.

B batch, L length, Lq queries, Lk keys, W width, H heads, Hkv key/value heads, D = W / H head dimension.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.functions.position_rotary import Rotary, rotate
from trans4init.ablations.functions.softmax import SoftmaxWeight
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer.kv_cache import DecodingCache, KeysValues
from trans4init.ablations.transformer.masks import Visibility
from trans4init.ablations.transformer.positions import PositionValues
from trans4init.kernels.attention import RelativeBias

__all__ = ["Attention", "PositionValues"]

_SMALLEST_SUM = 1e-6
"""Rows of weights that sum to less are divided by this: ReLU weights, or a net's, can all be 0."""


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), of a sequence to itself or (cross) to a memory."""

    def __init__(self, config: TransformerConfig, *, cross: bool = False) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.width // config.heads
        self.key_value_heads = config.key_value_heads or config.heads
        self.dropout = config.attention_dropout
        shared = 2 * self.key_value_heads * self.head_dim
        if cross:
            self.queries = nn.Linear(config.width, config.width, bias=config.bias)
            self.keys_values = nn.Linear(config.width, shared, bias=config.bias)
        else:
            self.queries_keys_values = nn.Linear(config.width, config.width + shared, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        sizes, seen = config.shapes(), Domain(1, config.positions, integer=True)
        position = get_function(config.position)
        self.pairs = position.pairs(head_dim=sizes["head_dim"]) if isinstance(position, Rotary) else 0
        if not isinstance(get_function(config.softmax), SoftmaxWeight):
            raise InputError(f"{config.softmax} is no function of a score that softmax could use.")
        self.softmax = Slot("softmax", get_function(config.softmax))
        self.softmax_reciprocal = Slot("softmax-reciprocal", get_function(config.softmax_reciprocal))
        self.scale = Slot("scale", get_function(config.scale), seen, head_dim=sizes["head_dim"])
        self.head_mixing = Slot("head-mixing", get_function(config.head_mixing), heads=config.heads)
        self.watch_map: Callable[[Tensor], None] | None = None
        """Called with the attention weights [B, H, Lq, Lk] that are then used, while they are watched."""

    def forward(
        self,
        state: Tensor,
        positions: PositionValues,
        visibility: Visibility,
        *,
        cache: DecodingCache | None = None,
        layer: int = 0,
        last_only: bool = False,
        index: Tensor | None = None,
    ) -> Tensor:
        """Of the sequence to itself: [B, L, W] to [B, L, W], or with last_only to [B, 1, W] for the last query alone.

        With a cache, the keys and values of its `layer` come before those of the state. With an index [B, L] the state
        is [N, W], and the sequences are its rows: queries, keys and values are computed once for each.
        """
        q, k, v = self._projected(state, index, last_only=last_only)
        if positions.rotation is not None:
            turned = positions.rotation[..., -1:, :] if last_only else positions.rotation
            q = rotate(q, turned, pairs=self.pairs, key=False)
            k = rotate(k, positions.rotation, pairs=self.pairs, key=True)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        if last_only:
            return self._attended(q, k, v, positions.last_bias(), visibility.of_last())
        return self._attended(q, k, v, positions.bias, visibility)

    def across(self, state: Tensor, memory: KeysValues, visibility: Visibility) -> Tensor:
        """To a memory's keys and values [B, Hkv, Lk, D]: [B, Lq, W] to [B, Lq, W]."""
        return self._attended(self._by_head(self.queries(state)), *memory, None, visibility)

    def memory_keys_values(self, memory: Tensor) -> KeysValues:
        """The keys and values of a memory [B, Lk, W], [B, Hkv, Lk, D] each."""
        k, v = self.keys_values(memory).chunk(2, dim=-1)
        return self._by_head(k), self._by_head(v)

    def _projected(self, state: Tensor, index: Tensor | None, *, last_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, L or 1, D], keys and values [B, Hkv, L, D]."""
        layer, width = self.queries_keys_values, state.shape[-1]
        each = (layer.out_features - width) // 2
        if index is not None:
            q, k, v = layer(state).split([width, each, each], dim=-1)
            queried = index[:, -1:] if last_only else index
            looked_up = (nn.functional.embedding(at, rows) for at, rows in ((queried, q), (index, k), (index, v)))
            q, k, v = map(self._by_head, looked_up)
            return q, k, v
        if last_only:
            own, others = (None, None) if layer.bias is None else (layer.bias[:width], layer.bias[width:])
            q = nn.functional.linear(state[:, -1:], layer.weight[:width], own)
            k, v = nn.functional.linear(state, layer.weight[width:], others).chunk(2, dim=-1)
            return self._by_head(q), self._by_head(k), self._by_head(v)
        q, k, v = layer(state).split([width, each, each], dim=-1)
        return self._by_head(q), self._by_head(k), self._by_head(v)

    def _by_head(self, state: Tensor) -> Tensor:
        """[B, L, n D] to [B, n, L, D]."""
        return state.view(*state.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, bias: RelativeBias | Tensor | None, visibility: Visibility
    ) -> Tensor:
        """Queries [B, H, Lq, D], keys and values [B, Hkv, Lk, D] to [B, Lq, W]."""
        q, scale = self._scaled(q, k.shape[-2], visibility)
        dropout = self.dropout if self.training else 0.0
        watched = self.softmax.watch is not None or self.softmax_reciprocal.watch is not None
        if self.softmax.fused and self.softmax_reciprocal.fused and self.watch_map is None:
            if watched:
                with torch.no_grad():
                    self._weights(q, k, scale, bias, visibility)
            mixed = visibility.attend(q, k, v, bias=bias, scale=scale, dropout=dropout)  # [B, H, Lq, D]
        else:
            weights = self._weights(q, k, scale, bias, visibility)
            if self.watch_map is not None:
                self.watch_map(weights)
            mixed = nn.functional.dropout(weights, dropout) @ self._repeated(v)
        if not self.head_mixing.fused or self.head_mixing.watch is not None:
            mixed = self.head_mixing(mixed.movedim(1, -1)).movedim(-1, 1)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _repeated(self, state: Tensor) -> Tensor:
        """Keys or values [B, Hkv, Lk, D] for each query head, [B, H, Lk, D]."""
        groups = self.heads // self.key_value_heads
        return state if groups == 1 else state.repeat_interleave(groups, dim=1)

    def _scaled(self, q: Tensor, keys: int, visibility: Visibility) -> tuple[Tensor, float | None]:
        """Queries [B, H, Lq, D] with their scale on them, and the scale still to apply (None: 1/√D)."""
        if self.scale.fused and self.scale.watch is None:
            return q, None
        factors = self.scale(visibility.count(q.shape[-2], keys, q.device), highest=keys)
        return (q, None) if self.scale.fused else (q * factors[..., None], 1.0)

    def _weights(
        self, q: Tensor, k: Tensor, scale: float | None, bias: RelativeBias | Tensor | None, visibility: Visibility
    ) -> Tensor:
        """Attention weights [B, H, Lq, Lk] by the softmax slots, 0 for keys not seen and where a net's is negative."""
        queries, keys = q.shape[-2], k.shape[-2]
        scores = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ self._repeated(k).transpose(-1, -2))
        seen = visibility.seen(queries, keys, q.device)
        added = visibility.added(seen, bias, queries, keys)
        if added is not None:
            scores = scores + added.to(scores.dtype)
        if visibility.mask is None and visibility.lengths is None:
            return self._normalised(scores, ~seen)
        some = seen.any(dim=-1, keepdim=True)  # a query that sees no key is computed as if it saw them all, then gets 0
        return self._normalised(scores, ~seen & some).masked_fill(~some, 0.0)

    def _normalised(self, scores: Tensor, unseen: Tensor) -> Tensor:
        """Scores [B, H, Lq, Lk] to weights; each row sees a key."""
        assert isinstance(self.softmax.function, SoftmaxWeight)  # the constructor has seen to it
        if self.softmax.function.after_max:
            scores = scores - scores.masked_fill(unseen, -torch.inf).amax(dim=-1, keepdim=True)
        if self.softmax.function.takes == "rows":
            if not self.softmax_reciprocal.fused:
                name = self.softmax.function.name
                raise InputError(f"{name} gives whole rows: slot 'softmax-reciprocal' has no use.")
            rows: Tensor = self.softmax(scores.masked_fill(unseen, -torch.inf))
            return rows.clamp_min(0.0).masked_fill(unseen, 0.0)
        weights = self.softmax(scores.masked_fill(unseen, 0.0)).clamp_min(0.0).masked_fill(unseen, 0.0)
        total = weights.sum(dim=-1, keepdim=True).clamp_min(_SMALLEST_SUM)
        result: Tensor = weights * self.softmax_reciprocal(total)
        return result
