"""Choose block sizes for the Triton kernels: the candidates, and the fastest one recorded for each GPU.

A kernel never tunes itself in a user's program: it takes the winner that `winners.json` records for this GPU, else the
first candidate. `python -m trans4init.kernels.attention.tune` measures the candidates and records the winners.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

__all__ = ["INTERPRETED", "PASSES", "ROW_TERMS", "WINNERS", "Case", "Pass", "Room", "Tile", "candidates", "choose"]

Pass = Literal["forward", "query_gradient", "key_gradient", "table_gradient"]
PASSES: tuple[Pass, ...] = ("forward", "query_gradient", "key_gradient", "table_gradient")
Room = Literal["large", "small"]  # a program's shared memory: at least 160 KiB (sm_80, sm_90, sm_100), or less
WINNERS = Path(__file__).parent / "winners.json"


@dataclass(frozen=True)
class Tile:
    """Sets the size of a tile of scores (queries by keys), a program's warps, the stages of its software pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Case:
    """Says what the best tile depends on: the pass, its sizes and what it computes.

    causal: whether there is a bound on later keys. masked: whether there is one on earlier keys, lengths, dropout or a
    softcap. grouped: whether query heads share key heads.
    """

    which: Pass
    head_dim: int
    itemsize: int
    bias: bool
    causal: bool = True
    grouped: bool = False
    masked: bool = False

    def __str__(self) -> str:
        """Return the name that a winner is recorded under."""
        traits = [name for name in ("bias", "causal", "grouped", "masked") if getattr(self, name)]
        return " ".join([self.which, f"D{self.head_dim}", f"{8 * self.itemsize}-bit", *traits])


INTERPRETED = Tile(32, 16, 1, 1)
"""The tile of every pass on a CPU."""
ROW_TERMS = Tile(queries=64, keys=0, warps=4, stages=1)
"""The tile of the kernel that prepares one value per query for the backward pass; it reads no keys."""

