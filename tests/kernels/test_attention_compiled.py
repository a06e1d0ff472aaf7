"""Every tile that the attention kernels ship with, compiled for GPUs that are not there.

`python tests/kernels/test_attention_compiled.py` compiles them all and rewrites the table beside this file; the tests
hold the table against the kernels' source and compile a part of it again.
"""

import hashlib
import importlib
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from trans4init.kernels.attention import launch
from trans4init.kernels.attention.configurations import PASSES, Case, Tile, candidates

triton = pytest.importorskip("triton", reason="Triton exists on Linux alone")

TABLE = Path(__file__).with_suffix(".json")
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "sm_86": 101_376, "gfx942": 65_536}
ROOMS = {"sm_80": "large", "sm_90": "large", "sm_100": "large", "sm_86": "small", "gfx942": "small"}
HEAD_DIMS = (16, 32, 64, 96, 128, 256)  # 80 compiles as 96 does
AGAIN = [  # what the tests compile anew: the biased and the plain kernels of the two most common head dims
    f"sm_90 {which} D{head_dim} 16-bit {traits}"
    for which, head_dim, traits in (
        ("forward", 64, "bias causal 128x128x8x3"),
        ("forward", 128, "bias causal 128x64x8x3"),
        ("forward", 128, "causal 128x64x8x3"),
        ("query_gradient", 128, "bias causal 128x32x8x2"),
        ("key_gradient", 128, "bias causal 32x128x8x2"),
        ("table_gradient", 128, "bias causal 64x64x8x1"),
    )
]
NAMES = {which: f"{which}_kernel" for which in PASSES}


def common_head_dims(target, itemsize):
    """The head dims that are compiled: all in half precision on sm_90, else those that decide the tile."""
    if target == "sm_90":
        return HEAD_DIMS if itemsize == 2 else (64, 128, 256)
    return (64, 128, 256) if itemsize == 2 else (64,)


def shipped():
    """Each GPU, case and tile under its name in the table: all of sm_90, elsewhere the defaults of the common cases."""
    rows = {}
    for target, which in itertools.product(ROOMS, NAMES):
        for head_dim, itemsize, bias, grouped in itertools.product(HEAD_DIMS, (2, 4), (True, False), (False, True)):
            odd = not bias or grouped
            if odd and (target != "sm_90" or itemsize == 4 or (grouped and not bias)):
                continue
            if (which == "table_gradient" and odd) or (grouped and which != "key_gradient"):
                continue
            if head_dim not in common_head_dims(target, itemsize):
                continue
            case = Case(which, head_dim, itemsize, bias, True, grouped)
            for tile in candidates(case, ROOMS[target])[: None if target == "sm_90" else 1]:
                size = f"{tile.queries}x{tile.keys}x{tile.warps}x{tile.stages}"
                rows[f"{target} {case} {size}"] = (target, case, tile)
    return rows


