"""Tests of the shipped kernels, compiled for GPUs that need not be there.

`python -m trans4init.kernels.attention.aot_table tests/kernels/attention/aot_table.json`, and the same with
`positional_mlp` and `polyline`, write the tables; the tests check that a table keeps its limits and is of today's
source, and compile some of its rows again.
"""

import json
from pathlib import Path

import pytest

from trans4init.kernels.ahead_of_time import SHARED_LIMIT, Usage, compile_job, inner_loops, source_hash
from trans4init.kernels.attention import aot_table as attention
from trans4init.kernels.attention.configurations import PASSES
from trans4init.kernels.attention.launch import HEAD_DIMS
from trans4init.kernels.polyline import aot_table as polyline
from trans4init.kernels.positional_mlp import ACTIVATIONS, FEATURES
from trans4init.kernels.positional_mlp import aot_table as positional_mlp

triton = pytest.importorskip("triton", reason="Triton exists on Linux alone")

PACKAGES = {"attention": attention, "polyline": polyline, "positional_mlp": positional_mlp}
WIDE = 256  # at this head dim, or width of a hidden layer, kernels may spill

AGAIN = {  # the rows that are compiled again: the most common kernels, and each option and GPU once
    "attention": [
        "sm_90 forward D64 16-bit bias causal 128x128x8x3",
        "sm_90 forward D128 16-bit bias causal 128x64x8x3",
        "sm_90 forward D128 16-bit 128x64x8x3",
        "sm_90 query_gradient D128 16-bit bias causal 128x32x8x2",
        "sm_90 key_gradient D128 16-bit bias causal 32x128x8x2",
        "sm_90 table_gradient D128 16-bit bias causal 64x64x8x1",
        "sm_80 query_gradient D64 16-bit 128x64x8x2",
        "sm_100 key_gradient D64 16-bit bias causal grouped masked 32x128x8x2 window lengths dropout",
        "gfx942 forward D64 16-bit bias causal masked 64x32x4x2 window lengths dropout",
        "sm_90 key_gradient D128 32-bit bias causal grouped masked 16x16x8x1 window lengths dropout",
        "sm_90 forward D128 16-bit bias causal masked 128x32x8x3 window lengths dropout softcap",
        "gfx942 table_gradient D64 16-bit bias causal masked 64x32x4x2 window lengths dropout softcap",
    ],
    "polyline": ["sm_90 forward fp32 16 lines", "sm_90 backward bf16 256 lines"],
    "positional_mlp": [
        "sm_90 forward fp32 tf32x3 32-32-64 fourier gelu 64x16x32x64x4",
        "sm_90 backward fp32 tf32x3 32-128-128-128-64 fourier gelu 16x16x32x32x4",
        "sm_80 forward bf16 32-128-128-128-64 fourier gelu 64x16x32x64x4",
        "sm_100 backward bf16 32-48-20-64 log relu plain 32x16x32x32x4",
        "gfx942 forward fp32 ieee 1-16-1 fourier gelu plain 64x16x16x16x4",
    ],
}
ROWS = [(package, name) for package, names in AGAIN.items() for name in names]


def read_table(package):
    content = json.loads((Path(__file__).parent / package / "aot_table.json").read_text())
    return content | {"rows": {name: Usage(**row) for name, row in content["rows"].items()}}


@pytest.fixture(scope="module", params=PACKAGES)
def package(request):
    return request.param


@pytest.fixture(scope="module")
def table(package):
    return read_table(package)


def test_the_table_is_of_these_kernels_and_these_variants(package, table):
    module = PACKAGES[package]
    again = f"run `python -m {module.__name__} tests/kernels/{package}/aot_table.json` and review the difference"
    assert table["source"] == source_hash(module.SOURCES), again
    assert set(table["rows"]) == set(module.shipped()), again


def test_the_table_of_attention_sees_every_switch_on_and_off_at_every_size_it_shows():
    switch_values = {}
    for variant in attention.shipped().values():
        case = variant.case
        switches = {"causal": case.causal, "window": variant.window, "lengths": variant.lengths}
        switches |= {"dropout": variant.dropout, "softcap": variant.softcap}
        switches |= {"grouped": case.grouped} if case.which == "key_gradient" else {}
        switches |= {"bias": case.bias} if case.which != "table_gradient" else {}
        for name, on in switches.items():
            switch_values.setdefault((variant.target, case.which, case.head_dim, case.itemsize, name), set()).add(on)
    assert {size for size, values in switch_values.items() if values != {True, False}} == set()
    hopper = {size[1:4] for size in switch_values if size[0] == "sm_90"}
    assert hopper >= {(which, head_dim, 2) for which in PASSES for head_dim in HEAD_DIMS}


