"""Polylines: the same value and slope by both ways of computing them, whatever the inputs look like."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations import polyline as module
from trans4init.ablations.polyline import polyline


def drawn(kinks, seed):
    """A continuous polyline of so many kinks: kinks [K − 1], lines [2, K], float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(kinks, generator=generator, dtype=torch.float64).sort().values
    slopes = torch.randn(kinks + 1, generator=generator, dtype=torch.float64)
    intercepts = torch.cat([torch.ones(1, dtype=torch.float64), -(slopes.diff() * x)]).cumsum(0)
    return x, torch.stack([slopes, intercepts])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 1000), st.sampled_from([(), (0,), (1,), (113, 3), (2, 16384), (16385,)]))
def test_the_sum_and_the_bisection_are_the_same_polyline(kinks, seed, shape):
    x, lines = drawn(kinks, seed)
    inputs = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = []
    for most in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_FEW_KINKS", most - 1)
            patch.setattr(module, "_MANY_NUMBERS", 0)
            own = inputs.clone().requires_grad_()
            value = polyline(own, x, lines)
            [slope] = torch.autograd.grad(value.sum(), own)
            forward = torch.func.jvp(lambda z: polyline(z, x, lines), (inputs,), (torch.ones_like(inputs),))[1]
        assert value.shape == slope.shape == inputs.shape
        assert torch.equal(slope, forward)
        found.append((value.detach(), slope))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)
    corners = np.concatenate([[-100], x.numpy(), [100]])
    heights = polyline(torch.from_numpy(corners), x, lines).numpy()
    expected = torch.as_tensor(np.interp(inputs.numpy(), corners, heights))
    torch.testing.assert_close(found[0][0], expected, rtol=1e-9, atol=1e-9)


def test_the_slope_at_a_kink_is_that_of_the_line_to_its_left():
    x, lines = drawn(5, 0)
    own = x.clone().requires_grad_()
    [slope] = torch.autograd.grad(polyline(own, x, lines).sum(), own)
    torch.testing.assert_close(slope, lines[0, :-1])


def test_what_is_no_number_stays_none_and_the_dtype_stays():
    x, lines = drawn(7, 1)
    assert polyline(torch.tensor([torch.nan, 1.0]), x.float(), lines.float()).isnan().tolist() == [True, False]
    many = torch.full((module._MANY_NUMBERS,), torch.nan)
    many[0] = 1.0
    assert polyline(many, x.float(), lines.float()).isnan().sum() == len(many) - 1
    assert polyline(torch.zeros(3), x, lines).dtype == polyline(many, x, lines).dtype == torch.float32
    strided = torch.randn(113, 203, dtype=torch.float64).T
    torch.testing.assert_close(polyline(strided, x, lines), polyline(strided.contiguous(), x, lines))
