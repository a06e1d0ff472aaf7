"""Nets: all allowed sizes can be built, also from a description, and values have the precision of the inputs."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net, list_nets, net_class, net_from_description

POSITIONS, REALS = Domain(0, 31, integer=True), Domain(-4, 4, integer=False)
RATIOS = Domain(1e-4, 1e4, integer=False, log=True)
SCALAR = [name for name in list_nets() if net_class(name).takes == "numbers"]
NAMES = st.sampled_from(SCALAR)
COUNTS = st.integers(1, 20)


def size_of(name, counts):
    """Make a size of a net from small numbers, whatever its keys are."""
    kind, sizes = net_class(name), {}
    for key in kind.Size.model_fields:
        if key == "hidden":
            sizes[key] = counts
        elif key not in ("omega", "activation", "fixed"):
            sizes[key] = counts[0]
    return sizes


@settings(deadline=None, max_examples=60)
@given(
    NAMES,
    st.lists(COUNTS, min_size=1, max_size=4).map(tuple),
    st.integers(1, 12),
    st.sampled_from([POSITIONS, REALS, RATIOS, Domain(0, 0, integer=True)]),
)
def test_values_have_the_shape_and_the_dtype_of_the_inputs(name, counts, outputs, domain):
    net = build_net(name, domain, outputs, **size_of(name, counts))
    for dtype in (torch.float32, torch.float64):
        values = net(domain.points(16).to(dtype))
        assert values.shape == (len(domain.points(16)), outputs)
        assert values.dtype == dtype
        assert torch.isfinite(values).all()
    assert net(torch.zeros(2, 3)).shape == (2, 3, outputs)


@pytest.mark.parametrize("name", SCALAR)
@pytest.mark.parametrize("domain", [POSITIONS, RATIOS], ids=str)
def test_a_net_is_built_again_from_its_description(name, domain):
    net = build_net(name, domain, 4, **size_of(name, (5, 6)))
    again = net_from_description(json.loads(json.dumps(net.description())))
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(domain.points()), again(domain.points()))


@pytest.mark.parametrize("name", SCALAR)
def test_the_same_generator_gives_the_same_start(name):
    net = build_net(name, POSITIONS, 4)
    first = {key: value.clone() for key, value in net.state_dict().items()}
    net.initialise(torch.Generator().manual_seed(1))
    assert any(not torch.equal(first[key], value) for key, value in net.state_dict().items())
    second = {key: value.clone() for key, value in net.state_dict().items()}
    net.initialise(torch.Generator().manual_seed(1))
    assert all(torch.equal(second[key], value) for key, value in net.state_dict().items())


def last_layer(net):
    """Return the parameters that `solve_output` sets."""
    if hasattr(net, "weights"):
        return [net.weights[-1], net.biases[-1]]
    inner = {"kinks", "frequencies", "denominator"}
    return [value for name, value in net.named_parameters() if name not in inner]


@pytest.mark.parametrize("name", SCALAR)
def test_a_zeroed_output_is_zero_everywhere_and_can_learn(name):
    net = build_net(name, POSITIONS, 3)
    net.zero_output()
    values = net(POSITIONS.points().float())
    assert values.abs().max() == 0
    (values - 1).square().sum().backward()
    assert last_layer(net)[0].grad.abs().max() > 0


@pytest.mark.parametrize("name", SCALAR)
def test_the_solved_output_is_the_least_squares_optimum(name):
    """No small change of the last layer makes the error smaller."""
    net = build_net(name, POSITIONS, 2, **size_of(name, (6,))).double()
    inputs = POSITIONS.points()
    targets = torch.stack([inputs.sin(), inputs / 31], dim=1)
    net.solve_output(inputs, targets)
    (net(inputs) - targets).square().mean().backward()
    assert all(value.grad.abs().max() < 1e-5 for value in last_layer(net))


@pytest.mark.parametrize("name", SCALAR)
def test_every_net_says_what_it_costs_and_what_it_folds_to(name):
    small, large = (build_net(name, REALS, 1, **size_of(name, (count,))) for count in (3, 12))
    assert 0 < small.parameter_count() < large.parameter_count()
    assert 0 < small.flops() <= large.flops()
    assert small.folds
    assert small.source


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(0, 1000), st.integers(1, 3))
def test_a_relu_net_of_one_number_is_exactly_its_pieces(units, seed, outputs):
    """They agree everywhere up to rounding, at the kinks and at the floats beside them too."""
    net = build_net("mlp-relu", REALS, outputs, hidden=(units,))
    net.initialise(torch.Generator().manual_seed(seed))
    pieces = net.double().pieces()
    assert len(pieces.slopes) <= units + 1
    kinks = pieces.kinks
    far = torch.tensor(1e9, dtype=torch.float64)
    beside = [torch.nextafter(kinks, far), torch.nextafter(kinks, -far)]
    inputs = torch.cat([kinks, *beside, torch.linspace(-40, 40, 501, dtype=torch.float64)])
    scale = net.weights[1].abs().sum() * (1 + net.weights[0].abs().max() * inputs.abs().max())
    torch.testing.assert_close(pieces.value(inputs), net(inputs), rtol=0, atol=8 * 2.3e-16 * scale.item())


def test_pieces_hold_for_units_that_never_switch_and_for_none_at_all():
    net = build_net("mlp-relu", REALS, 1, hidden=(3,))
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor([[0.0, 1.0, 0.0]]))
        net.biases[0].copy_(torch.tensor([2.0, 0.5, -1.0]))
    inputs = torch.linspace(-9, 9, 101, dtype=torch.float64)
    torch.testing.assert_close(net.pieces().value(inputs), net(inputs))
    with torch.no_grad():
        net.weights[0].zero_()
    torch.testing.assert_close(net.pieces().value(inputs), net(inputs))
    assert build_net("mlp-relu", REALS, 1, hidden=(3, 3)).pieces() is None
    assert build_net("mlp-gelu", REALS, 1, hidden=(3,)).pieces() is None


def test_a_piecewise_linear_net_is_its_pieces_too():
    net = build_net("piecewise-linear", REALS, 2, pieces=7)
    inputs = torch.linspace(-9, 9, 501, dtype=torch.float64)
    torch.testing.assert_close(net.pieces().value(inputs), net(inputs))


def test_a_rational_net_has_no_poles():
    net = build_net("rational", REALS, 1, numerator=3, denominator=4)
    for seed in range(20):
        net.initialise(torch.Generator().manual_seed(seed))
        assert torch.isfinite(net(torch.linspace(-50, 50, 5001))).all()
        assert (net._below(REALS.coordinate(torch.linspace(-50, 50, 5001))) >= 1).all()


def test_a_matrix_is_a_net_of_vectors_and_of_nothing_else():
    net = build_net("linear", REALS, 5)
    assert net(torch.zeros(2, 3, 5)).shape == (2, 3, 5)
    net.zero_output()
    assert net(torch.ones(5)).abs().max() == 0
    with pytest.raises(InputError, match="vectors of reals"):
        build_net("linear", POSITIONS, 5)


def test_parameters_and_operations_are_counted():
    net = build_net("mlp-relu", REALS, 1, hidden=(3,))
    assert net.parameter_count() == 3 + 3 + 3 + 1
    assert net.flops() == 2 * 6 + 4 + 3 + 2
    fourier = build_net("fourier-mlp", POSITIONS, 2, hidden=(3,), frequencies=4)
    assert fourier.parameter_count() == 4 + 8 * 3 + 3 + 3 * 2 + 2


def test_fixed_frequencies_are_kept_but_not_trained():
    sizes = {"hidden": (3,), "frequencies": 4}
    fixed, trained = (build_net("fourier-mlp", POSITIONS, 2, **sizes, fixed=fixed) for fixed in (True, False))
    assert fixed.parameter_count() == trained.parameter_count() - 4
    assert torch.equal(fixed.frequencies, trained.frequencies)
    assert "frequencies" in fixed.state_dict()
    fixed.frequencies.mul_(2)
    again = net_from_description(json.loads(json.dumps(fixed.description())))
    again.load_state_dict(fixed.state_dict())
    assert torch.equal(again(POSITIONS.points()), fixed(POSITIONS.points()))


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("siren", {"hiden": (3,)}, "net 'siren': unknown key 'hiden'; did you mean 'hidden'?"),
        ("mlp-gelu", {"frequencies": 3}, "net 'mlp-gelu': unknown key 'frequencies'"),
        ("mlp-gelu", {"hidden": ()}, "hidden must be a list of at least 1, each a whole number"),
        ("fourier-mlp", {"frequencies": 0}, "frequencies must be a whole number from 1 to 2,147,483,647, and 0"),
    ],
)
def test_a_size_a_net_cannot_have_is_refused_by_key(name, size, sentence):
    with pytest.raises(InputError) as caught:
        build_net(name, POSITIONS, 1, **size)
    assert sentence in str(caught.value)


def test_a_wrong_net_gets_the_nearest():
    with pytest.raises(InputError, match="unknown net 'fourier-mpl'; did you mean 'fourier-mlp'"):
        build_net("fourier-mpl", POSITIONS, 1)


def test_a_polyline_saved_when_its_kinks_were_called_knots_is_loaded():
    """Checkpoints of fits are files that people keep."""
    saved = build_net("piecewise-linear", REALS, 1, pieces=5)
    weights = {name.replace("kinks", "knots"): value + 0.25 for name, value in saved.state_dict().items()}
    loaded = build_net("piecewise-linear", REALS, 1, pieces=5)
    loaded.load_state_dict(weights)
    assert torch.equal(loaded.kinks, saved.kinks + 0.25)
