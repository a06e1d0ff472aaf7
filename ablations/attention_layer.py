"""Causal multi-head attention with a slot for each of its functions, and fused wherever they hold the closed form.

B batch, L length, W width, H heads, D = W / H head dimension.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.functions.position_rotary import Rotary, rotate
from trans4init.ablations.functions.softmax import SoftmaxWeight
from trans4init.ablations.model_config import TransformerConfig
from trans4init.ablations.slots import Slot
from trans4init.kernels.attention import RelativeBias, attention

__all__ = ["Attention", "PositionValues"]

_SMALLEST_SUM = 1e-6
"""Rows of weights that sum to less are divided by this: ReLU weights, or a net's, can all be 0."""


@dataclass(frozen=True)
class PositionValues:
    """What the position slot gives to a forward pass; at most one of them."""

    added: Tensor | None = None
    """[L, W], for the embeddings."""
    rotation: Tensor | None = None
    """[L, 2P] or [L, 3P], for queries and keys."""
    bias: RelativeBias | Tensor | None = None
    """A table [H, 2 L − 1], or [H, L, L], for the scores."""


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.queries_keys_values = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        sizes, seen = config.shapes(), Domain(1, config.context, integer=True)
        position = get_function(config.position)
        self.pairs = position.pairs(head_dim=sizes["head_dim"]) if isinstance(position, Rotary) else 0
        if not isinstance(get_function(config.softmax), SoftmaxWeight):
            raise InputError(f"{config.softmax} is no function of a score that softmax could use.")
        self.softmax = Slot("softmax", get_function(config.softmax))
        self.softmax_reciprocal = Slot("softmax-reciprocal", get_function(config.softmax_reciprocal))
        self.scale = Slot("scale", get_function(config.scale), seen, head_dim=sizes["head_dim"])
        self.head_mixing = Slot("head-mixing", get_function(config.head_mixing), heads=config.heads)

    def forward(self, state: Tensor, positions: PositionValues) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        batch, length, width = state.shape
        projected = self.queries_keys_values(state).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4)  # each [B, H, L, D]
        if positions.rotation is not None:
            q = rotate(q, positions.rotation, pairs=self.pairs, key=False)
            k = rotate(k, positions.rotation, pairs=self.pairs, key=True)
        q, scale = self._scaled(q)
        watched = self.softmax.watch is not None or self.softmax_reciprocal.watch is not None
        if self.softmax.fused and self.softmax_reciprocal.fused:
            if watched:
                with torch.no_grad():
                    self._weights(q, k, scale, positions.bias)
            mixed = attention(q, k, v, causal=True, scale=scale, bias=positions.bias)  # [B, H, L, D]
        else:
            mixed = self._weights(q, k, scale, positions.bias) @ v
        if not self.head_mixing.fused or self.head_mixing.watch is not None:
            mixed = self.head_mixing(mixed.movedim(1, -1)).movedim(-1, 1)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return result

    def _scaled(self, q: Tensor) -> tuple[Tensor, float | None]:
        """Queries [B, H, L, D] with their scale on them, and the scale still to apply (None: 1/√D)."""
        length = q.shape[-2]
        if self.scale.fused and self.scale.watch is None:
            return q, None
        factors = self.scale(torch.arange(1, length + 1, device=q.device), highest=length)  # row i sees i + 1 keys
        return (q, None) if self.scale.fused else (q * factors[:, None], 1.0)

    def _weights(self, q: Tensor, k: Tensor, scale: float | None, bias: RelativeBias | Tensor | None) -> Tensor:
        """Attention weights [B, H, L, L] by the softmax slots, 0 for keys not seen and where a net's is negative."""
        length = q.shape[-2]
        scores = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.transpose(-1, -2))
        if bias is not None:
            scores = scores + (bias.dense(length, length) if isinstance(bias, RelativeBias) else bias).to(scores.dtype)
        unseen = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        assert isinstance(self.softmax.function, SoftmaxWeight)  # the constructor has seen to it
        if self.softmax.function.after_max:
            scores = scores - scores.masked_fill(unseen, -torch.inf).amax(dim=-1, keepdim=True)
        weights = self.softmax(scores.masked_fill(unseen, 0.0)).clamp_min(0.0).masked_fill(unseen, 0.0)
        total = weights.sum(dim=-1, keepdim=True).clamp_min(_SMALLEST_SUM)
        result: Tensor = weights * self.softmax_reciprocal(total)
        return result
