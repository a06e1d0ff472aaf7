"""`python -m trans4init.kernels.attention.compiled TABLE`: compile every shipped kernel and write what each takes.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trans4init.kernels.attention import launch
from trans4init.kernels.attention.configurations import PASSES, Case, Room, Tile, candidates
from trans4init.kernels.compilation import Job, Usage, compile_job, usage_of, write_table

__all__ = ["SOURCES", "Variant", "job_of", "main", "measure", "shipped"]

SOURCES = [Path(__file__).parent / name for name in ("kernel.py", "backward_kernel.py")]
ROOMS: dict[str, Room] = {"sm_80": "large", "sm_90": "large", "sm_100": "large", "sm_86": "small", "gfx942": "small"}
OPTIONS = ((True, False, False), (False, True, False), (False, False, True), (True, True, True))
"""Window, key lengths, dropout: each alone, and all of them."""
COMMON = (64, 128)
REPRESENTATIVE = (64, 128, 256)
"""The widest head dim of each block size that tiles differ by."""


@dataclass(frozen=True)
class Variant:
    """One kernel for one GPU. table: whether the query gradient adds up the table's as well."""

    target: str
    case: Case
    tile: Tile
    window: bool = False
    lengths: bool = False
    dropout: bool = False
    table: bool = True

    def __str__(self) -> str:
        """The name of its row: GPU, pass, head dim and traits, queries x keys x warps x stages."""
        tile = self.tile
        traits = [name for name in ("window", "lengths", "dropout") if getattr(self, name)]
        traits += ["no table"] if self.case.bias and not self.table else []
        size = f"{tile.queries}x{tile.keys}x{tile.warps}x{tile.stages}"
        return " ".join([self.target, str(self.case), size, *traits])


def shipped() -> dict[str, Variant]:
    """Every variant by its name: each tile, pass, option and GPU, on Hopper with every head dim.

    bfloat16 compiles as float16 does. Where it isn't Hopper, the widest of the head dims that share a tile stands for
    all; without a causal mask and with an option, the common ones do. Of GPUs with less shared memory, for which sm_86
    and gfx942 stand, the table has the biased kernels alone.
    """
    return {str(variant): variant for target in ROOMS for variant in _variants(target)}


def _variants(target: str) -> Iterator[Variant]:
    hopper = target == "sm_90"
    for case in _cases():
        representative = case.head_dim in REPRESENTATIVE
        if not hopper and not (representative and case.causal and (case.itemsize == 2 or case.head_dim == 64)):
            continue
        small = ROOMS[target] == "small"
        if small and (not case.bias or case.grouped):
            continue
        tiles = candidates(case, ROOMS[target])
        for tile in tiles if hopper and representative and case.causal else tiles[:1]:
            yield Variant(target, case, tile)
        if hopper and representative and case.causal and case.which == "query_gradient" and case.bias:
            yield Variant(target, case, tiles[0], table=False)
        for window, lengths, dropout in OPTIONS if hopper and case.itemsize == 2 else OPTIONS[-1:]:
            common = case.head_dim in COMMON and case.causal and (case.bias or hopper) and not small
            if common and (dropout or not case.grouped):
                masked = replace(case, masked=window or dropout)
                yield Variant(target, masked, candidates(masked, ROOMS[target])[0], window, lengths, dropout)


def _cases() -> Iterator[Case]:
    """Every case without options."""
    for which, head_dim, itemsize in itertools.product(PASSES, launch.HEAD_DIMS, (2, 4)):
        for bias, causal, grouped in itertools.product((True, False), repeat=3):
            impossible = (which == "table_gradient" and not bias) or (grouped and which != "key_gradient")
            single = itemsize == 4 and not (causal and not grouped and head_dim in REPRESENTATIVE)
            if not impossible and not single and (causal or (head_dim in COMMON and not grouped)):
                yield Case(which, head_dim, itemsize, bias, causal, grouped)


def job_of(variant: Variant) -> Job:
    """What to compile, with the arguments as the launcher gives them for aligned tensors."""
    case, tile = variant.case, variant.tile
    kernel = launch.kernels(False)[f"{case.which}_kernel"]
    constants = {
        "HEAD_DIM": case.head_dim,
        "BLOCK_D": launch.block_dim(case.head_dim),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
        "BLOCK": tile.queries,
        "BIAS": case.bias,
        "TABLE": case.bias and variant.table,
        "CAUSAL": case.causal,
        "GROUPED": case.grouped,
        "WINDOW": variant.window,
        "LENGTHS": variant.lengths,
        "DROPOUT": variant.dropout,
        "UPCAST": False,
    }
    types = {name: _type(name, case.itemsize) for name in kernel.arg_names}
    aligned = [name for name in types if name.endswith(("_ptr", "_batch", "_head", "_row"))]
    return Job(variant.target, kernel, types, constants, aligned, tile.warps, tile.stages)


def _type(name: str, itemsize: int) -> str:
    if name in ("table_ptr", "lse_ptr", "delta_ptr", "level_ptr", "table_grad_ptr"):
        return "*fp32"
    if name in ("lengths_ptr", "seed_ptr"):
        return "*i64"
    if name.endswith("_ptr"):
        return "*bf16" if itemsize == 2 else "*fp32"
    return "fp32" if name in ("scale", "keep_scale") else "i32"


def measure(name: str) -> Usage:
    """What the variant of that name takes."""
    return usage_of(compile_job(job_of(shipped()[name])))


def main() -> None:
    """Compile everything that is shipped and write the table to the path that is given."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m trans4init.kernels.attention.compiled TABLE, the JSON file to write.")
    write_table(list(shipped()), measure, SOURCES, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
