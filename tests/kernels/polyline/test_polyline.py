"""Tests of `polyline`: every implementation has the same value and slope, for all kinds of inputs."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.kernels.polyline import IMPLEMENTATIONS, chosen, native, native_refusal, op, polyline

EPS = torch.finfo(torch.float32).eps
needs_native = pytest.mark.skipif(native_refusal() is not None, reason=f"the C code can't be used: {native_refusal()}")
HERE = [
    pytest.param("reference"),
    pytest.param("sum"),
    pytest.param("native", marks=needs_native),
]


def drawn(kinks, seed):
    """Draw a continuous polyline with so many kinks: kinks [K − 1], lines [2, K], float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(kinks, generator=generator, dtype=torch.float64).sort().values
    slopes = torch.randn(kinks + 1, generator=generator, dtype=torch.float64)
    intercepts = torch.cat([torch.ones(1, dtype=torch.float64), -(slopes.diff() * x)]).cumsum(0)
    return x, torch.stack([slopes, intercepts])


def places(kinks, shape, seed):
    """Return inputs between the kinks, on them, right beside them, and far outside."""
    generator = torch.Generator().manual_seed(seed)
    inputs = (3 * torch.randn(shape, generator=generator)).flatten()
    near = torch.cat([kinks.float(), torch.nextafter(kinks.float(), torch.tensor(9.0)), torch.tensor([-1e4, 1e4])])
    count = min(len(near), len(inputs))
    inputs[:count] = near[torch.randperm(len(near), generator=generator)[:count]]
    return inputs.view(shape)


def value_and_slope(impl, inputs, kinks, lines, upstream=None):
    leaf = inputs.clone().requires_grad_()
    value = polyline(leaf, kinks, lines, impl=impl)
    [slope] = torch.autograd.grad(value, leaf, torch.ones_like(value) if upstream is None else upstream)
    return value.detach(), slope


SHAPES = [(), (0,), (1,), (63,), (64,), (113, 203), (239, 1), (2, 16384), (32769,)]


@pytest.mark.parametrize("impl", HERE)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(kinks=st.integers(0, 128), seed=st.integers(0, 1000), shape=st.sampled_from(SHAPES))
def test_value_and_slope_are_right_to_rounding_at_and_between_the_kinks_and_far_outside(impl, kinks, seed, shape):
    exact_kinks, exact_lines = drawn(kinks, seed)
    x, lines = exact_kinks.float(), exact_lines.float()
    inputs = places(x, shape, seed)
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    value, gradient = value_and_slope(impl, inputs, x, lines, upstream)
    truth, slope = value_and_slope("reference", inputs.double(), x.double(), exact_lines)
    assert value.shape == gradient.shape == inputs.shape
    assert value.dtype == gradient.dtype == torch.float32
    steepest, reach = exact_lines[0].abs().max(), exact_kinks.abs().max() if kinks else 0
    bends = exact_lines[0].diff().abs()
    allowed = 1 + steepest * (inputs.double().abs() + reach) + (bends * exact_kinks.abs()).sum()  # all terms
    if impl == "sum":  # far outside, it adds up every kink's change
        allowed = allowed + inputs.double().abs() * bends.sum()
    assert ((value - truth).abs() <= 3 * EPS * allowed).all()
    rounded = EPS * bends.sum().item() * 10 if impl == "sum" else 0
    torch.testing.assert_close(gradient.double(), slope * upstream, rtol=1e-6, atol=rounded)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 1000), st.sampled_from([(), (0,), (113, 3), (2, 16384), (16385,)]))
