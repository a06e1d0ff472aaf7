"""`python -m trans4init.kernels.attention.tune`: measure the candidate tiles on this GPU and record the winners."""

import itertools
import json
import sys
from unittest import mock

import torch

from trans4init.kernels.attention import launch
from trans4init.kernels.attention.configurations import PASSES, WINNERS, Case, Room, Tile, candidates, choose
from trans4init.kernels.attention.launch import Options

__all__ = ["main", "milliseconds"]

LENGTH, HEADS, BATCH = 4096, 16, 4


def milliseconds(case: Case, tile: Tile) -> float:
    """The time of the forward or backward pass with this tile, the other kernels at their defaults; needs a GPU."""
    from triton.testing import do_bench

    dtype = torch.float32 if case.itemsize == 4 else torch.bfloat16
    heads = (HEADS, HEADS // 4 if case.grouped else HEADS, HEADS // 4 if case.grouped else HEADS)
    q, k, v = (torch.randn(BATCH, h, LENGTH, case.head_dim, device="cuda", dtype=dtype) for h in heads)
    table = torch.randn(1, HEADS, 2 * LENGTH - 1, device="cuda") if case.bias else None
    options = Options(case.causal, None, case.head_dim**-0.5, 0.0, case.which == "table_gradient")

    def tiles(other: Case, device: torch.device) -> Tile:
        return tile if other.which == case.which else choose(other, device)

    with mock.patch("trans4init.kernels.attention.launch.choose", tiles):
        out, lse = launch.launch_forward(q, k, v, table, None, None, options)
        if case.which == "forward":
            return float(do_bench(lambda: launch.launch_forward(q, k, v, table, None, None, options)))
        saved = (torch.randn_like(out), torch.zeros_like(lse), out, lse, q, k, v, table, None, None, options, case.bias)
        return float(do_bench(lambda: launch.launch_backward(*saved)))


def main() -> None:
    """Time every candidate of every common case and write the winners beside what other GPUs won."""
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
