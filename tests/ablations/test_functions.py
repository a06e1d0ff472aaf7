"""Functions: the formulas of their sources, and the properties they are used for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function, list_functions

WIDTHS = st.integers(1, 64).map(lambda half: 2 * half)
LENGTHS = st.integers(1, 300)


def positions(count):
    return torch.arange(count, dtype=torch.float64)


def test_sinusoidal_is_the_formula_of_section_3_5():
    found = get_function("sinusoidal").analytic(positions(50), width=6)
    for position in range(50):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert found[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert found[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


@settings(deadline=None)
@given(WIDTHS, LENGTHS)
def test_sinusoidal_is_bounded_unique_and_deterministic(width, length):
    function = get_function("sinusoidal")
    table = function.analytic(positions(length), width=width)
    assert table.shape == (length, width)
    assert table.abs().max() <= 1
    assert torch.equal(table, function.analytic(positions(length), width=width))
    assert len({tuple(row) for row in table.tolist()}) == length


@settings(deadline=None)
@given(WIDTHS, st.integers(0, 100), st.integers(-50, 50))
def test_a_shift_of_sinusoidal_is_a_rotation_that_does_not_know_the_position(width, start, shift):
    function = get_function("sinusoidal")
    places = torch.arange(start, start + 5, dtype=torch.float64)
    before, after = (function.analytic(p, width=width).unflatten(-1, (-1, 2)) for p in (places, places + shift))
    angles = shift * function.frequencies(torch.float64, torch.device("cpu"), width=width)
    cos, sin = angles.cos(), angles.sin()
    rotation = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)  # [width / 2, 2, 2]
    torch.testing.assert_close(torch.einsum("fij,pfj->pfi", rotation, before), after, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["sinusoidal", "gelu", "none"])
def test_derivatives_are_those_of_the_values(name):
    function = get_function(name)
    shape = dict(function.default_shape)
    inputs = torch.linspace(-3, 3, 41, dtype=torch.float64)
    _, slope = torch.func.jvp(lambda x: function.analytic(x, **shape), (inputs,), (torch.ones_like(inputs),))
    torch.testing.assert_close(function.derivative(inputs, **shape), slope)


@pytest.mark.parametrize("width", [1, 3, 127])
def test_odd_widths_are_refused_by_name(width):
    with pytest.raises(InputError, match=f"sinusoidal needs an even width .*; {width} is odd"):
        get_function("sinusoidal").analytic(positions(4), width=width)


def test_a_shape_that_is_not_the_functions_is_refused():
    with pytest.raises(InputError, match="takes width, and heads was given"):
        get_function("sinusoidal").analytic(positions(4), heads=2)
    with pytest.raises(InputError, match="takes no shape arguments"):
        get_function("gelu").analytic(positions(4), width=2)


def test_learned_table_has_no_closed_form_and_a_start_of_unit_spread():
    function = get_function("learned-table")
    with pytest.raises(InputError, match="no closed form"):
        function.analytic(positions(4), width=8)
    rows = function.initial_table(positions(512), torch.Generator().manual_seed(0), width=64)
    assert rows.std().item() == pytest.approx(1.0, abs=0.02)


def test_none_is_zero():
    assert get_function("none").analytic(positions(5), width=8).abs().max() == 0


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(InputError, match="unknown function 'sinusodial'; did you mean 'sinusoidal'"):
        get_function("sinusodial")
    with pytest.raises(InputError, match="there are: gelu, learned-table, none, sinusoidal"):
        get_function("qqqq")


def test_every_function_states_its_source_slot_and_arms():
    for name in list_functions():
        function = get_function(name)
        assert function.name == name
        assert function.source
        assert function.slot
        assert function.tails
        assert function.arms


def test_domains_reach_twice_and_four_times_as_far():
    once = Domain(0, 127, integer=True)
    assert [str(region) for region in once.beyond()] == ["128..255", "256..511"]
    assert once.points().tolist() == list(range(128))
    assert [str(region) for region in Domain(-4, 4, integer=False).beyond()] == ["4..12", "12..28"]
    assert Domain(0, 0, integer=True).points().tolist() == [0]
    with pytest.raises(InputError, match="from low to high"):
        Domain(1, 0, integer=True)