def test_the_sum_and_the_bisection_are_the_same_polyline_in_float64(kinks, seed, shape):
    x, lines = drawn(kinks, seed)
    inputs = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    actual = [value_and_slope(impl, inputs, x, lines) for impl in ("reference", "sum")]
    for by_bisection, by_sum in zip(*actual, strict=True):
        torch.testing.assert_close(by_bisection, by_sum, rtol=1e-12, atol=1e-11)
    corners = np.concatenate([[-100], x.numpy(), [100]])
    heights = polyline(torch.from_numpy(corners), x, lines).numpy()
    expected = torch.as_tensor(np.interp(inputs.numpy(), corners, heights))
    torch.testing.assert_close(actual[0][0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("impl", HERE)
def test_the_slope_at_a_kink_is_that_of_the_line_to_its_left(impl):
    x, lines = (part.float() for part in drawn(5, 0))
    torch.testing.assert_close(value_and_slope(impl, x, x, lines)[1], lines[0, :-1])


def test_the_slope_is_the_same_forward_as_backward():
    x, lines = drawn(5, 0)
    for inputs in (torch.linspace(-3, 3, 7), torch.linspace(-3, 3, 7).double(), torch.linspace(-3, 3, 5000).double()):
        forward = torch.func.jvp(lambda z: polyline(z, x, lines), (inputs,), (torch.ones_like(inputs),))[1]
        assert torch.equal(forward, value_and_slope("reference", inputs, x, lines)[1])
    rows = torch.randn(3, 50)
    torch.testing.assert_close(torch.func.vmap(lambda z: polyline(z, x, lines))(rows), polyline(rows, x, lines))


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("count", [5, 64, 5000])
def test_nan_stays_nan_and_strides_do_not_matter(impl, count):
    x, lines = (part.float() for part in drawn(7, 1))
    inputs = torch.full((count,), torch.nan)
    inputs[0] = 1.0
    assert polyline(inputs, x, lines, impl=impl).isnan().sum() == count - 1
    strided = torch.randn(113, 203).T
    actual, expected = (value_and_slope(impl, z, x, lines) for z in (strided, strided.contiguous()))
    torch.testing.assert_close(actual, expected)


@needs_native
def test_the_native_code_writes_all_that_is_asked_for_and_nothing_else():
    """Its results lie between guards, in memory that holds NaN."""
    x, lines = (part.float() for part in drawn(7, 1))
    library, pointer = native._loaded(), lines.data_ptr()
    for count in (0, 1, 63, 64, 65, 200):
        inputs, upstream = torch.randn(count), torch.randn(count)
        for gradient in (False, True):
            out = torch.full((count + 128,), torch.nan)
            at = out.data_ptr() + 64 * 4
            if gradient:
                library.polyline_gradient(
                    inputs.data_ptr(), upstream.data_ptr(), at, count, x.data_ptr(), pointer, 8, 1
                )
            else:
                library.polyline_value(inputs.data_ptr(), at, count, x.data_ptr(), pointer, pointer + 32, 8, 1)
            assert out.isnan().nonzero()[:, 0].tolist() == [*range(64), *range(64 + count, count + 128)]


@needs_native
def test_the_native_code_gives_the_same_bits_on_any_number_of_threads():
    x, lines = (part.float() for part in drawn(15, 2))
    inputs, actual, before = torch.randn(100_001), [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        actual.append(value_and_slope("native", inputs, x, lines))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in actual[1:] for a, b in zip(actual[0], other, strict=True))


@needs_native
def test_auto_is_native_on_a_cpu_and_what_is_exact_or_transformed_is_not():
    assert chosen(torch.zeros(5), 16) == "native"
    assert chosen(torch.zeros(5), 257) == chosen(torch.zeros(5).double(), 16) == "reference"
    assert chosen(torch.zeros(5000).double(), 16) == "sum"
    under_vmap = []
    torch.func.vmap(lambda z: (under_vmap.append(chosen(z, 16)), z)[1])(torch.zeros(2, 3))
    assert under_vmap == ["reference"]


def without_a_compiler(tmp_path, **variables):
    """Return what another process, with an empty cache, prints about the C code."""
    program = (
        "import torch; from trans4init.kernels.polyline import chosen, native_refusal, polyline\n"
        "print(native_refusal(), '|', chosen(torch.zeros(5000), 16), '|', chosen(torch.zeros(5), 16), '|',\n"
        "      polyline(torch.ones(3), torch.zeros(1), torch.tensor([[0.0, 2.0], [0.0, 0.0]])).tolist())"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_without_a_compiler_the_sum_is_taken_and_the_reason_said(tmp_path):
    printed = without_a_compiler(tmp_path, PATH=str(tmp_path), CC="")
    assert printed == "this machine has no C compiler (cc, gcc or clang) | sum | reference | [2.0, 2.0, 2.0]"
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error: out of order' >&2\nexit 1\n")
    broken.chmod(0o755)
    printed = without_a_compiler(tmp_path, CC=str(broken))
    assert printed.startswith(f"{broken} doesn't compile native.c: error: out of order | sum |")
    (tmp_path / "file").write_text("")
    assert "| sum |" in without_a_compiler(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file"))


@needs_native
def test_it_is_compiled_once_for_all_processes(tmp_path):
    assert without_a_compiler(tmp_path).startswith("None | native")
    [library] = (tmp_path / "trans4init").iterdir()
    then = library.stat().st_mtime_ns
    assert without_a_compiler(tmp_path).startswith("None | native")
    assert library.stat().st_mtime_ns == then


def test_a_model_compiles_without_a_graph_break_and_has_the_same_gradient():
    x, lines = (part.float() for part in drawn(7, 3))
    inputs = places(x, (300,), 0)
    compiled = torch.compile(lambda z: polyline(z, x, lines) * 2, fullgraph=True, backend="aot_eager")
    leaf = inputs.clone().requires_grad_()
    value = compiled(leaf)
    [gradient] = torch.autograd.grad(value.sum(), leaf)
    truth, slope = value_and_slope("reference", inputs, x, lines)
    torch.testing.assert_close(value, 2 * truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, 2 * slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"inputs": torch.zeros(3, dtype=torch.long)}, "takes floating-point inputs, and got torch.int64"),
        ({"kinks": torch.zeros(4)}, r"kinks \[K - 1\] and lines \[2, K\], and got \[4\] and \[2, 4\]"),
        ({"lines": torch.zeros(2, 4, requires_grad=True)}, "has no gradient to its kinks and lines"),
        ({"kinks": torch.zeros(3, device="meta")}, "the inputs are on cpu, and the polyline on meta and cpu"),
        ({"impl": "bmm"}, "impl 'bmm' is not one of auto, reference, sum, compile, native, triton"),
        ({"impl": "native", "inputs": torch.zeros(3).double()}, "impl 'native' takes float32 on a CPU and at most 256"),
        ({"impl": "sum", "inputs": torch.zeros(3).half()}, "impl 'sum' takes float32 and float64, and got"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(call, sentence):
    arguments = {"inputs": torch.zeros(3), "kinks": torch.zeros(3), "lines": torch.zeros(2, 4)} | call
    with pytest.raises(ValueError, match=rf"^[^\n]*{sentence}[^\n]*\.$"):
        polyline(**arguments)


@pytest.mark.parametrize("impl", HERE)
def test_the_polyline_may_be_in_another_precision_than_the_inputs(impl):
    x, lines = drawn(7, 1)
    inputs = torch.randn(5000)
    exact = polyline(inputs.double(), x, lines)
    torch.testing.assert_close(polyline(inputs, x, lines, impl=impl), exact.float(), rtol=1e-5, atol=1e-5)


def test_half_precision_is_computed_in_float32():
    x, lines = (part.float() for part in drawn(7, 1))
    inputs = torch.randn(200).bfloat16()
    expected = polyline(inputs.double(), x, lines).bfloat16()
    assert torch.equal(polyline(inputs, x, lines), polyline(inputs.float(), x, lines, impl="reference").bfloat16())
    torch.testing.assert_close(polyline(inputs, x, lines), expected, rtol=2**-7, atol=1e-3)


def test_every_implementation_has_its_name():
    assert set(op._IMPLEMENTATIONS) | {"auto"} == set(IMPLEMENTATIONS)
