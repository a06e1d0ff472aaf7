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
    """Every variant by its name: on Hopper every pass, head dim, tile and option, on other GPUs every pass and tile.

    bfloat16 compiles as float16 does. The widest of the head dims that share a tile stands for all where it isn't
    Hopper, and with grouped heads; the common ones do without a causal mask, and with an option.
    """
    on_hopper = (variant for case in _cases() for variant in _on_hopper(case))
    elsewhere = (
        Variant(target, case, candidates(case, ROOMS[target])[0])
        for target, case in itertools.product(ROOMS, _cases())
        if target != "sm_90" and _stands_for_others(target, case)
    )
    return {str(variant): variant for variant in itertools.chain(on_hopper, elsewhere)}


def _cases() -> Iterator[Case]:
    """Every case without options; of float32 and of grouped heads the representative ones."""
    for which, head_dim, itemsize in itertools.product(PASSES, launch.HEAD_DIMS, (2, 4)):
        for bias, causal, grouped in itertools.product((True, False), repeat=3):
            impossible = (which == "table_gradient" and not bias) or (grouped and which != "key_gradient")
            rare = grouped or itemsize == 4
            shown = head_dim in REPRESENTATIVE if rare and causal else causal or (head_dim in COMMON and not rare)
            if shown and not impossible and not (grouped and (itemsize == 4 or not bias)):
                yield Case(which, head_dim, itemsize, bias, causal, grouped)


def _on_hopper(case: Case) -> Iterator[Variant]:
    tiles = candidates(case, "large")
    if not case.causal or case.head_dim not in REPRESENTATIVE:
        yield Variant("sm_90", case, tiles[0])
        return
    yield from (Variant("sm_90", case, tile) for tile in tiles)
    if case.which == "query_gradient" and case.bias:
        yield Variant("sm_90", case, tiles[0], table=False)
    for window, lengths, dropout in OPTIONS:
        rare = case.itemsize == 4 or case.grouped
        if case.head_dim in COMMON and (not rare or (case.bias and window and lengths)):
            masked = replace(case, masked=True)
            yield Variant("sm_90", masked, candidates(masked, "large")[0], window, lengths, dropout)


def _stands_for_others(target: str, case: Case) -> bool:
    if case.grouped or not case.causal or case.head_dim not in REPRESENTATIVE:
        return False
    if ROOMS[target] == "small":
        return case.bias and case.itemsize == 2 and (target != "sm_86" or case.head_dim == 128)
    return case.itemsize == 2 or (case.bias and case.head_dim == 64)


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
