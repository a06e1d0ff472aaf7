"""`python -m trans4init.kernels.attention.compiled TABLE`: compile the shipped kernels and write what each takes.

`--sass NAME` prints the instructions of their loops instead.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review. All that can
be asked for is too much to compile: for one GPU, bfloat16 compiling as float16 does, four passes at seven head dims in
two sizes of numbers, with and without a bias, its gradient, a causal mask, a window, key lengths, dropout and grouped
heads are 2240 kernels. The table holds every pass with all of that off and with all of it on, so that each switch is
seen on and off at each size, at every head dim in half precision and in float32 (sm_86: one). On sm_90, at the
common head dims, it also holds each of these with and without a causal mask, and a bias alone in each candidate tile.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trans4init.kernels.attention import launch
from trans4init.kernels.attention.configurations import PASSES, Case, Pass, Room, Tile, candidates
from trans4init.kernels.compilation import Job, Usage, compile_job, run_command, usage_of

__all__ = ["SOURCES", "Variant", "build", "job_of", "measure", "shipped"]

SOURCES = [Path(__file__).parent / name for name in ("kernel.py", "backward_kernel.py")]
ROOMS: dict[str, Room] = {"sm_90": "large", "sm_80": "large", "sm_100": "large", "sm_86": "small", "gfx942": "small"}
HOPPER = "sm_90"
COMMON = (64, 128)
SHOWN: dict[str, dict[int, tuple[int, ...]]] = {
    HOPPER: {2: launch.HEAD_DIMS, 4: launch.HEAD_DIMS},
    "sm_80": {2: launch.HEAD_DIMS, 4: launch.HEAD_DIMS},
    "sm_100": {2: launch.HEAD_DIMS, 4: launch.HEAD_DIMS},
    "sm_86": {2: (128,)},
    "gfx942": {2: launch.HEAD_DIMS, 4: launch.HEAD_DIMS},
}
"""The head dims that are compiled, by the bytes of a number."""
OPTIONS = ("window", "lengths", "dropout")


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
        traits = [name for name in OPTIONS if getattr(self, name)]
        traits += ["no table"] if self.case.bias and not self.table else []
        size = f"{tile.queries}x{tile.keys}x{tile.warps}x{tile.stages}"
        return " ".join([self.target, str(self.case), size, *traits])


def shipped() -> dict[str, Variant]:
    """Every variant by its name; the module says how they are chosen."""
    return {str(variant): variant for target in SHOWN for variant in _variants(target)}


def _variants(target: str) -> Iterator[Variant]:
    on_hopper = target == HOPPER
    for itemsize, head_dims in SHOWN[target].items():
        for head_dim, which, everything, causal in itertools.product(head_dims, PASSES, (False, True), (False, True)):
            if everything == causal or (on_hopper and itemsize == 2 and head_dim in COMMON):
                yield _extreme(target, which, head_dim, itemsize, everything, causal)
    if on_hopper:
        yield from _bias_alone()


def _bias_alone() -> Iterator[Variant]:
    """A bias alone, causal, in half precision on Hopper: in each candidate tile, and without the table's gradient."""
    for head_dim, which in itertools.product(COMMON, PASSES):
        biased = Case(which, head_dim, 2, bias=True)
        tiles = candidates(biased, ROOMS[HOPPER])
        yield from (Variant(HOPPER, biased, tile) for tile in tiles)
        if which == "query_gradient":
            yield Variant(HOPPER, biased, tiles[0], table=False)


def _extreme(target: str, which: Pass, head_dim: int, itemsize: int, everything: bool, causal: bool) -> Variant:
    """Nothing that can be left out, or a bias, all options and grouped heads."""
    bias, grouped = everything or which == "table_gradient", everything and which == "key_gradient"
    case = Case(which, head_dim, itemsize, bias, causal, grouped, masked=everything)
    return Variant(target, case, candidates(case, ROOMS[target])[0], everything, everything, everything)


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


def build(name: str) -> Any:
    """The variant of that name, compiled."""
    return compile_job(job_of(shipped()[name]))


def measure(name: str) -> Usage:
    """What the variant of that name takes."""
    return usage_of(build(name))


if __name__ == "__main__":
    run_command("trans4init.kernels.attention.compiled", shipped(), build, measure, SOURCES)
