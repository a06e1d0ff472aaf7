"""Block sizes of the Triton kernels: the few that are worth trying, and which one won on which GPU.

A kernel never tunes itself in a user's program: it takes the winner recorded in `winners.json` for this GPU, else the
first candidate. `python -m trans4init.kernels.attention.tune` measures the candidates and records the winners.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

__all__ = ["INTERPRETED", "PASSES", "WINNERS", "Pass", "Room", "Tile", "candidates", "choose", "winner_key"]

Pass = Literal["forward", "query_gradient", "key_gradient", "table_gradient"]
PASSES: tuple[Pass, ...] = ("forward", "query_gradient", "key_gradient", "table_gradient")
Room = Literal["large", "small"]  # shared memory of a program: 160 KiB and more (sm_80, sm_90, sm_100), or less
WINNERS = Path(__file__).parent / "winners.json"


@dataclass(frozen=True)
class Tile:
    """Queries and keys of a tile of scores, warps of a program, stages of its software pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


INTERPRETED = Tile(32, 16, 1, 1)


def candidates(which: Pass, head_dim: int, itemsize: int, bias: bool, room: Room) -> tuple[Tile, ...]:
    """The block sizes to try, the default first."""
    return (Tile(64, 32, 4, 2),)


def winner_key(which: Pass, head_dim: int, itemsize: int, causal: bool, bias: bool) -> str:
    """What a winner is recorded under."""
    return f"{which} D={head_dim} bytes={itemsize} causal={causal:d} bias={bias:d}"


@functools.cache
def choose(which: Pass, head_dim: int, itemsize: int, causal: bool, bias: bool, device: torch.device) -> Tile:
    """The recorded winner of this GPU, else the first candidate."""
    properties = torch.cuda.get_device_properties(device)
    winners = json.loads(WINNERS.read_text()).get(properties.name, {})
    recorded = winners.get(winner_key(which, head_dim, itemsize, causal, bias))
    if recorded is not None:
        return Tile(*recorded)
    # ROCm's properties lack the entry: 64 KiB there
    shared = getattr(properties, "shared_memory_per_block_optin", 64 * 1024)
    room: Room = "large" if shared >= 160 * 1024 else "small"
    return candidates(which, head_dim, itemsize, bias, room)[0]