# In each table below: the widest head dim that an entry is for -> its tiles, the default first. On sm_90 none of them
# spills registers up to head dim 128. A bias costs about 50 registers for the addresses in its strip, so biased tiles
# are smaller; with dropout's hash, a window's three loops, lengths or a softcap tiles are smaller still.
PLAIN: dict[Pass, dict[int, tuple[Tile, ...]]] = {
    "forward": {
        64: (Tile(128, 128, 8, 3), Tile(128, 64, 8, 3)),
        128: (Tile(128, 64, 8, 3),),
        256: (Tile(128, 32, 8, 2),),
    },
    "query_gradient": {64: (Tile(128, 64, 8, 2),), 128: (Tile(128, 64, 8, 2),), 256: (Tile(128, 16, 8, 1),)},
    "key_gradient": {64: (Tile(64, 128, 8, 2),), 128: (Tile(32, 128, 8, 2),), 256: (Tile(32, 32, 8, 1),)},
}
BIASED: dict[Pass, dict[int, tuple[Tile, ...]]] = {
    "forward": {
        64: (Tile(128, 128, 8, 3), Tile(128, 64, 8, 3)),
        128: (Tile(128, 64, 8, 3),),
        256: (Tile(128, 32, 8, 2),),
    },
    "query_gradient": {
        64: (Tile(128, 32, 8, 2), Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
        128: (Tile(128, 32, 8, 2), Tile(64, 32, 4, 2)),
        256: (Tile(128, 16, 8, 1), Tile(32, 32, 8, 1)),
    },
    "key_gradient": {
        64: (Tile(32, 128, 8, 2), Tile(64, 64, 8, 2)),
        128: (Tile(32, 128, 8, 2), Tile(16, 128, 8, 2)),
        256: (Tile(32, 32, 8, 1), Tile(64, 32, 8, 1)),
    },
    "table_gradient": {
        64: (Tile(64, 64, 8, 2),),
        128: (Tile(64, 64, 8, 1), Tile(64, 64, 8, 2)),
        256: (Tile(32, 32, 8, 1), Tile(64, 64, 8, 1)),
    },
}
MASKED: dict[Pass, dict[int, tuple[Tile, ...]]] = {
    "forward": {64: (Tile(128, 64, 8, 3),), 128: (Tile(128, 32, 8, 3),), 256: (Tile(128, 32, 8, 2),)},
    "query_gradient": {64: (Tile(128, 32, 8, 2),), 128: (Tile(128, 32, 8, 2),), 256: (Tile(128, 16, 8, 1),)},
    "key_gradient": {64: (Tile(32, 128, 8, 2),), 128: (Tile(16, 128, 8, 2),), 256: (Tile(32, 32, 8, 1),)},
    "table_gradient": BIASED["table_gradient"],
}
GROUPED: dict[int, tuple[Tile, ...]] = {
    64: (Tile(32, 128, 8, 2),),
    128: (Tile(16, 128, 8, 2),),
    256: (Tile(32, 32, 8, 1),),
}
MASKED_GROUPED: dict[int, tuple[Tile, ...]] = {
    64: (Tile(32, 128, 8, 2),),
    128: (Tile(16, 64, 8, 2),),
    256: (Tile(32, 32, 8, 1),),
}
SINGLE: dict[Pass, dict[int, tuple[Tile, ...]]] = {  # float32 uses no matrix units: small tiles, many threads
    "forward": {64: (Tile(32, 32, 8, 1),), 128: (Tile(32, 16, 8, 1),), 256: (Tile(16, 16, 8, 1),)},
    "query_gradient": {
        16: (Tile(32, 32, 8, 1),),
        32: (Tile(16, 16, 8, 1),),  # with 32x32 ptxas limits itself to 80 registers and spills 8 bytes
        64: (Tile(32, 32, 8, 1),),
        256: (Tile(16, 16, 8, 1),),
    },
    "key_gradient": {
        16: (Tile(32, 16, 8, 1),),
        32: (Tile(16, 16, 8, 1),),  # with 32x16 ptxas limits itself to 128 registers and spills 24 bytes
        64: (Tile(32, 16, 8, 1),),
        256: (Tile(16, 16, 8, 1),),
    },
    "table_gradient": {
        32: (Tile(32, 32, 16, 1),),  # with 8 warps ptxas makes room for a second program, and spills
        64: (Tile(32, 32, 8, 1),),
        128: (Tile(32, 32, 16, 1),),
        256: (Tile(16, 16, 8, 1),),
    },
}
SMALL: dict[int, tuple[Tile, ...]] = {64: (Tile(64, 32, 4, 2),), 128: (Tile(32, 32, 4, 1),), 256: (Tile(32, 16, 4, 1),)}
# For gfx942, Triton 3.9 can't pipeline dropout's booleans in the key gradient ("element type bit width … got 1"), and
# the larger tile with a loop over the heads of a group spills.
SMALL_KEYS = SMALL | {64: (Tile(32, 32, 4, 1),)}


def candidates(case: Case, room: Room) -> tuple[Tile, ...]:
    """Return the tiles to try, the default first."""
    if case.itemsize == 4:
        rows = SINGLE[case.which]
    elif room == "small":
        rows = SMALL_KEYS if case.which == "key_gradient" and (case.masked or case.grouped) else SMALL
    elif case.which == "key_gradient" and case.grouped:
        rows = MASKED_GROUPED if case.masked else GROUPED
    elif case.masked:
        rows = MASKED[case.which]
    else:
        rows = (BIASED if case.bias else PLAIN)[case.which]
    return next(tiles for widest, tiles in rows.items() if case.head_dim <= widest)


@functools.cache
def choose(case: Case, device: torch.device) -> Tile:
    """Return the winner recorded for this GPU, else the first candidate."""
    properties = torch.cuda.get_device_properties(device)
    recorded = json.loads(WINNERS.read_text()).get(properties.name, {}).get(str(case))
    if recorded is not None:
        return Tile(*recorded)
    # ROCm's properties lack this entry: its GPUs have 64 KiB
    shared = getattr(properties, "shared_memory_per_block_optin", 64 * 1024)
    return candidates(case, "large" if shared >= 160 * 1024 else "small")[0]
