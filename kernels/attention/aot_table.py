"""Compile the attention kernels for GPUs that need not be there, and write a table of what each one uses.

`python -m trans4init.kernels.attention.aot_table TABLE` writes the table. `--usage NAME` prints what the kernels use
whose names begin with NAME, `--sass NAME` the instructions of their loops.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review. All possible
kernels are too many to compile each time: for one GPU, four passes at seven head dims in two sizes of numbers (bfloat16
compiles as float16 does), with and without a bias, its gradient, a causal mask (or any bound on later keys), a window
(a bound on earlier ones), lengths, dropout, a softcap and grouped heads are 4480 kernels; `--usage sm_90` compiles
them. The table holds every tile of `configurations.py`: each pass with all of these switches off, with a bias alone,
with all of them on, and with all but the softcap, so that each switch is seen on and off at every head dim, in half
precision and in float32 (on sm_86 at one head dim). On sm_90, at the common head dims, it also holds the cases "all
off" and "all but the softcap" with and without a causal mask.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from trans4init.kernels.ahead_of_time import Job, Usage, compile_job, run_command, usage_of
from trans4init.kernels.attention import launch
from trans4init.kernels.attention.configurations import PASSES, Case, Pass, Room, Tile, candidates

__all__ = ["SOURCES", "Variant", "build", "every", "job_of", "measure", "shipped"]

SOURCES = launch.KERNELS.paths
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
"""The head dims in the table, for each GPU and each size of a number in bytes."""
OPTIONS = ("window", "lengths", "dropout", "softcap")


@dataclass(frozen=True)
class Variant:
    """Describes one kernel for one GPU.

    window: whether there is a bound on earlier keys. lengths: whether there are key lengths, or query lengths too.
    table: whether the query gradient also sums the table's gradient.
    """

    target: str
    case: Case
    tile: Tile
    window: bool = False
    lengths: bool = False
    dropout: bool = False
    softcap: bool = False
    table: bool = True

    def __str__(self) -> str:
        """Return the name of its row: GPU, pass, head dim and traits, queries x keys x warps x stages."""
        tile = self.tile
        traits = [name for name in OPTIONS if getattr(self, name)]
        traits += ["no table"] if self.case.bias and not self.table else []
        size = f"{tile.queries}x{tile.keys}x{tile.warps}x{tile.stages}"
        return " ".join([self.target, str(self.case), size, *traits])


def shipped() -> dict[str, Variant]:
    """Return the table's variants by name; the module's docstring says which they are."""
    return {str(variant): variant for target in SHOWN for variant in _variants(target)}


def every() -> dict[str, Variant]:
    """Return every kernel that a call can use with default tiles, for every GPU, by name."""
    sizes = itertools.product(ROOMS, PASSES, launch.HEAD_DIMS, (2, 4))
    return {str(variant): variant for size in sizes for variant in _asked(*size)}


def _asked(target: str, which: Pass, head_dim: int, itemsize: int) -> Iterator[Variant]:
    """Return every combination of the switches that the pass has."""
    either = (False, True)
    biased = (True,) if which == "table_gradient" else either
    grouped = either if which == "key_gradient" else (False,)
    for bias, causal, group, *options in itertools.product(biased, either, grouped, *[either] * len(OPTIONS)):
        case = Case(which, head_dim, itemsize, bias, causal, group, masked=any(options))
        variant = Variant(target, case, candidates(case, ROOMS[target])[0], *options)
        yield variant
        if bias and which == "query_gradient":
            yield replace(variant, table=False)


def _variants(target: str) -> Iterator[Variant]:
    """Return one GPU's variants: all switches off, all on, each tile; on Hopper more at the common head dims."""
    room, on_hopper = ROOMS[target], target == HOPPER
    for itemsize, head_dims in SHOWN[target].items():
        for head_dim, which in itertools.product(head_dims, PASSES):
            common = on_hopper and itemsize == 2 and head_dim in COMMON
            for everything, causal in itertools.product((False, True), (False, True)):
                if everything == causal or common:
                    yield _extreme(target, which, head_dim, itemsize, everything, causal)
            yield replace(_extreme(target, which, head_dim, itemsize, True, True), softcap=True)
            biased = Case(which, head_dim, itemsize, bias=True)
            yield from (Variant(target, biased, tile) for tile in candidates(biased, room))
            if which == "query_gradient" and common:
                yield Variant(target, biased, candidates(biased, room)[0], table=False)
            if which == "key_gradient":
                for case in (replace(biased, grouped=True), replace(biased, masked=True)):
                    tile, on = candidates(case, room)[0], case.masked
                    yield Variant(target, case, tile, window=on, lengths=on, dropout=on)


def _extreme(target: str, which: Pass, head_dim: int, itemsize: int, everything: bool, causal: bool) -> Variant:
    """Return the variant with every switch off, or with a bias, grouped heads and all options but the softcap."""
    bias, grouped = everything or which == "table_gradient", everything and which == "key_gradient"
    case = Case(which, head_dim, itemsize, bias, causal, grouped, masked=everything)
    return Variant(target, case, candidates(case, ROOMS[target])[0], everything, everything, everything)


def job_of(variant: Variant) -> Job:
    """Return what to compile, with arguments as the launcher passes them for aligned tensors."""
    case, tile = variant.case, variant.tile
    kernel = launch.KERNELS.kernels(interpreted=False)[f"{case.which}_kernel"]
    constants = {
        "HEAD_DIM": case.head_dim,
        "BLOCK_D": launch.block_dim(case.head_dim),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
        "BLOCK": tile.queries,
        "BIAS": case.bias,
        "TABLE": case.bias and variant.table,
        "RIGHT": case.causal,
        "GROUPED": case.grouped,
        "LEFT": variant.window,
        "SOFTCAP": variant.softcap,
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
    if name in ("lengths_ptr", "query_lengths_ptr", "seed_ptr"):
        return "*i64"
    if name.endswith("_ptr"):
        return "*bf16" if itemsize == 2 else "*fp32"
    return "fp32" if name in ("scale", "softcap", "keep_scale") else "i32"


def build(name: str) -> Any:
    """Compile the variant of that name."""
    return compile_job(job_of(_known()[name]))


@functools.cache
def _known() -> dict[str, Variant]:
    return every() | shipped()


def measure(name: str) -> Usage:
    """Compile the variant of that name and return what it uses."""
    return usage_of(build(name))


if __name__ == "__main__":
    run_command("trans4init.kernels.attention.aot_table", shipped(), build, measure, SOURCES, every())
