"""Tests of the polyline's Triton kernel, interpreted on the CPU, against the reference; and of its operators."""

import pytest
import torch

from trans4init.kernels.polyline import polyline
from trans4init.kernels.polyline.launch import BLOCK
from trans4init.kernels.polyline.registration import polyline_backward, polyline_forward

pytest.importorskip("triton", reason="needs Triton")


def drawn(pieces, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kinks = torch.randn(pieces - 1, generator=generator).sort().values
    return kinks, torch.randn(2, pieces, generator=generator)


def near(kinks, count):
    """Return inputs on the kinks, right beside them, far outside and between, and NaN."""
    beside = torch.nextafter(kinks, torch.tensor(9.0))
    inputs = torch.cat([kinks, beside, torch.tensor([-1e4, 1e4, torch.nan]), 2 * torch.randn(count)])
    return inputs[:count] if count < len(inputs) else inputs


@pytest.mark.parametrize("pieces", [1, 2, 3, 8, 16, 17, 100])
@pytest.mark.parametrize("count", [1, 113, BLOCK, 2 * BLOCK + 1])
def test_the_line_of_every_number_is_found_and_evaluated(pieces, count):
    """The lines don't meet, so that a wrong line shows; the bound is two roundings of what a line adds up."""
    kinks, lines = drawn(pieces)
    inputs = near(kinks, count).requires_grad_()
    upstream = torch.randn(len(inputs))
    actual, expected = (polyline(inputs, kinks, lines, impl=impl) for impl in ("triton", "reference"))
    slope, intercept = lines[:, torch.bucketize(inputs.detach(), kinks)].abs()
    allowed = 2 * torch.finfo(torch.float32).eps * (slope * inputs.detach().abs() + intercept)
    assert torch.equal(actual.isnan(), inputs.isnan())
    assert ((actual - expected).abs() <= allowed)[~inputs.isnan()].all()
    slopes = [torch.autograd.grad(value, inputs, upstream)[0] for value in (actual, expected)]
    number = ~inputs.isnan()
    assert torch.equal(slopes[0][number], slopes[1][number])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    kinks, lines = drawn(16)
    inputs = torch.randn(333).to(dtype)
    expected = polyline(inputs, kinks, lines, impl="reference")
    torch.testing.assert_close(polyline(inputs, kinks, lines, impl="triton"), expected, rtol=2e-2, atol=2e-3)


def test_strides_and_shapes_do_not_matter():
    kinks, lines = drawn(5)
    inputs = torch.randn(11, 7, 3).transpose(0, 2)
    expected = polyline(inputs.contiguous(), kinks, lines, impl="reference")
    torch.testing.assert_close(polyline(inputs, kinks, lines, impl="triton"), expected)
    assert polyline(torch.zeros(0, 3), kinks, lines, impl="triton").shape == (0, 3)


def test_the_operators_pass_opcheck():
    kinks, lines = drawn(5)
    torch.library.opcheck(polyline_forward, (torch.randn(3, 7, requires_grad=True), kinks, lines))
    torch.library.opcheck(polyline_backward, (torch.randn(3, 7), torch.randn(3, 7), kinks, lines))


def test_float64_is_refused():
    with pytest.raises(ValueError, match=r"impl 'triton' takes inputs in float32, bfloat16, float16, and got .*64\.$"):
        polyline(torch.zeros(3).double(), *drawn(3), impl="triton")


def test_a_device_that_is_neither_a_gpu_nor_a_cpu_is_refused():
    kinks, lines = (tensor.to("meta") for tensor in drawn(3))
    with pytest.raises(ValueError, match=r"runs on a GPU, or interpreted on a CPU, and the tensors are on meta\.$"):
        polyline(torch.zeros(3, device="meta"), kinks, lines, impl="triton")
