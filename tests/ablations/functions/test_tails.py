"""Outside the domain that it was fitted on, a net in a function's place is no further off than at the domain's end."""

import pytest
import torch

from trans4init.ablations.fit import fit
from trans4init.ablations.functions import get_function, list_functions
from trans4init.ablations.functions.tails import tails_of
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.contents import FoldedPolyline, NetContent
from trans4init.kernels.polyline import polyline

WITH_LINES = [
    name for name in list_functions() if tails_of(get_function(name), get_function(name).domain, {}) is not None
]
FAR = {False: torch.linspace(-500, 500, 100_001).double(), True: torch.logspace(-30, 12, 100_001).double()}


def heights(function, places):
    """The function's values, in the logarithms that a net is fitted to."""
    values = function.analytic(places)
    return values.log() if function.log_values else values


def to_the_line(function):
    """How far the function is from its line at each end of its domain where it has one."""
    ends = torch.tensor([function.domain.low, function.domain.high], dtype=torch.float64)
    places = ends.log() if function.domain.log else ends
    lines = function.asymptotes
    return [
        abs(heights(function, ends)[side] - lines[side][0] * places[side] - lines[side][1]).item()
        for side in (0, 1)
        if lines[side] is not None
    ]


def test_the_functions_that_level_off_are_known():
    assert {"gelu", "silu", "tanh", "sigmoid", "softmax-exp", "layernorm-rsqrt", "reciprocal"} <= set(WITH_LINES)


@pytest.mark.parametrize(("short", "share"), [(False, 0.01), (True, 0.16)])
@pytest.mark.parametrize("name", WITH_LINES)
def test_the_tail_is_the_functions_own(name, short, share):
    function = get_function(name)
    tails = tails_of(function, function.domain, {}, short=short)
    inputs = FAR[function.domain.log]
    inputs = inputs[(inputs >= function.support[0]) & (inputs <= function.support[1])]
    added = polyline(inputs.log() if function.domain.log else inputs, tails.kinks, tails.lines)
    inside = (inputs >= function.domain.low) & (inputs <= function.domain.high)
    assert added[inside].abs().max() < 1e-12
    error = heights(function, inputs.clamp(tails.low, tails.high)) + added - heights(function, inputs)
    if name == "stablemax":  # its distance shrinks as 1 / |x|, the others' exponentially
        share *= 2.5
    assert error.abs().max() <= share * max(to_the_line(function)) + 1e-9


@pytest.mark.parametrize("net", ["mlp-gelu", "mlp-relu", "piecewise-linear", "rational", "siren", "spline"])
@pytest.mark.parametrize("name", ["gelu", "silu", "tanh", "softmax-exp", "layernorm-rsqrt"])
def test_any_net_is_as_far_off_outside_as_at_the_end(name, net):
    """Whatever the net: this one was never fitted."""
    function = get_function(name)
    content = NetContent(function, {}, build_net(net, function.domain, 1))
    ends = torch.tensor([function.domain.low, function.domain.high], dtype=torch.float64)
    outside = FAR[function.domain.log]
    outside = outside[(outside <= ends[0]) | ((outside >= ends[1]) & (outside <= function.support[1]))]
    with torch.no_grad():
        at_end, beyond = ((content.value(x) - function.analytic(x)).abs() for x in (ends, outside))
    if function.log_values:  # what counts there is the ratio
        at_end, beyond = at_end / function.analytic(ends), beyond / function.analytic(outside)
    allowed = (0.01 if content.net.pieces() is None else 0.16) * max(to_the_line(function))
    assert beyond.max() <= at_end.max() * (1 + 1e-3) + allowed * (1 + at_end.max())


def test_a_gelu_as_it_is_typed_is_small_and_right_everywhere():
    fitted = fit("gelu", "mlp-relu", seed=0)
    inside, *outside = fitted.fidelity.regions
    assert fitted.net.parameter_count() <= 64
    assert inside.max_error <= 0.0025
    assert all(region.max_error <= inside.max_error + 3e-5 for region in outside)
    with torch.no_grad():
        low, high = fitted(torch.tensor([-1000.0, 1000.0])).tolist()
    assert abs(low) <= 0.0025
    assert high == pytest.approx(1000, abs=0.0025)


@pytest.mark.parametrize("net", ["mlp-relu", "piecewise-linear"])
@pytest.mark.parametrize("name", ["gelu", "tanh", "softmax-exp"])
def test_a_fold_has_the_tails_too(name, net):
    function = get_function(name)
    content = NetContent(function, {}, build_net(net, function.domain, 1))
    folded = FoldedPolyline(content)
    inputs = torch.linspace(-40, min(40, function.support[1]), 4001)
    torch.testing.assert_close(folded.value(inputs), content.value(inputs), rtol=1e-4, atol=1e-4)


def test_a_statistic_of_nothing_has_the_factor_of_the_closed_form():
    """The variance of a blank patch is 0."""
    fitted = fit("layernorm-rsqrt", "piecewise-linear", seed=0)
    low = torch.tensor([0.0, 1e-8, 1e-5, 1e-4], requires_grad=True)
    values = fitted(low)
    torch.testing.assert_close(values, fitted.function.analytic(low), rtol=5e-3, atol=0)
    values.sum().backward()
    assert low.grad.isfinite().all()


def test_a_density_beyond_the_domain_is_fitted_at_its_ends():
    """A net isn't asked for there: what lies beyond counts at the end, whose error goes on outside."""
    density = torch.cat([torch.linspace(-4, 4, 500), torch.full((500,), 30.0)])
    fitted = fit("gelu", "mlp-gelu", seed=0, density=density, steps=300)
    observed = fitted.fidelity.regions[-1]
    assert observed.region == "observed"
    assert observed.max_error < 0.05
