"""Functions: they are the formulas of their sources, and have the properties that they are used for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function, list_functions
from trans4init.ablations.functions.position_relative import Alibi
from trans4init.ablations.functions.position_rotary import rotate
from trans4init.ablations.transformer.positions import randomised_positions

CLOSED = [name for name in list_functions() if get_function(name).arms[:1] != ("free-table",)]
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


@pytest.mark.parametrize("name", CLOSED)
def test_derivatives_are_those_of_the_values(name):
    function = get_function(name)
    shape = dict(function.default_shape)
    inputs = function.points(function.domain, 41, **shape)[1:41]
    _, slope = torch.func.jvp(lambda x: function.analytic(x, **shape), (inputs,), (function.direction(inputs),))
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
    with pytest.raises(InputError, match=r"there are: 2quad, 2relu, alibi, .*xpos"):
        get_function("qqqq")


def test_every_function_states_its_source_slot_and_arms():
    for name in list_functions():
        function = get_function(name)
        assert function.name == name
        assert function.source
        assert function.slot
        assert function.tails
        assert function.arms or function.fidelity_only


def test_domains_reach_twice_and_four_times_as_far():
    once = Domain(0, 127, integer=True)
    assert [str(region) for region in once.beyond()] == ["128..255", "256..511"]
    assert once.points().tolist() == list(range(128))
    both = ["4..8", "8..16", "-8..-4", "-16..-8"]
    assert [str(region) for region in Domain(-4, 4, integer=False).beyond()] == both
    assert [str(region) for region in Domain(-8, 0, False).beyond((-math.inf, 0.0))] == ["-16..-8", "-32..-16"]
    ratios = ["100..200", "200..400", "0.5..1", "0.25..0.5"]
    assert [str(region) for region in Domain(1, 100, False, log=True).beyond()] == ratios
    with pytest.raises(InputError, match="positive reals"):
        Domain(0, 1, integer=False, log=True)
    assert Domain(0, 0, integer=True).points().tolist() == [0]
    with pytest.raises(InputError, match="from low to high"):
        Domain(1, 0, integer=True)


APPROXIMATIONS = {
    "i-gelu": 0.0182,
    "gelu-tanh": 4.7e-4,
    "quadratic-gelu": 1.5,
    "puma-gelu": 0.0199,
    "bolt-gelu": 0.0094,
    "h-gelu": 0.069,
}


@pytest.mark.parametrize(("name", "published"), APPROXIMATIONS.items())
def test_published_approximations_of_gelu_err_as_they_say(name, published):
    inputs = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    error = (get_function(name).analytic(inputs) - get_function("gelu").analytic(inputs)).abs().max().item()
    assert error == pytest.approx(published, rel=0.01)
    assert get_function(name).approximates == "gelu"


def test_i_exp_errs_as_the_paper_says():
    inputs = torch.linspace(-20, 0, 80_001, dtype=torch.float64)
    error = (get_function("i-exp").analytic(inputs) - inputs.exp()).abs().max().item()
    assert error == pytest.approx(1.9e-3, rel=0.15)


@settings(deadline=None)
@given(st.integers(1, 16), st.integers(0, 500), st.integers(-300, 300))
def test_a_rope_score_depends_on_the_distance_alone(half, position, shift):
    """The product of rotated query and key depends on their distance alone (RoFormer, equation 11)."""
    head_dim = 2 * half
    generator = torch.Generator().manual_seed(half)
    q, k = (torch.randn(1, 1, 1, head_dim, dtype=torch.float64, generator=generator) for _ in range(2))
    for name in ("rope", "rope-partial", "rope-interpolated", "rope-ntk", "rope-yarn", "xpos"):
        function = get_function(name)
        pairs = function.pairs(head_dim=head_dim)

        def score(i, j, function=function, pairs=pairs):
            places = torch.tensor([i, j], dtype=torch.float64)
            values = function.analytic(places, head_dim=head_dim)
            turned = rotate(q, values[:1], pairs=pairs, key=False), rotate(k, values[1:], pairs=pairs, key=True)
            return (turned[0] * turned[1]).sum()

        torch.testing.assert_close(score(position + 7, position), score(position + 7 + shift, position + shift))


def test_rope_turns_a_pair_by_its_angle():
    values = get_function("rope").analytic(torch.tensor([3.0], dtype=torch.float64), head_dim=4)
    state = torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=torch.float64).view(1, 1, 1, 4)
    turned = rotate(state, values, pairs=2, key=False).flatten()
    expected = [math.cos(3), 2 * math.cos(0.03), math.sin(3), 2 * math.sin(0.03)]
    assert turned.tolist() == pytest.approx(expected)


def test_scaled_ropes_are_the_formulas_of_their_papers():
    plain = get_function("rope").frequencies(head_dim=64)
    assert torch.equal(get_function("rope-interpolated").frequencies(head_dim=64), plain / 4)
    ntk, yarn = (get_function(name).frequencies(head_dim=64) for name in ("rope-ntk", "rope-yarn"))
    assert ntk[0] == plain[0]
    assert ntk[-1].item() == pytest.approx(plain[-1].item() / 4)
    turns = 512 * plain / (2 * math.pi)
    assert torch.equal(yarn[turns > 32], plain[turns > 32])
    assert torch.equal(yarn[turns < 1], plain[turns < 1] / 4)


def test_alibi_has_the_slopes_of_the_paper():
    found = get_function("alibi").analytic(torch.arange(5, dtype=torch.float64), heads=8)
    assert found.shape == (8, 5)
    assert (-found[:, 1]).tolist() == [2.0**-power for power in range(1, 9)]
    assert torch.equal(found[0], -0.5 * torch.arange(5, dtype=torch.float64))
    assert len(set(Alibi.slopes(12).tolist())) == 12


@pytest.mark.parametrize("name", ["alibi", "kerple-log", "kerple-power", "fire"])
def test_a_bias_is_one_of_the_distance_and_kernels_fall(name):
    function = get_function(name)
    distances = torch.arange(300, dtype=torch.float64)
    found = function.analytic(distances, heads=4)
    assert torch.equal(found, function.analytic(-distances, heads=4))
    torch.testing.assert_close(found[:, :20], function.analytic(distances[:20], heads=4))
    if name != "fire":
        assert (found.diff(dim=1) < 0).all()


def test_fire_by_query_agrees_with_fire_by_constant_up_to_the_threshold_and_not_beyond():
    constant, query = get_function("fire"), get_function("fire-query")
    positions = torch.arange(600)
    pairs = query.analytic(query.pair_inputs(positions), heads=2)  # [2, 600, 600]
    table = constant.analytic(positions.float(), heads=2)
    for row in (0, 5, 511):
        torch.testing.assert_close(pairs[:, row, : row + 1], table[:, : row + 1].flip(1))
    assert (pairs[:, 599, :600] - table.flip(1)).abs().max() > 1e-4


@pytest.mark.parametrize("length", [3, 16, 700])
def test_the_same_distance_has_the_same_entry_at_every_length(length):
    for name in ("t5", "learned-distance"):
        function = get_function(name)
        trained = Domain(0, 63, integer=True)
        table = function.initial_table(trained.points(), torch.Generator().manual_seed(0), heads=2)
        index = function.table_index(torch.arange(length), trained, heads=2)
        assert torch.equal(index[:3], function.table_index(torch.arange(3), trained, heads=2))
        assert index.max() < len(table)


def test_t5_buckets_are_those_of_the_paper():
    index = get_function("t5").table_index(torch.tensor([0, 1, 15, 16, 17, 127, 128, 5000]), Domain(0, 9, True))
    assert index.tolist() == [0, 1, 15, 16, 16, 31, 31, 31]


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 99))
def test_randomised_positions_are_sorted_different_and_in_range(length, more, seed):
    found = randomised_positions(length, length + more, torch.Generator().manual_seed(seed))
    assert (found.diff() > 0).all()
    assert 0 <= found.min() <= found.max() < length + more
    with pytest.raises(InputError, match="can't be drawn"):
        randomised_positions(length, length - 1, torch.Generator())


def test_2d_sinusoids_are_a_column_half_and_a_row_half():
    function = get_function("sinusoidal-2d")
    plain = get_function("sinusoidal").analytic(positions(16), width=8)
    halves = torch.cat([plain[:, 0::2], plain[:, 1::2]], dim=-1)  # sines before cosines
    for columns in (16, 5):
        found = function.analytic(positions(3 * columns), width=16, columns=columns)
        torch.testing.assert_close(found[2 * columns + 3], torch.cat([halves[3], halves[2]]))
    assert torch.equal(
        function.analytic(positions(48), width=16), function.analytic(positions(48), width=16, columns=16)
    )
    with_tokens = function.analytic(positions(50), width=16, columns=5, class_tokens=2)
    assert with_tokens[:2].count_nonzero() == 0
    assert torch.equal(with_tokens[2:], function.analytic(positions(48), width=16, columns=5))
    with pytest.raises(InputError, match="multiple of 4"):
        function.analytic(positions(4), width=6)
    with pytest.raises(InputError, match="at least 1 column"):
        function.analytic(positions(4), width=8, columns=0)


def test_transpose_transposes():
    matrix = torch.arange(9.0)
    assert get_function("transpose").analytic(matrix, side=3).tolist() == matrix.view(3, 3).T.flatten().tolist()


def test_softmax_functions_stay_positive_and_scales_are_those_of_the_papers():
    inputs = torch.linspace(-8, 8, 101, dtype=torch.float64)
    assert (get_function("stablemax").analytic(inputs) > 0).all()
    assert get_function("stablemax").analytic(torch.tensor([-1.0, 0.0, 2.0])).tolist() == [0.5, 1.0, 3.0]
    assert get_function("2quad").analytic(torch.tensor([-5.0, 1.0])).tolist() == [0, 36]
    n = torch.tensor([1.0, 64.0], dtype=torch.float64)
    assert get_function("attention-scale").analytic(n, head_dim=16).tolist() == [0.25, 0.25]
    assert get_function("scalable-softmax").analytic(n, head_dim=16).tolist() == pytest.approx(
        [0, 0.1075 * math.log(64)]
    )
