"""Tests of `positional_mlp`: the specification against plain loops, the eager implementations, and the refusals."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from trans4init.kernels.positional_mlp import ACTIVATIONS, FEATURES, positional_mlp
from trans4init.kernels.positional_mlp.blocked import blocked_chain, undifferentiated

WIDTHS = st.lists(st.integers(1, 9), min_size=1, max_size=3)


def make_call(nets, positions, frequencies, hidden, outputs, *, own=False, batch=0, seed=0, **options):
    """Return arguments of a call in float64; `own`: each net has positions and frequencies of its own."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    options = {"features": "fourier", "activation": "gelu"} | options
    widths = [frequencies * (2 if options["features"] == "fourier" else 1), *hidden, outputs]
    layers = list(itertools.pairwise(widths))
    lead = (nets,) if own else ()
    return {
        "positions": 5 * draw(*lead, positions),
        "frequencies": draw(*lead, frequencies).abs(),
        "weights": [draw(nets, i, o) / math.sqrt(i) for i, o in layers],
        "biases": [draw(nets, o) for _, o in layers],
        "add_to": draw(nets, batch, positions, outputs) if batch else None,
        **options,
    }


@st.composite
def calls(draw):
    return make_call(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 4)),
        draw(WIDTHS),
        draw(st.integers(1, 5)),
        own=draw(st.booleans()),
        batch=draw(st.sampled_from([0, 1, 3])),
        seed=draw(st.integers(0, 2**16)),
        features=draw(st.sampled_from(list(FEATURES))),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
    )


def as_dtype(call, dtype):
    def cast(value):
        if isinstance(value, list):
            return [cast(item) for item in value]
        return value.to(dtype) if isinstance(value, torch.Tensor) else value

    return {name: cast(value) for name, value in call.items()}


def run(call, **options):
    call = call | options
    return positional_mlp(
        call.pop("positions"), call.pop("frequencies"), call.pop("weights"), call.pop("biases"), **call
    )


def by_the_book(positions, frequencies, weights, biases, features, activation, add_to):
    """Compute the nets by their definition, net by net and position by position."""
    activate = {
        "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "relu": lambda x: max(x, 0.0),
        "silu": lambda x: x / (1 + math.exp(-x)),
        "tanh": math.tanh,
        "sin": math.sin,
    }[activation]
    nets = weights[0].shape[0]
    p_rows, w_rows = positions.expand(nets, -1).tolist(), frequencies.expand(nets, -1).tolist()
    out = torch.empty(nets, positions.shape[-1], weights[-1].shape[2], dtype=torch.float64)
    for g in range(nets):
        for n, p in enumerate(p_rows[g]):
            angles = [p * w for w in w_rows[g]]
            state = {
                "fourier": [math.sin(a) for a in angles] + [math.cos(a) for a in angles],
                "log": [math.log(1 + w * abs(p)) for w in w_rows[g]],
                "linear": angles,
            }[features]
            for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                columns = zip(weight[g].T.tolist(), bias[g].tolist(), strict=True)
                state = [sum(s * w for s, w in zip(state, column, strict=True)) + b for column, b in columns]
                if index < len(weights) - 1:
                    state = [activate(s) for s in state]
            out[g, n] = torch.tensor(state, dtype=torch.float64)
    return out if add_to is None else add_to + out[:, None]


