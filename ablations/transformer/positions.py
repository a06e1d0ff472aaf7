"""The values that a position slot gives to a forward pass: vectors to add, rotations, or biases on scores.

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
    """Holds the position slot's values for one forward pass; at most one field is set, by the function's role."""

    added: Callable[[Tensor], Tensor] | None = None
    """Adds the positions to embeddings: [B, L, W] to [B, L, W]."""
    rotation: Tensor | None = None
    """Rotations of queries and keys, [L, 2P] or [L, 3P], or [B, 1, L, …]."""
    bias: RelativeBias | Tensor | None = None
    """Added to scores: a table [H, Lq + Lk − 1], or [H, Lq, Lk] or [B, H, Lq, Lk]."""

    def last_bias(self) -> RelativeBias | Tensor | None:
        """Return the bias of the last query alone; queries and keys must be the same positions."""
        if isinstance(self.bias, RelativeBias):
            return RelativeBias(self.bias.table[:, self.bias.table.shape[1] // 2 :])
        return None if self.bias is None else self.bias[..., -1:, :]

    def expanded(self) -> "PositionValues":
        """Give rotations that differ by batch entry, [B, L, …], a dimension for the heads: [B, 1, L, …]."""
        if self.rotation is None or self.rotation.dim() == 2:
            return self
        return replace(self, rotation=self.rotation[:, None])


def sequence_values(slot: Slot, positions: Tensor, highest: int, *, causal: bool, regular: bool) -> PositionValues:
    """Return the values of a whole sequence at ascending positions [L].

    highest: the largest position. regular: whether the positions are 0, 1, 2, … Unless `causal`, every pair of
    positions has a bias: of |i − j|, or of i − j if the slot's function tells the two sides apart.
    """
    function = slot.function
    if function.role == "added":
        return PositionValues(added=partial(slot.added_to, inputs=positions, highest=highest))
    if function.role == "rotary":
        return PositionValues(rotation=slot(positions, highest=highest))
    if isinstance(function, FireQuery):
        return PositionValues(bias=slot(function.pair_inputs(positions, causal=causal, **slot.numbers)))
    if not regular:
        distances = _function_distances(slot, positions[:, None] - positions, causal=causal)
        return PositionValues(bias=slot(distances, highest=highest))  # [H, L, L]
    if causal:
        biases = slot(positions, highest=highest)  # [H, L]: distances 0, 1, …; negative ones are never seen
        return PositionValues(bias=RelativeBias(torch.cat([torch.zeros_like(biases[:, 1:]), biases], dim=1)))
    if isinstance(function, TwoSided):
        return PositionValues(bias=RelativeBias(slot(torch.cat([-positions[1:].flip(0), positions]), highest=highest)))
    biases = slot(positions, highest=highest)
    return PositionValues(bias=RelativeBias(torch.cat([biases[:, 1:].flip(1), biases], dim=1)))


def step_values(slot: Slot, positions: Tensor, keys: int) -> PositionValues:
    """Return the values of new causal tokens at positions [B, L], for keys at the positions 0..keys − 1."""
    function = slot.function
    if function.role == "added":
        return PositionValues(added=partial(_add, slot, positions, keys - 1))
    if function.role == "rotary":
        return PositionValues(rotation=slot(positions, highest=keys - 1)).expanded()
    key_positions = torch.arange(keys, device=positions.device)
    if isinstance(function, FireQuery):
        bias = slot(function.pair_inputs(positions, key_positions, **slot.numbers))
    else:
        bias = slot((positions[..., None] - key_positions).clamp_min(0), highest=keys - 1)
    return PositionValues(bias=bias.movedim(0, 1))  # [H, B, L, keys] to [B, H, L, keys]


def _add(slot: Slot, positions: Tensor, highest: int, state: Tensor) -> Tensor:
    """Add the values of positions [L] or [B, L] to a state [B, L, W]."""
    values: Tensor = slot(positions, highest=highest)
    return state + values


def _function_distances(slot: Slot, distances: Tensor, *, causal: bool) -> Tensor:
    """Return distances i − j as the slot's function takes them; 0 for those that causal attention never sees."""
    if causal:
        return distances.clamp_min(0)
    return distances if isinstance(slot.function, TwoSided) else distances.abs()


def randomised_positions(length: int, range_end: int, generator: torch.Generator) -> Tensor:
    """Draw `length` different positions from 0..range_end − 1, ascending, [length] int64.

    Source: Ruoss et al. 2023, Randomized Positional Encodings Boost Length Generalization, section 3. Works with any
    positional function. Raises InputError if range_end is less than `length`.
    """
    if range_end < length:
        raise InputError(f"{length} different positions can't be drawn from a range of {range_end}.")
    return torch.randperm(range_end, generator=generator)[:length].sort().values
