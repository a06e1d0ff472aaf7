"""Functions and nets of whole rows: of any length, in any order, and padding doesn't change their values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.fit import fit, load_fitted
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.contents import ExactGradient, NetContent

SCORES = Domain(-8, 0, integer=False)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 1000))
def test_a_deep_set_follows_the_order_and_ignores_what_is_not_there(length, absent, seed):
    generator = torch.Generator().manual_seed(seed)
    net = build_net("deep-set", SCORES, 1, summed=3, hidden=5)
    row = -8 * torch.rand(length, generator=generator, dtype=torch.float64)
    order = torch.randperm(length, generator=generator)
    torch.testing.assert_close(net(row[order]), net(row)[order])
    longer = torch.cat([row, torch.full((absent,), -math.inf, dtype=torch.float64)])
    torch.testing.assert_close(net(longer)[:length], net(row))
    assert net(longer)[length:].abs().sum() == 0
    assert net(torch.stack([longer, longer])).shape == (2, length + absent, 1)
    if length > 1:  # each value depends on every number
        other = row.clone()
        other[0] -= 1
        assert (net(other)[1:] != net(row)[1:]).all()


def test_no_gradient_is_lost_to_a_key_that_is_not_seen():
    net = build_net("deep-set", SCORES, 1)
    row = torch.tensor([0.0, -1.0, -math.inf], requires_grad=True)
    net(row).square().sum().backward()
    assert torch.isfinite(row.grad).all()
    assert all(torch.isfinite(value.grad).all() for value in net.parameters())
    assert row.grad[2] == 0


def test_a_zeroed_set_is_zero_and_its_solved_output_the_least_squares_optimum():
    function, net = get_function("softmax-row"), build_net("deep-set", SCORES, 1).double()
    points = function.points(SCORES, 256)
    net.zero_output()
    assert net(points).count_nonzero() == 0
    targets = function.as_rows(function.analytic(points))
    net.solve_output(points, targets)
    (net(points) - targets).square().mean().backward()
    assert net.weight.grad.abs().max() < 1e-6
    assert net.bias.grad.abs().max() < 1e-6


def test_a_row_without_keys_has_no_weights_and_no_gradient_that_is_no_number():
    function = get_function("softmax-row")
    net = build_net("deep-set", SCORES, 1)
    rows = torch.full((2, 3), -math.inf)
    rows[1, 0] = 0.0
    for values in (function.analytic, function.left_out, lambda x: net(x).squeeze(-1)):
        own = rows.clone().requires_grad_()
        found = values(own)
        assert found[0].tolist() == [0, 0, 0]
        assert found[1, 1:].tolist() == [0, 0]
        if found.requires_grad:
            found.sum().backward()
            assert torch.isfinite(own.grad).all()


def test_rows_to_fit_on_have_every_length_and_their_largest_score_at_zero():
    function = get_function("softmax-row")
    points = function.points(SCORES, 1024)
    lengths = (points > -math.inf).sum(dim=1)
    assert points.shape == (256, function.longest)
    assert (lengths.min(), lengths.max()) == (1, function.longest)
    assert (points.amax(dim=1) == 0).all()
    weights = function.analytic(points)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(256, dtype=torch.float64))
    assert function.left_out(points).sum(dim=1).tolist() == pytest.approx([1] * 256)


def test_the_exact_gradient_of_a_row_is_that_of_softmax():
    function = get_function("softmax-row")
    net = NetContent(function, {}, build_net("deep-set", SCORES, 1))
    content = ExactGradient(net)
    rows = torch.randn(4, 7, requires_grad=True)
    torch.testing.assert_close(content(rows), net(rows))
    upstream = torch.randn(4, 7)
    [found] = torch.autograd.grad(content(rows), rows, upstream)
    [wanted] = torch.autograd.grad(rows.softmax(-1), rows, upstream)
    torch.testing.assert_close(found, wanted)


def test_a_fit_of_rows_has_its_record_and_is_found_again(tmp_path):
    fitted = fit("softmax-row", "deep-set", size={"summed": 2, "hidden": 8}, steps=300, budget=30)
    inside, twice, four_times = fitted.fidelity.regions
    assert (inside.region, twice.region, four_times.region) == ("-8..0", "-16..-8", "-32..-16")
    points = get_function("softmax-row").points(SCORES, 4001)
    seen = points > -math.inf
    error = (fitted(points) - points.softmax(-1))[seen]
    assert inside.rms_error == pytest.approx(error.square().mean().sqrt().item())
    assert inside.derivative_max_error > 0
    loaded = load_fitted(fitted.save(tmp_path))
    assert torch.equal(loaded(points), fitted(points))