@settings(deadline=None, max_examples=60)
@given(calls())
def test_reference_and_bmm_are_the_definition(call):
    expected = by_the_book(**call)
    for impl in ("reference", "bmm", "auto"):
        torch.testing.assert_close(run(call, impl=impl), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("at_once", [1, 40])
@settings(deadline=None, max_examples=30)
@given(calls())
def test_auto_a_few_nets_and_positions_at_a_time_is_the_definition(at_once, call):
    """Without gradients: one net and position at a time, and several at a time, with fewer in the last step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trans4init.kernels.positional_mlp.blocked.AT_ONCE", at_once)
        torch.testing.assert_close(blocked_chain(**call), by_the_book(**call), rtol=1e-9, atol=1e-11)


def test_auto_writes_over_nothing_that_a_gradient_or_a_trace_needs():
    call = make_call(2, 5, 2, [4, 3], 2)
    tensors = [call["positions"], call["frequencies"], *call["weights"], *call["biases"]]
    assert undifferentiated(tensors)
    call["weights"][0].requires_grad_()
    assert not undifferentiated(tensors)
    with torch.no_grad():
        assert undifferentiated(tensors)
    mapped = []
    torch.func.vmap(lambda p: mapped.append(undifferentiated([p])) or p)(call["positions"])
    assert mapped == [False]
    with forward_ad.dual_level():
        assert not undifferentiated(tensors[:1])


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("impl", ["reference", "bmm"])
def test_gradients_are_exact(features, impl):
    call = make_call(2, 3, 2, [3, 2], 2, batch=2, features=features, activation="tanh")
    depth = len(call["weights"])
    leaves = [call["positions"], call["frequencies"], call["add_to"], *call["weights"], *call["biases"]]

    def function(positions, frequencies, add_to, *layers):
        inputs = {"positions": positions, "frequencies": frequencies, "add_to": add_to}
        return run(call | inputs | {"weights": list(layers[:depth]), "biases": list(layers[depth:])}, impl=impl)

    assert torch.autograd.gradcheck(function, [leaf.requires_grad_() for leaf in leaves])


def test_compile_is_the_reference():
    call = as_dtype(make_call(2, 9, 3, [6], 4), torch.float32)
    torch.testing.assert_close(run(call, impl="compile"), run(call, impl="reference"))


def test_add_to_without_nets_is_for_one_net():
    call = make_call(1, 5, 2, [4], 3, batch=2)
    bare = run(call, add_to=call["add_to"][0])
    torch.testing.assert_close(bare, run(call)[0])


@pytest.mark.parametrize("impl", ["reference", "bmm"])
def test_the_result_has_the_dtype_of_the_weights_or_of_add_to(impl):
    call = as_dtype(make_call(2, 5, 2, [4], 3, batch=2), torch.float32)
    low = {name: [value.bfloat16() for value in call[name]] for name in ("weights", "biases")}
    assert run(call | low, add_to=None, impl=impl).dtype == torch.bfloat16
    assert run(call | low, impl=impl).dtype == torch.float32
    assert run(call, add_to=call["add_to"].bfloat16(), impl=impl).dtype == torch.bfloat16


def test_features_are_exact_at_far_positions_in_low_precision():
    """Position 4097 is 4096 in bfloat16: angles are never computed in the dtype of the weights."""
    call = make_call(1, 1, 1, [8], 4)
    call["positions"], call["frequencies"] = torch.tensor([4097.0]), torch.tensor([1.0])
    expected = run(call | {"positions": call["positions"].double(), "frequencies": call["frequencies"].double()})
    low = {name: [value.bfloat16() for value in call[name]] for name in ("weights", "biases")}
    torch.testing.assert_close(run(call | low).double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("impl", ["reference", "bmm", "auto"])
def test_vmap_over_nets_is_the_batch_of_nets(impl):
    call = make_call(3, 5, 2, [4, 3], 2)
    weights, biases = call["weights"], call["biases"]

    def single_net(weights, biases):
        single = {"weights": [w[None] for w in weights], "biases": [b[None] for b in biases]}
        return run(call | single, impl=impl)[0]

    torch.testing.assert_close(torch.func.vmap(single_net)(weights, biases), run(call))


@pytest.mark.parametrize("impl", ["reference", "bmm", "auto", "compile"])
def test_a_model_compiles_without_a_graph_break(impl):
    call = make_call(2, 5, 2, [4], 3)
    compiled = torch.compile(lambda p: 2 * run(call, positions=p, impl=impl), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(call["positions"]), 2 * run(call))


@pytest.mark.parametrize("impl", ["reference", "bmm"])
def test_autocast_takes_the_nets_in_its_dtype_and_the_features_in_float32(impl):
    call = as_dtype(make_call(2, 5, 2, [4], 3), torch.float32)
    low = {name: [value.bfloat16() for value in call[name]] for name in ("weights", "biases")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = run(call, impl=impl)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, run(call | low, impl=impl), rtol=0, atol=0)


def test_autocast_leaves_float64_alone():
    call = make_call(2, 5, 2, [4], 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(call).dtype == torch.float64


def test_shapes_are_known_without_values():
    def meta(value):
        if isinstance(value, list):
            return [meta(item) for item in value]
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    call = {name: meta(value) for name, value in make_call(2, 5, 2, [4], 3).items()}
    assert run(call).shape == (2, 5, 3)


def test_compile_inside_a_transformation_is_refused():
    call = make_call(2, 5, 2, [4], 3)
    with pytest.raises(ValueError, match=r"^impl 'compile' can't be called inside torch.func's transformations"):
        torch.func.vmap(lambda p: run(call, positions=p, impl="compile"))(torch.randn(2, 5))


def test_forward_mode_differentiates_by_the_positions():
    call = make_call(2, 5, 2, [4], 3)
    _, slope = torch.func.jvp(lambda p: run(call, positions=p), (call["positions"],), (torch.ones(5).double(),))
    step = 1e-6
    ahead, behind = (run(call, positions=call["positions"] + sign * step) for sign in (1, -1))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def zeros(*shape, **options):
    return torch.zeros(*shape, **options)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"impl": "magic"}, "impl 'magic' is not one of auto, reference, bmm, compile, triton"),
        ({"features": "furier"}, "features 'furier' is not one of fourier, log, linear"),
        ({"activation": "swish"}, "activation 'swish' is not one of gelu, relu, silu, tanh, sin"),
        ({"weights": [zeros(2, 4, 3)], "biases": [zeros(2, 3)]}, "1 to 3 hidden layers, so 2 to 4 weights, and 1"),
        ({"biases": [zeros(2, 5)]}, "2 weights and 1 biases"),
        ({"weights": [zeros(4, 5), zeros(5, 3)]}, "weight 0 must be [nets, in, out], and has shape [4, 5]"),
        ({"weights": [zeros(2, 4, 0), zeros(2, 0, 3)]}, "weight 0 must be [nets, in, out], and has shape [2, 4, 0]"),
        ({"weights": [zeros(2, 4, 5), zeros(1, 5, 3)]}, "weight 1 is of 1 nets, and weight 0 of 2"),
        ({"weights": [zeros(2, 4, 5), zeros(2, 6, 3)]}, "weight 1 takes 6 inputs, and the layer before it has 5"),
        ({"biases": [zeros(2, 5), zeros(3)]}, "bias 1 must be [2, 3], and has shape [3]"),
        ({"biases": [zeros(2, 5), zeros(2, 3).double()]}, "share one floating-point dtype"),
        ({"positions": zeros(3, 7)}, "positions must be [N] or [2, N], and have shape [3, 7]"),
        ({"positions": zeros(0)}, "positions must be [N] or [2, N], and have shape [0]"),
        ({"positions": torch.arange(7)}, "positions must be floating-point, and are torch.int64"),
        ({"positions": torch.tensor([0.0, math.inf])}, "positions must be finite"),
        ({"positions": torch.tensor([0.0, math.nan])}, "positions must be finite"),
        ({"frequencies": zeros(3)}, "'fourier' with 3 frequencies gives 6 inputs, and the first layer takes 4"),
        ({"add_to": zeros(2, 7, 3)}, "add_to without an axis for the nets is for one net, and there are 2"),
        ({"add_to": zeros(2, 1, 7, 4)}, "add_to must be floating-point and [2, B, 7, 3]"),
        ({"frequencies": zeros(2, device="meta")}, "all tensors must be on one device, and are on cpu, meta"),
    ],
)
def test_bad_calls_are_refused_in_one_sentence(change, sentence):
    call = {
        "positions": zeros(7),
        "frequencies": zeros(2),
        "weights": [zeros(2, 4, 5), zeros(2, 5, 3)],
        "biases": [zeros(2, 5), zeros(2, 3)],
        "features": "fourier",
    } | change
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as caught:
        run(call)
    assert sentence in str(caught.value)
