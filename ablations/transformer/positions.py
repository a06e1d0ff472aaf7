"""What a position slot gives to a forward pass: vectors to add, rotations, or biases on scores.

B batch, L length, Lq queries, Lk keys, W width, H heads, P pairs of dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions.position_relative import FireQuery
from trans4init.ablations.functions.position_two_sided import TwoSided
from trans4init.ablations.slots.slot import Slot
from trans4init.kernels.attention import RelativeBias

__all__ = ["PositionValues", "randomised_positions", "sequence_values", "step_values"]


@dataclass(frozen=True)
class PositionValues:
    """What the position slot gives to a forward pass; at most one of them."""

    added: Callable[[Tensor], Tensor] | None = None
    """[B, L, W] to [B, L, W]: adds the positions to the embeddings."""
    rotation: Tensor | None = None
    """[L, 2P] or [L, 3P], or [B, 1, L, …], for queries and keys."""
    bias: RelativeBias | Tensor | None = None
    """A table [H, Lq + Lk − 1], or [H, Lq, Lk] or [B, H, Lq, Lk], for the scores."""

    def last_bias(self) -> RelativeBias | Tensor | None:
        """The bias of the last query alone, where queries and keys are the same positions."""
        if isinstance(self.bias, RelativeBias):
            return RelativeBias(self.bias.table[:, self.bias.table.shape[1] // 2 :])
        return None if self.bias is None else self.bias[..., -1:, :]

    def expanded(self) -> "PositionValues":
        """Rotations of each batch entry, [B, L, …], made to stand before heads."""
        if self.rotation is None or self.rotation.dim() == 2:
            return self
        return replace(self, rotation=self.rotation[:, None])


def sequence_values(slot: Slot, positions: Tensor, highest: int, *, causal: bool, regular: bool) -> PositionValues:
    """The values of a whole sequence at ascending positions [L].

    highest: the largest position. regular: the positions are 0, 1, 2, … Without `causal`, every pair of positions has
    a bias: of |i − j|, or of i − j where the slot's function tells the two sides apart.
    """
    function = slot.function
    if function.role == "added":
        return PositionValues(added=partial(slot.added_to, inputs=positions, highest=highest))
    if function.role == "rotary":
        return PositionValues(rotation=slot(positions, highest=highest))
    if isinstance(function, FireQuery):
        return PositionValues(bias=slot(function.pair_inputs(positions, causal=causal)))
    if not regular:
        distances = positions[:, None] - positions
        return PositionValues(bias=slot(_facing(slot, distances, causal=causal), highest=highest))  # [H, L, L]
    if causal:
        behind = slot(positions, highest=highest)  # [H, L]: distances 0, 1, …; those ahead are never seen
        return PositionValues(bias=RelativeBias(torch.cat([torch.zeros_like(behind[:, 1:]), behind], dim=1)))
    if isinstance(function, TwoSided):
        return PositionValues(bias=RelativeBias(slot(torch.cat([-positions[1:].flip(0), positions]), highest=highest)))
    behind = slot(positions, highest=highest)
    return PositionValues(bias=RelativeBias(torch.cat([behind[:, 1:].flip(1), behind], dim=1)))


def step_values(slot: Slot, positions: Tensor, keys: int) -> PositionValues:
    """The values of new causal tokens at positions [B, L], of which each sees keys at the positions 0..keys − 1."""
    function = slot.function
    if function.role == "added":
        return PositionValues(added=partial(_added, slot, positions, keys - 1))
    if function.role == "rotary":
        return PositionValues(rotation=slot(positions, highest=keys - 1)).expanded()
    at = torch.arange(keys, device=positions.device)
    if isinstance(function, FireQuery):
        bias = slot(function.pair_inputs(positions, at))
    else:
        bias = slot((positions[..., None] - at).clamp_min(0), highest=keys - 1)
    return PositionValues(bias=bias.movedim(0, 1))  # [H, B, L, keys] to [B, H, L, keys]


def _added(slot: Slot, positions: Tensor, highest: int, state: Tensor) -> Tensor:
    """The values of positions [L] or [B, L] added to a state [B, L, W]."""
    values: Tensor = slot(positions, highest=highest)
    return state + values


def _facing(slot: Slot, distances: Tensor, *, causal: bool) -> Tensor:
    """Distances i − j as the slot's function takes them; those that causal attention never sees are 0."""
    if causal:
        return distances.clamp_min(0)
    return distances if isinstance(slot.function, TwoSided) else distances.abs()


def randomised_positions(length: int, range_end: int, generator: torch.Generator) -> Tensor:
    """`length` different positions out of 0..range_end − 1, ascending, [length] int64.

    Source: Ruoss et al. 2023, Randomized Positional Encodings Boost Length Generalization, section 3. Works with any
    positional function. Raises InputError for a range with fewer positions than are asked for.
    """
    if range_end < length:
        raise InputError(f"{length} different positions can't be drawn from a range of {range_end}.")
    return torch.randperm(range_end, generator=generator)[:length].sort().values
