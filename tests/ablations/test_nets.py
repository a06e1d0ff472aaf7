"""Nets: any size that is allowed, built again from their card, in the precision they are asked in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net, list_nets, net_from_card

POSITIONS, REALS = Domain(0, 31, integer=True), Domain(-4, 4, integer=False)
NAMES = st.sampled_from(list_nets())
SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple)


@settings(deadline=None, max_examples=40)
@given(NAMES, SIZES, st.integers(1, 12), st.sampled_from([POSITIONS, REALS, Domain(0, 0, integer=True)]))
def test_values_have_the_shape_and_the_dtype_of_the_inputs(name, hidden, outputs, domain):
    net = build_net(name, domain, outputs, hidden=hidden)
    for dtype in (torch.float32, torch.float64):
        values = net(domain.points(16).to(dtype))
        assert values.shape == (len(domain.points(16)), outputs)
        assert values.dtype == dtype
        assert torch.isfinite(values).all()
    assert net(torch.zeros(2, 3)).shape == (2, 3, outputs)


@pytest.mark.parametrize("name", list_nets())
def test_a_net_is_built_again_from_its_card(name):
    net = build_net(name, POSITIONS, 4, hidden=(5, 6))
    again = net_from_card(net.card())
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(POSITIONS.points()), again(POSITIONS.points()))


@pytest.mark.parametrize("name", list_nets())
def test_the_same_generator_gives_the_same_start(name):
    net = build_net(name, POSITIONS, 4)
    first = {key: value.clone() for key, value in net.state_dict().items()}
    net.initialise(torch.Generator().manual_seed(1))
    assert any(not torch.equal(first[key], value) for key, value in net.state_dict().items())
    second = {key: value.clone() for key, value in net.state_dict().items()}
    net.initialise(torch.Generator().manual_seed(1))
    assert all(torch.equal(second[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", list_nets())
def test_a_zeroed_output_is_zero_everywhere_and_can_learn(name):
    net = build_net(name, POSITIONS, 3)
    net.zero_output()
    values = net(POSITIONS.points().float())
    assert values.abs().max() == 0
    (values - 1).square().sum().backward()
    assert net.weights[-1].grad.abs().max() > 0


@pytest.mark.parametrize("name", list_nets())
def test_the_solved_output_is_the_least_squares_optimum(name):
    """No small change of the last layer is better."""
    net = build_net(name, POSITIONS, 2, hidden=(6,)).double()
    inputs = POSITIONS.points()
    targets = torch.stack([inputs.sin(), inputs / 31], dim=1)
    net.solve_output(inputs, targets)
    (net(inputs) - targets).square().mean().backward()
    assert net.weights[-1].grad.abs().max() < 1e-5
    assert net.biases[-1].grad.abs().max() < 1e-5


def test_parameters_and_operations_are_counted():
    net = build_net("mlp-relu", REALS, 1, hidden=(3,))
    assert net.parameter_count() == 3 + 3 + 3 + 1
    assert net.flops() == 2 * 6 + 4 + 3 + 2
    fourier = build_net("fourier-mlp", POSITIONS, 2, hidden=(3,), frequencies=4)
    assert fourier.parameter_count() == 4 + 8 * 3 + 3 + 3 * 2 + 2


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("siren", {"hiden": (3,)}, "net 'siren': unknown key 'hiden'; did you mean 'hidden'?"),
        ("mlp-gelu", {"frequencies": 3}, "net 'mlp-gelu': unknown key 'frequencies'"),
        ("mlp-gelu", {"hidden": ()}, "hidden: "),
        ("fourier-mlp", {"frequencies": 0}, "frequencies: input should be greater than or equal to 1, and 0 was given"),
    ],
)
def test_a_size_a_net_cannot_have_is_refused_by_key(name, size, sentence):
    with pytest.raises(InputError) as caught:
        build_net(name, POSITIONS, 1, **size)
    assert sentence in str(caught.value)


def test_a_wrong_net_gets_the_nearest():
    with pytest.raises(InputError, match="unknown net 'fourier'; did you mean 'fourier-mlp'"):
        build_net("fourier", POSITIONS, 1)
