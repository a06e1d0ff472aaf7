"""The smallest largest error that K lines can have, and the nets that are set to it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets.best_polyline import best_polyline, exact_polyline, limit
from trans4init.ablations.nets.best_relu import best_relu_units, curvature_points


def test_the_limit_of_a_parabola_is_known():
    """K lines on x² over [0, 1] have an error of 1 / (8 K²): each has length 1 / K and half of its bulge as error."""
    x = np.linspace(0, 1, 1001)
    for pieces in (1, 2, 5):
        assert limit(x, x**2, pieces) == pytest.approx(1 / (8 * pieces**2), rel=0.01)
        assert best_polyline(x, x**2, pieces).error == pytest.approx(1 / (8 * pieces**2), rel=0.02)


def test_a_polyline_is_found_as_it_is():
    x = np.linspace(-4, 4, 801)
    found = best_polyline(x, np.maximum(x, 0), 2)
    assert found.error < 1e-9
    assert found.x.tolist() == pytest.approx([-4, 0, 4], abs=1e-6)
    units = best_relu_units(x, np.maximum(x, 0), 1)
    assert units.error < 1e-6
    assert units.kinks[0] == pytest.approx(0, abs=0.01)


@settings(deadline=None, max_examples=8)
@given(st.integers(2, 6), st.floats(0.5, 3), st.floats(-2, 2))
def test_no_polyline_beats_the_limit_and_more_pieces_are_no_worse(pieces, rate, shift):
    x = np.linspace(-1, 1, 201)
    y = np.sin(rate * x + shift)
    best = best_polyline(x, y, pieces)
    assert len(best.x) <= pieces + 1
    assert (np.diff(best.x) > 0).all()
    assert limit(x, y, pieces) <= best.error * (1 + 1e-9)
    assert best_polyline(x, y, pieces + 1).error <= best.error * 1.02
    assert np.abs(np.interp(x, best.x, best.y) - y).max() == pytest.approx(best.error)


def test_bad_points_are_refused():
    with pytest.raises(InputError, match="ascending"):
        best_polyline(np.array([0.0, 0.0]), np.array([0.0, 1.0]), 2)
    with pytest.raises(InputError, match="at least one piece"):
        limit(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0)


CASES = [("gelu", 8), ("gelu", 16), ("softmax-exp", 8), ("softmax-exp", 16)]
PUBLISHED_LIMITS = {("gelu", 8): 0.0062, ("gelu", 16): 0.0020, ("softmax-exp", 8): 0.0038, ("softmax-exp", 16): 0.00095}


@pytest.mark.parametrize(("name", "pieces"), CASES)
def test_folded_nets_come_within_15_percent_of_the_limit(name, pieces):
    function = get_function(name)
    grid = function.domain.points(8001).numpy()
    x = curvature_points(grid, function.analytic(torch.from_numpy(grid)).numpy(), 1001)
    floor = limit(x, function.analytic(torch.from_numpy(x)).numpy(), pieces)
    assert floor == pytest.approx(PUBLISHED_LIMITS[name, pieces], rel=0.03)
    inputs = function.domain.points(100_001)
    for net, size in (("mlp-relu", {"hidden": (pieces - 1,)}), ("piecewise-linear", {"pieces": pieces})):
        fitted = fit(name, net, size=size)
        folded = fitted.fold()
        inside = (folded.kinks > function.domain.low) & (folded.kinks < function.domain.high)
        assert inside.sum() + 1 <= pieces
        with torch.no_grad():
            error = (folded.value(inputs) - function.analytic(inputs)).abs().max().item()
        assert error <= 1.15 * floor, net
        assert error >= 0.97 * floor, net
        torch.testing.assert_close(folded.value(inputs), fitted(inputs), rtol=0, atol=1e-6)


def test_a_placed_fit_has_the_same_bits_every_time():
    one, other = (fit("gelu", "mlp-relu", size={"hidden": (4,)}, seed=seed) for seed in (0, 0))
    assert all(torch.equal(a, b) for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True))
    assert math.isfinite(one.fidelity.regions[0].max_error)


@pytest.mark.parametrize(("net", "size"), [("mlp-relu", {"hidden": (3,)}), ("piecewise-linear", {"pieces": 8})])
@pytest.mark.parametrize("domain", [None, Domain(-3, 5.5, integer=False)])
def test_a_net_that_contains_a_function_is_placed_on_it(net, size, domain):
    """The kink may lie anywhere between evenly spaced points."""
    fitted = fit("relu", net, size=size, domain=domain)
    assert fitted.fidelity.regions[0].max_error < 1e-6
    folded = fitted.fold()
    beside = torch.tensor([-1e-3, 0.0, 1e-3])
    torch.testing.assert_close(folded(beside), beside.relu(), rtol=0, atol=1e-6)


def test_points_on_few_lines_are_those_lines():
    x = np.linspace(-1, 1, 201)
    corners = exact_polyline(x, np.abs(x) + np.maximum(x - 0.5, 0), 3)
    assert corners is not None
    np.testing.assert_allclose(corners.x, [-1, 0, 0.5, 1], atol=1e-12)
    assert exact_polyline(x, np.abs(x) + np.maximum(x - 0.5, 0), 2) is None
    assert exact_polyline(x, x**2, 32) is None


def test_looking_a_few_points_ahead_first_changes_no_bit(monkeypatch):
    x = np.linspace(-5.5, 5.5, 3000)
    y = x / (1 + np.exp(-3 * x)) + 0.01 * np.sin(9 * x)
    near = best_polyline(x, y, 30)
    monkeypatch.setattr("trans4init.ablations.nets.best_polyline._FIRST_LOOK", len(x))
    far = best_polyline(x, y, 30)
    assert near.error == far.error
    np.testing.assert_array_equal(near.x, far.x)
    np.testing.assert_array_equal(near.y, far.y)