def test_the_table_of_attention_holds_every_tile_that_a_call_can_be_given():
    tiles = {}
    for name, variant in [*attention.every().items(), *attention.shipped().items()]:
        case = variant.case
        asked_and_shown = tiles.setdefault((variant.target, case.which, case.head_dim, case.itemsize), ({}, {}))
        asked_and_shown[name in attention.shipped()].setdefault(variant.tile, name)
    for (target, _, head_dim, itemsize), (asked, shown) in tiles.items():
        if head_dim in attention.SHOWN[target].get(itemsize, ()):
            assert set(asked) <= set(shown), [asked[tile] for tile in set(asked) - set(shown)]


def test_every_kernel_that_a_call_can_ask_for_has_a_name():
    assert sum(name.startswith("sm_90 ") for name in attention.every()) == 4480


def test_the_table_of_the_positional_mlp_sees_every_activation_and_feature_on_every_gpu():
    variants = positional_mlp.shipped().values()
    for target, backward in {(variant.target, variant.backward) for variant in variants}:
        shown = [variant for variant in variants if (variant.target, variant.backward) == (target, backward)]
        assert {variant.activation for variant in shown} == set(ACTIVATIONS)
        assert {variant.features for variant in shown} == set(FEATURES)
        assert {variant.plain for variant in shown} == {True, False}
        assert {max(variant.hidden) for variant in shown} >= {16, 48, 64, 128, 256}


def test_the_hot_loop_on_hopper_takes_one_exponential_a_score_and_spills_nothing():
    """128 queries by 64 keys on 256 threads: each has 32 scores, and two rows with a factor by which they shrink."""
    [loop, *_] = inner_loops(attention.build("sm_90 forward D128 16-bit 128x64x8x3"))
    assert loop["MUFU.EX2"] == 32 + 2
    assert loop["HGMMA"] == 12  # 8 blocks of 16 of the head dim, and 4 of 16 keys
    assert loop["LDL"] == loop["STL"] == 0


def test_no_shipped_variant_runs_out_of_shared_memory(table):
    for name, row in table["rows"].items():
        assert row.shared <= SHARED_LIMIT[name.split()[0]], name


def test_attention_spills_no_registers_on_hopper_up_to_head_dim_128():
    table, variants = read_table("attention"), attention.shipped()
    for name, row in table["rows"].items():
        if variants[name].target == "sm_90" and variants[name].case.head_dim < WIDE:
            assert row.spilled == 0, name


def test_attention_in_half_precision_runs_on_the_matrix_units():
    table, variants = read_table("attention"), attention.shipped()
    for name, row in table["rows"].items():
        if variants[name].case.itemsize == 2:
            assert row.matrix > 0, name
            if variants[name].target == "sm_90" and variants[name].case.head_dim < WIDE:
                assert row.wgmma > 0, name


def test_the_positional_mlp_spills_no_registers_up_to_width_128():
    table, variants = read_table("positional_mlp"), positional_mlp.shipped()
    for name, row in table["rows"].items():
        if max(variants[name].hidden) < WIDE:
            assert row.spilled == 0, name
        assert row.matrix > 0, name


def test_the_polyline_spills_no_registers():
    assert all(row.spilled == 0 for row in read_table("polyline")["rows"].values())


def test_the_polyline_reads_and_writes_each_number_once_16_bytes_at_a_time():
    """Each thread has eight numbers: two loads and two stores in float32; the bisection's loads have 4 bytes."""
    ptx = compile_job(polyline.job_of(polyline.shipped()["sm_90 forward fp32 16 lines"])).asm["ptx"]
    assert (ptx.count("ld.global.v4.b32"), ptx.count("st.global.v4.b32")) == (2, 2)
    assert ptx.count("st.global") == 2


@pytest.mark.parametrize(("package", "name"), ROWS)
def test_a_compilation_of_today_agrees_with_the_table(package, name):
    """In every number with the table's version of Triton; with another, in spills and matrix instructions."""
    then, row = read_table(package), PACKAGES[package].measure(name)
    print(name, row)
    expected = then["rows"][name]
    if then["triton"] == triton.__version__:
        assert row == expected
    assert row.spilled <= expected.spilled
    assert (row.matrix > 0, row.wgmma > 0) == (expected.matrix > 0, expected.wgmma > 0)
