"""Measure the candidate tiles on this GPU and record the winners: `python -m trans4init.kernels.attention.tune`."""

import itertools
import json
import sys

import torch

from trans4init.kernels.attention import launch
from trans4init.kernels.attention.configurations import PASSES, WINNERS, Case, Room, Tile, candidates, choose
from trans4init.kernels.attention.launch import Inputs
from trans4init.kernels.attention.reference import Options

__all__ = ["main", "milliseconds"]

LENGTH, HEADS, BATCH = 4096, 16, 4
"""The size of the calls that are timed."""


def milliseconds(case: Case, tile: Tile) -> float:
    """Time the forward or the backward pass with this tile, all other kernels with the tiles that `choose` says."""
    from triton.testing import do_bench

    dtype = torch.float32 if case.itemsize == 4 else torch.bfloat16
    heads = (HEADS, HEADS // 4 if case.grouped else HEADS, HEADS // 4 if case.grouped else HEADS)
    q, k, v = (torch.randn(BATCH, h, LENGTH, case.head_dim, device="cuda", dtype=dtype) for h in heads)
    table = torch.randn(1, HEADS, 2 * LENGTH - 1, device="cuda", dtype=torch.float32) if case.bias else None
    options = Options(case.causal, None, case.head_dim**-0.5, deterministic=case.which == "table_gradient")
    inputs = Inputs(q, k, v, table, None, None, None, options)

    def tiles(other: Case, device: torch.device) -> Tile:
        return tile if other.which == case.which else choose(other, device)

    out, lse = launch.launch_forward(inputs, tiles)
    if case.which == "forward":
        return float(do_bench(lambda: launch.launch_forward(inputs, tiles)))
    saved = (torch.randn_like(out), torch.zeros_like(lse), out, lse, inputs, case.bias)
    return float(do_bench(lambda: launch.launch_backward(*saved, tiles)))


def main() -> None:
    """Time every candidate of every common case; add this GPU's winners to those recorded for other GPUs."""
    if not torch.cuda.is_available():
        sys.exit("Tuning measures kernels on a GPU, and this machine has none.")
    properties = torch.cuda.get_device_properties(torch.device("cuda"))
    room: Room = "large" if getattr(properties, "shared_memory_per_block_optin", 0) >= 160 * 1024 else "small"
    winners: dict[str, list[int]] = {}
    for which, head_dim, bias, causal in itertools.product(PASSES, launch.HEAD_DIMS, (True, False), (True, False)):
        for grouped in (False, True) if which == "key_gradient" else (False,):
            case = Case(which, head_dim, 2, bias, causal, grouped)
            tiles = () if which == "table_gradient" and not bias else candidates(case, room)
            if len(tiles) < 2:
                continue
            times = {tile: milliseconds(case, tile) for tile in tiles}
            best = min(times, key=lambda tile: times[tile])
            winners[str(case)] = [best.queries, best.keys, best.warps, best.stages]
            print(case, *(f"{tile} {ms:.3f} ms" for tile, ms in times.items()), sep="\n  ", flush=True)
    recorded = json.loads(WINNERS.read_text()) | {properties.name: winners}
    WINNERS.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
