"""Randomised positions: in training, a sorted draw from a longer range in place of 0, 1, 2, …"""

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError

__all__ = ["randomised_positions"]


def randomised_positions(length: int, range_end: int, generator: torch.Generator) -> Tensor:
    """`length` different positions out of 0..range_end − 1, ascending, [length] int64.

    Source: Ruoss et al. 2023, Randomized Positional Encodings Boost Length Generalization, section 3. Works with any
    positional function. Raises InputError for a range with fewer positions than are asked for.
    """
    if range_end < length:
        raise InputError(f"{length} different positions can't be drawn from a range of {range_end}.")
    return torch.randperm(range_end, generator=generator)[:length].sort().values