def compile_kernel(target: str, case: Case, tile: Tile):
    """The kernel of a case compiled for a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernels(False)[NAMES[case.which]]
    constants = {
        "HEAD_DIM": case.head_dim,
        "BLOCK_D": launch.block_dim(case.head_dim),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
        "BLOCK": tile.queries,
        "BIAS": case.bias,
        "TABLE": case.bias,
        "CAUSAL": case.causal,
        "GROUPED": case.grouped,
    }
    switches = dict.fromkeys(("WINDOW", "LENGTHS", "DROPOUT", "UPCAST"), False)
    constants = {name: value for name, value in (constants | switches).items() if name in kernel.arg_names}
    element = "bf16" if case.itemsize == 2 else "fp32"
    wide = {"table_ptr", "lse_ptr", "delta_ptr", "level_ptr", "table_grad_ptr"}
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = (
                "*fp32" if name in wide else "*i64" if name in ("lengths_ptr", "seed_ptr") else f"*{element}"
            )
        else:
            signature[name] = "fp32" if name in ("scale", "keep_scale") else "i32"
        if name.endswith(("_ptr", "_batch", "_head", "_row")):
            attributes[(place,)] = [["tt.divisibility", 16]]  # as the launcher finds them for aligned tensors
    amd = target.startswith("gfx")
    gpu = GPUTarget("hip", target, 64) if amd else GPUTarget("cuda", int(target[3:]), 32)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=gpu, options={"num_warps": tile.warps, "num_stages": tile.stages})


def measure(target: str, case: Case, tile: Tile) -> dict[str, int]:
    """Registers, spilled bytes a thread, shared memory and matrix instructions of a compiled kernel."""
    compiled = compile_kernel(target, case, tile)
    row = {"shared": compiled.metadata.shared}
    if target.startswith("gfx"):
        assembly = compiled.asm["amdgcn"]
        row["registers"] = int(re.search(r"\.vgpr_count:\s+(\d+)", assembly)[1])
        row["spilled"] = int(re.search(r"\.vgpr_spill_count:\s+(\d+)", assembly)[1]) * 4
        return row | {"matrix": assembly.count("v_mfma")}
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    row["registers"], row["spilled"] = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    ptx = compiled.asm["ptx"]
    return row | {"matrix": ptx.count("wgmma.mma_async") + ptx.count("mma.sync") + ptx.count("tcgen05.mma")}


def source_hash() -> str:
    """Of the kernels' source: a table of other kernels says nothing."""
    modules = (
        importlib.import_module(f"trans4init.kernels.attention.{name}") for name in ("kernel", "backward_kernel")
    )
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def table():
    return json.loads(TABLE.read_text())


def test_the_table_is_of_these_kernels_and_these_tiles(table):
    again = "run `python tests/kernels/test_attention_compiled.py` and review the difference"
    assert table["source"] == source_hash(), again
    assert set(table["rows"]) == set(shipped()), again


def test_no_shipped_tile_runs_out_of_shared_memory(table):
    for name, row in table["rows"].items():
        assert row["shared"] <= SHARED_LIMIT[name.split()[0]], name


def test_nothing_spills_on_sm_90_up_to_head_dim_128(table):
    cases = shipped()
    for name, row in table["rows"].items():
        target, case, _ = cases[name]
        if target == "sm_90" and case.head_dim <= 128:
            assert row["spilled"] <= (0 if case.itemsize == 2 else 8), name  # bytes a thread


def test_half_precision_runs_on_the_matrix_units(table):
    cases = shipped()
    for name, row in table["rows"].items():
        assert row["matrix"] > 0 or cases[name][1].itemsize == 4, name


@pytest.mark.parametrize("name", AGAIN)
def test_a_compilation_of_today_agrees_with_the_table(table, name):
    """Shared memory to the byte with the table's Triton, no spills and wgmma with any."""
    target, case, tile = shipped()[name]
    row = measure(target, case, tile)
    print(name, row)
    assert row["spilled"] == 0
    assert "wgmma.mma_async" in compile_kernel(target, case, tile).asm["ptx"]
    if table["triton"] == triton.__version__:
        assert row["shared"] == table["rows"][name]["shared"]


def _row(job):
    name, (target, case, tile) = job
    try:
        return name, measure(target, case, tile)
    except Exception as error:  # noqa: BLE001  a compiler's failure is printed, and then stops the command
        return name, repr(error)[:300]


def main() -> None:
    """Compile everything that is shipped and write the table."""
    wanted = [(name, job) for name, job in shipped().items() if all(word in name for word in sys.argv[1:])]
    rows, failed = {}, {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name, row in pool.map(_row, wanted):
            print(name, row, flush=True)
            (rows if isinstance(row, dict) else failed)[name] = row
    if failed:
        sys.exit(f"{len(failed)} of {len(wanted)} didn't compile.")
    if not sys.argv[1:]:
        TABLE.write_text(one_row_a_line({"triton": triton.__version__, "source": source_hash(), "rows": rows}))


def one_row_a_line(table) -> str:
    """JSON that shows a changed row as one changed line."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table["rows"].items())
    return json.dumps(table | {"rows": {}})[:-2] + "\n" + rows + "\n}}\n"


if __name__ == "__main__":
    main()
