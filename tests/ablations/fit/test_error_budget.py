"""The polylines of an error budget: six decades of errors, which hold wherever a slot is asked."""

import pytest
import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.fit.error_budget import budget_domain, check_budgeted, fitted_error
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.slots.contents import NetContent


def polyline_of(function, pieces):
    made = get_function(function)
    return fit(function, "piecewise-linear", size={"pieces": pieces}, domain=budget_domain(made, made.default_shape))


def test_the_errors_of_gelu_span_six_decades():
    errors = [fitted_error(polyline_of("gelu", pieces)).value for pieces in (1, 1000)]
    assert errors[0] > 1
    assert errors[1] < 1e-6


@pytest.mark.parametrize("function", ["gelu", "tanh", "softmax-exp"])
def test_an_error_falls_with_the_square_of_the_pieces(function):
    few, many = (fitted_error(polyline_of(function, pieces)).value for pieces in (20, 100))
    assert few / many == pytest.approx(25, rel=0.3)


@pytest.mark.parametrize("function", ["gelu", "silu", "tanh", "sigmoid"])
def test_the_error_holds_on_all_reals(function):
    fitted = polyline_of(function, 40)
    points = torch.linspace(-300, 300, 200_001, dtype=torch.float64)
    content = NetContent(fitted.function, fitted.shape, fitted.net)
    largest = (content.value(points) - fitted.function.analytic(points)).abs().max().item()
    assert largest == pytest.approx(fitted_error(fitted).value, rel=0.1)


def test_a_domain_is_widened_only_where_the_function_approaches_a_line():
    gelu, softmax = get_function("gelu"), get_function("softmax-exp")
    assert budget_domain(gelu, {}) == Domain(-6, 6, integer=False)  # 6 Φ(-6) is 5.9e-9, 5.5 Φ(-5.5) 1.04e-7
    assert budget_domain(softmax, {}).high == softmax.domain.high
    assert budget_domain(softmax, {}).low < -16  # exp(-16) is 1.1e-7
    rsqrt = get_function("layernorm-rsqrt")
    assert budget_domain(rsqrt, {}) is rsqrt.domain


def test_the_error_is_relative_where_values_matter_by_their_ratios():
    fitted = polyline_of("rmsnorm-rsqrt", 4)
    points = torch.logspace(-4, 4, 5001, dtype=torch.float64)
    exact = fitted.function.analytic(points)
    relative = ((fitted(points) - exact) / exact).abs().max().item()
    error = fitted_error(fitted)
    assert error.metric.unit == "1"
    assert error.value == pytest.approx(relative, rel=0.02)
    assert fitted_error(polyline_of("gelu", 4)).metric.unit == "function values"


@pytest.mark.parametrize("function", ["alibi", "rope", "head-mixing", "softmax-row", "fire-query", "relu", "i-gelu"])
def test_other_functions_are_refused_with_one_sentence(function):
    with pytest.raises(InputError, match=rf"{function} can't have an error budget: .*there are: .*gelu, .*tanh\.$"):
        check_budgeted(get_function(function))
    check_budgeted(get_function("silu"))
