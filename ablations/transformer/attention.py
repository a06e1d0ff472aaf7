"""Multi-head attention with a slot for each of its functions; fused where the slots hold their closed forms.

B batch, L length, Lq queries, Lk keys, W width, H heads, Hkv key/value heads, D = W / H head dimension.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.functions.position_rotary import Rotary, rotate
from trans4init.ablations.functions.softmax import SoftmaxWeight
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer.forward_pass import ForwardPass
from trans4init.ablations.transformer.kv_cache import KeysValues
from trans4init.ablations.transformer.masks import SeenKeys, Visibility
from trans4init.kernels.attention import RelativeBias, attention

__all__ = ["Attention"]

_SMALLEST_SUM = 1e-6
"""`Attention` divides a row of weights by at least this: the weights of ReLU, or of a net, can all be 0."""

_FEW_KEYS = 4
"""`_fused` serves a single query by sums up to this many keys: 14 ms where PyTorch's fused operation takes 27, for
6384 × 4 queries of 3 keys. With more keys the fused operation is faster."""


class Attention(nn.Module):
    """Computes multi-head attention (Vaswani et al. 2017, section 3.2.2) to its own sequence or, cross, to the memory.

    layer: the number of the block that it is part of, from 0.
    """

    def __init__(self, config: TransformerConfig, *, layer: int, cross: bool = False) -> None:
        super().__init__()
        self.layer, self.cross = layer, cross
        self.heads, self.head_dim = config.heads, config.width // config.heads
        self.key_value_heads = config.key_value_heads or config.heads
        self.dropout = config.attention_dropout
        keys_values_width = 2 * self.key_value_heads * self.head_dim
        if cross:
            self.queries = nn.Linear(config.width, config.width, bias=config.bias)
            self.keys_values = nn.Linear(config.width, keys_values_width, bias=config.bias)
        else:
            self.queries_keys_values = nn.Linear(config.width, config.width + keys_values_width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        shape, key_counts = config.shapes(), Domain(1, config.positions, integer=True)
        position = get_function(config.position)
        self.pairs = position.pairs(head_dim=shape["head_dim"]) if isinstance(position, Rotary) else 0
        self.interleaved = config.rotary_pairing == "interleaved"
        if not isinstance(get_function(config.softmax), SoftmaxWeight):
            raise InputError(f"{config.softmax} can't be used in softmax: it is not a function of a score.")
        self.softmax = Slot("softmax", get_function(config.softmax))
        self.softmax_reciprocal = Slot("softmax-reciprocal", get_function(config.softmax_reciprocal))
        self.scale = Slot("scale", get_function(config.scale), key_counts, head_dim=shape["head_dim"])
        self.head_mixing = Slot("head-mixing", get_function(config.head_mixing), heads=config.heads)
        self.watch_map: Callable[[Tensor], None] | None = None
        """Called with the attention weights [B, H, Lq, Lk] while it is set; the fused operation isn't used then."""

    def forward(self, state: Tensor, forward_pass: ForwardPass) -> Tensor:
        """Attend with a state [B, L, W]: to itself and the cache, or to the memory.

        Returns [B, L, W], or [B, 1, W] if only the last row is wanted of this layer. With the pass's index, layer 0's
        state is [N, W], and its queries, keys and values are computed once per distinct state.
        """
        if self.cross:
            assert forward_pass.memory is not None
            k, v = forward_pass.memory.by_layer[self.layer]
            return self._attend(self._by_head(self.queries(state)), k, v, None, forward_pass.memory.visibility)
        positions, visibility = forward_pass.positions, forward_pass.visibility
        last_only = self.layer == forward_pass.last_only_in
        q, k, v = map(self._by_head, self._project(state, forward_pass, last_only=last_only))
        if positions.rotation is not None:
            query_rotation = positions.rotation[..., -1:, :] if last_only else positions.rotation
            q = rotate(q, query_rotation, pairs=self.pairs, key=False, interleaved=self.interleaved)
            k = rotate(k, positions.rotation, pairs=self.pairs, key=True, interleaved=self.interleaved)
        if forward_pass.cache is not None:
            dtype = v.dtype
            k, v = forward_pass.cache.extend(self.layer, k, v)
            v = v.to(dtype)
        if last_only:
            return self._attend(q, k, v, positions.last_bias(), visibility.of_last_query())
        return self._attend(q, k, v, positions.bias, visibility)

    def memory_keys_values(self, memory: Tensor) -> KeysValues:
        """Return the keys and values of the memory [B, Lk, W], each [B, Hkv, Lk, D]; for cross-attention."""
        k, v = self.keys_values(memory).chunk(2, dim=-1)
        return self._by_head(k), self._by_head(v)

    def _project(self, state: Tensor, forward_pass: ForwardPass, *, last_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries [B, L or 1, W], keys and values [B, L, Hkv D] of a state."""
        linear, width = self.queries_keys_values, self.out.in_features
        keys_width = (linear.out_features - width) // 2
        index = forward_pass.index if self.layer == 0 else None
        if last_only and index is None:
            biases = (None, None) if linear.bias is None else (linear.bias[:width], linear.bias[width:])
            q = nn.functional.linear(state[:, -1:], linear.weight[:width], biases[0])
            k, v = nn.functional.linear(state, linear.weight[width:], biases[1]).chunk(2, dim=-1)
            return q, k, v
        q, k, v = linear(state).split([width, keys_width, keys_width], dim=-1)
        if index is None:
            return q, k, v
        return forward_pass.rows(0, q), nn.functional.embedding(index, k), nn.functional.embedding(index, v)

    def _by_head(self, state: Tensor) -> Tensor:
        """Reshape [B, L, n D] to [B, n, L, D]."""
        return state.view(*state.shape[:-1], state.shape[-1] // self.head_dim, self.head_dim).transpose(1, 2)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: RelativeBias | Tensor | None, visibility: Visibility
    ) -> Tensor:
        """Attend with queries [B, H, Lq, D] to keys and values [B, Hkv, Lk, D]; return [B, Lq, W]."""
        dropout = self.dropout if self.training else 0.0
        slots = (self.scale, self.softmax, self.softmax_reciprocal)
        dtype, wider = v.dtype, q.dtype != v.dtype  # rotated queries and keys may be beyond 16 bits: autocast too
        plain = self.watch_map is None and all(slot.fused and slot.watch is None for slot in slots)
        with torch.autocast(q.device.type, enabled=False) if wider else nullcontext():
            v = v.to(q.dtype)
            if not q.numel() or not k.numel():  # a batch of no sequences, or sequences of no tokens
                mixed = torch.zeros_like(q)
            elif plain and visibility.mask is None:
                mixed = _fused(q, k, v, bias, None, dropout, visibility)  # [B, H, Lq, D]
            else:
                mixed = self._attend_by_slots(q, k, v, bias, dropout, visibility)
        if not self.head_mixing.fused or self.head_mixing.watch is not None:
            mixed = self.head_mixing(mixed.movedim(1, -1)).movedim(-1, 1)
        result: Tensor = self.out(mixed.to(dtype).transpose(1, 2).flatten(2))
        return result

    def _attend_by_slots(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: RelativeBias | Tensor | None,
        dropout: float,
        visibility: Visibility,
    ) -> Tensor:
        """Attend as the slots say; return [B, H, Lq, D]. Softmax is fused if its slots hold the closed forms."""
        seen_keys = visibility.seen_keys(q.shape[-2], k.shape[-2], q.device)
        scale = None  # 1/√D
        if not self.scale.fused or self.scale.watch is not None:
            factors = self.scale(seen_keys.counts(), highest=k.shape[-2])
            if not self.scale.fused:
                q, scale = (q * factors[..., None]).to(q.dtype), 1.0
        if not (self.softmax.fused and self.softmax_reciprocal.fused and self.watch_map is None):
            weights = self._weights(q, k, bias, scale, seen_keys)
            if self.watch_map is not None:
                self.watch_map(weights)
            return nn.functional.dropout(weights, dropout).to(v.dtype) @ self._repeat(v)
        if self.softmax.watch is not None or self.softmax_reciprocal.watch is not None:
            with torch.no_grad():
                self._weights(q, k, bias, scale, seen_keys)  # for the observer alone
        if visibility.mask is None:
            return _fused(q, k, v, bias, scale, dropout, visibility)
        added = seen_keys.added(bias)
        dense = torch.zeros((), dtype=torch.float32, device=q.device) if added is None else added
        dense = torch.where(seen_keys.hidden, -torch.inf, dense)
        return seen_keys.without_blind(attention(q, k, v, bias=dense, scale=scale, dropout_p=dropout))

    def _repeat(self, state: Tensor) -> Tensor:
        """Repeat keys or values [B, Hkv, Lk, D] for the query heads that share them: [B, H, Lk, D]."""
        groups = self.heads // self.key_value_heads
        return state if groups == 1 else state.repeat_interleave(groups, dim=1)

    def _weights(
        self, q: Tensor, k: Tensor, bias: RelativeBias | Tensor | None, scale: float | None, seen_keys: SeenKeys
    ) -> Tensor:
        """Compute attention weights [B, H, Lq, Lk] by the softmax slots; 0 for unseen keys and negative values.

        Scores and weights are in float32 at least: products of 16 bits can be beyond their range.
        """
        precision = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):
            scores = q.to(precision) @ self._repeat(k).to(precision).transpose(-1, -2)
            scores = (q.shape[-1] ** -0.5 if scale is None else scale) * scores
            added = seen_keys.added(bias)
            if added is not None:
                scores = scores + added.to(precision)
            return seen_keys.without_blind(self._normalise(scores, seen_keys.hidden))

    def _normalise(self, scores: Tensor, hidden: Tensor) -> Tensor:
        """Turn scores [B, H, Lq, Lk] into weights; at least one key of each row is not hidden."""
        assert isinstance(self.softmax.function, SoftmaxWeight)  # checked by the constructor
        if self.softmax.function.after_max:
            scores = scores - scores.masked_fill(hidden, -torch.inf).amax(dim=-1, keepdim=True)
        if self.softmax.function.takes == "rows":
            if not self.softmax_reciprocal.fused:
                name = self.softmax.function.name
                raise InputError(f"{name} gives whole rows: slot 'softmax-reciprocal' has no use with it.")
            rows: Tensor = self.softmax(scores.masked_fill(hidden, -torch.inf))
            return rows.clamp_min(0.0).masked_fill(hidden, 0.0)
        weights = self.softmax(scores.masked_fill(hidden, 0.0), hidden=hidden).clamp_min(0.0).masked_fill(hidden, 0.0)
        if self.softmax.function.uniform_without_weight:
            weights = torch.where(weights.sum(dim=-1, keepdim=True) > 0, weights, (~hidden).to(weights.dtype))
        total = weights.sum(dim=-1, keepdim=True).clamp_min(_SMALLEST_SUM)
        result: Tensor = weights * self.softmax_reciprocal(total)
        return result


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    scale: float | None,
    dropout: float,
    visibility: Visibility,
) -> Tensor:
    """Compute softmax attention without a mask: q [B, H, Lq, D], k, v [B, Hkv, Lk, D] to [B, H, Lq, D]."""
    if visibility.lengths is None and bias is None and not dropout and _is_one_query_for_few_keys(q, k, v):
        return _one_query_for_few_keys(q, k, v, scale)
    causal, lengths = visibility.causal, visibility.lengths
    return attention(q, k, v, causal=causal, key_lengths=lengths, bias=bias, scale=scale, dropout_p=dropout)


def _is_one_query_for_few_keys(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether sums are faster: for one query and a few keys per head, with gradients, on a CPU."""
    if q.shape[-2] > 1 or k.shape[-2] > _FEW_KEYS or q.shape[1] != k.shape[1] or not torch.is_grad_enabled():
        return False
    return q.device.type == "cpu" and q.dtype == k.dtype == v.dtype and not torch.is_autocast_enabled("cpu")


def _one_query_for_few_keys(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Attend with q [B, H, 1, D] to k, v [B, H, Lk, D]; the one query sees every key, in causal order too."""
    scores = (q * k).sum(dim=-1) * (q.shape[-1] ** -0.5 if scale is None else scale)  # [B, H, Lk]
    return (scores.softmax(dim=-1)[..., None] * v).sum(dim=-2, keepdim=True)
