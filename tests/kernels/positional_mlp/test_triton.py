"""Tests of the Triton kernels, interpreted on the CPU, against float64; and of the operators that PyTorch sees.

Uninitialised memory holds NaN here, so that a place that no kernel writes shows. bfloat16 is left out, since the
interpreter multiplies it wrongly (the call is refused); float16 takes the same way through the kernels.
"""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from trans4init.kernels.positional_mlp import ACTIVATIONS, FEATURES, positional_mlp
from trans4init.kernels.positional_mlp.registration import (
    fused_positional_mlp,
    positional_mlp_backward,
    positional_mlp_forward,
)

pytest.importorskip("triton", reason="needs Triton")

CAP = {torch.float32: 2e-5, torch.float16: 2e-2}
"""The largest relative RMS error that is allowed at positions up to about 100, whatever eager's error is.

Beyond, it grows with the position, as the rounding of position · frequency in float32 does.
"""
ULPS = 4
"""Added to twice eager's error, since eager may be exact by chance on a handful of numbers."""
LARGEST: dict[tuple[str, str], tuple[float, float]] = {}


@pytest.fixture(autouse=True, scope="module")
def nan_in_uninitialised_memory():
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="module")
def print_largest_errors():
    yield
    print("\nlargest relative RMS error (and eager's in that call), against float64")
    for (dtype, name), (error, eager) in sorted(LARGEST.items()):
        print(f"{dtype:8s} {name:12s} {error:.2e} ({eager:.2e})")


def make_call(nets, positions, frequencies, hidden, outputs, *, reach=20.0, own="", batch=0, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    options = {"features": "fourier", "activation": "gelu"} | options
    widths = [frequencies * (2 if options["features"] == "fourier" else 1), *hidden, outputs]
    scale = 1.0 if options["features"] == "fourier" else 1 / reach
    return {
        "positions": (reach * draw(*((nets,) if "p" in own else ()), positions)),
        "frequencies": scale * draw(*((nets,) if "w" in own else ()), frequencies).abs(),
        "weights": [draw(nets, i, o) / math.sqrt(i) for i, o in pairwise(widths)],
        "biases": [draw(nets, o) for o in widths[1:]],
        "add_to": draw(nets, batch, positions, outputs) if batch else None,
        **options,
    }


def values_and_gradients(call, impl, dtype, exact=False):
    """Return result and gradients as float64.

    dtype: what weights, biases and add_to are rounded to; `exact`: then compute in float64.
    """

    def leaf(tensor, to):
        rounded = tensor.detach().to(to, copy=True)
        return (rounded.double() if exact else rounded).requires_grad_()

    positions = call["positions"].double() if exact else call["positions"]
    frequencies = leaf(call["frequencies"], torch.float32)
    weights, biases = ([leaf(tensor, dtype) for tensor in call[name]] for name in ("weights", "biases"))
    add_to = None if call["add_to"] is None else leaf(call["add_to"], dtype)
    names = {"features": call["features"], "activation": call["activation"]}
    out = positional_mlp(positions, frequencies, weights, biases, add_to=add_to, impl=impl, **names)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    out.backward(upstream.to(out.dtype))
    actual = {"values": out, "frequencies": frequencies.grad}
    actual |= {f"weight {index}": weight.grad for index, weight in enumerate(weights)}
    actual |= {f"bias {index}": bias.grad for index, bias in enumerate(biases)}
    actual |= {} if add_to is None else {"add_to": add_to.grad}
    return {name: tensor.detach().double() for name, tensor in actual.items()}


def in_order(call, dtype, order):
    """Return eager's result computed with the hidden units in another order: in one order it may be exact by chance."""
    weights, biases, orders = list(call["weights"]), list(call["biases"]), []
    for layer in range(len(weights) - 1):
        units = torch.arange(weights[layer].shape[-1])
        units = units[torch.randperm(len(units), generator=torch.Generator().manual_seed(order))] if order else units
        weights[layer], biases[layer] = weights[layer][..., units], biases[layer][..., units]
        weights[layer + 1] = weights[layer + 1][:, units]
        orders.append(units.argsort())
    actual = values_and_gradients(call | {"weights": weights, "biases": biases}, "reference", dtype)
    for layer, back in enumerate(orders):
        actual[f"weight {layer}"] = actual[f"weight {layer}"][..., back]
        actual[f"bias {layer}"] = actual[f"bias {layer}"][..., back]
        actual[f"weight {layer + 1}"] = actual[f"weight {layer + 1}"][:, back]
    return actual


def assert_as_good_as_eager(dtype, **sizes):
    call, farther = make_call(**sizes), max(1.0, sizes.get("reach", 0.0) / 50)
    exact = values_and_gradients(call, "reference", dtype, exact=True)
    eager = [in_order(call, dtype, order) for order in range(4)]
    actual = values_and_gradients(call, "triton", dtype)
    for name, truth in exact.items():
        size = truth.norm() + 1e-30
        error = (actual[name] - truth).norm() / size
        allowed = max((result[name] - truth).norm() / size for result in eager)
        assert allowed <= 2 * CAP[dtype] * farther, f"{name}: eager itself is {allowed:.2e} off"
        key = (str(dtype).removeprefix("torch."), name.split()[0])
        LARGEST[key] = max(LARGEST.get(key, (0.0, 0.0)), (error.item(), allowed.item()))
        message = f"{name}: relative RMS error {error:.2e}, eager's {allowed:.2e}"
        assert error <= 2 * allowed + ULPS * torch.finfo(dtype).eps, message
        assert error <= CAP[dtype] * farther, message


CALLS = st.fixed_dictionaries(
    {
        "nets": st.integers(1, 3),
        "positions": st.sampled_from([1, 2, 31, 32, 33, 65]),
        "frequencies": st.sampled_from([1, 3, 16, 17, 35]),
        "hidden": st.lists(st.sampled_from([1, 5, 16, 33, 64, 70]), min_size=1, max_size=3),
        "outputs": st.sampled_from([1, 7, 16, 65, 70]),
        "reach": st.sampled_from([1.0, 50.0, 1000.0]),
        "own": st.sampled_from(["", "p", "w", "pw"]),
        "batch": st.sampled_from([0, 1, 3]),
        "seed": st.integers(0, 2**16),
        "features": st.sampled_from(list(FEATURES)),
        "activation": st.sampled_from(list(ACTIVATIONS)),
    }
)


# Shrinking a failure would take minutes in the interpreter.
@settings(deadline=None, max_examples=14, derandomize=True, phases=[Phase.generate])
@given(CALLS, st.sampled_from([torch.float32, torch.float32, torch.float16]))
def test_values_and_gradients_are_as_good_as_eager(call, dtype):
    assert_as_good_as_eager(dtype, **call)


@pytest.mark.parametrize(
    ("positions", "frequencies", "hidden", "outputs", "batch"),
    [(1, 1, [16], 1, 0), (113, 8, [96], 203, 2), (239, 16, [48, 20], 1, 0), (17, 16, [256, 20, 33], 40, 0)],
)
def test_odd_and_large_sizes(positions, frequencies, hidden, outputs, batch):
    sizes = {"positions": positions, "frequencies": frequencies, "hidden": hidden, "outputs": outputs, "batch": batch}
    assert_as_good_as_eager(torch.float32, nets=1, **sizes)


def test_a_program_goes_through_several_blocks_and_batch_entries(monkeypatch):
    """As on a GPU with thousands of nets: here a launch aims at few programs, and the last one has fewer blocks."""
    monkeypatch.setattr("trans4init.kernels.positional_mlp.launch.PROGRAMS", 6)
    sizes = {"positions": 70, "frequencies": 17, "hidden": [70, 16], "outputs": 7, "batch": 5}
    assert_as_good_as_eager(torch.float32, nets=2, **sizes)


def test_the_same_call_gives_the_same_bits():
    call = make_call(2, 70, 5, [20, 40], 3, batch=2)
    first, second = (values_and_gradients(call, "triton", torch.float32) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_position_that_is_not_finite_spoils_its_own_row():
    """As on a GPU, where positions are not checked."""
    call = make_call(1, 40, 3, [20], 5)
    clean = positional_mlp(**call, impl="triton")
    for features in FEATURES:
        weights = make_call(1, 40, 3, [20], 5, features=features)["weights"]
        options = {"frequencies": call["frequencies"], "weights": weights, "biases": call["biases"]}
        options |= {"features": features, "activation": "relu", "add_to": None}
        clean = fused_positional_mlp(call["positions"], **options)
        positions = call["positions"].clone()
        positions[7] = math.nan
        actual = fused_positional_mlp(positions, **options)
        assert actual[0, 7].isnan().all()
        actual[0, 7] = clean[0, 7]
        torch.testing.assert_close(actual, clean, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [0, 2])
def test_the_operators_pass_opcheck(batch):
    parameters = torch.randn(2, (6 + 1) * 5 + (5 + 1) * 4, requires_grad=True)
    frequencies, positions = torch.randn(1, 3, requires_grad=True), torch.randn(2, 6)
    add_to = torch.randn(2, batch, 6, 4, requires_grad=True) if batch else None
    net = ([3, 5, 4], "fourier", "gelu")
    torch.library.opcheck(positional_mlp_forward, (positions, frequencies, parameters, add_to, *net))
    upstream = torch.randn(2, 6, 4)
    arguments = (positions, frequencies.detach(), parameters.detach(), upstream, *net)
    torch.library.opcheck(positional_mlp_backward, (*arguments, True))


@pytest.mark.parametrize("shared", [True, False])
def test_vmap_over_nets_is_the_batch_of_nets_with_its_gradients(shared):
    call = make_call(3, 20, 4, [9, 5], 2, own="" if shared else "p")
    leaves = [tensor.requires_grad_() for tensor in (*call["weights"], *call["biases"])]
    net = {"features": "fourier", "impl": "triton"}

    def single_net(positions, weights, biases):
        weights, biases = ([tensor[None] for tensor in tensors] for tensors in (weights, biases))
        return positional_mlp(positions, call["frequencies"], weights, biases, **net)[0]

    arguments = (call["positions"], call["weights"], call["biases"])
    mapped = torch.func.vmap(single_net, in_dims=(None if shared else 0, 0, 0))(*arguments)
    whole = positional_mlp(call["positions"], call["frequencies"], call["weights"], call["biases"], **net)
    torch.testing.assert_close(mapped, whole, rtol=0, atol=0)
    actual, expected = (torch.autograd.grad(out.square().sum(), leaves) for out in (mapped, whole))
    torch.testing.assert_close(actual, expected)


def test_gradients_of_each_member_under_vmap_are_those_of_a_loop():
    """Gradients of weights and frequencies by `torch.func`, where each member has its own or all share one."""
    call = make_call(2, 20, 3, [9], 2)
    members, frequencies = torch.randn(3, *call["weights"][0].shape), torch.randn(3, 3).abs()

    def loss(weight, frequencies):
        inputs = {"weights": [weight, call["weights"][1]], "frequencies": frequencies}
        return positional_mlp(**(call | inputs), impl="triton").square().sum()

    derive = torch.func.grad(loss, argnums=(0, 1))
    for dims in ((0, 0), (0, None), (None, 0)):
        inputs = [each if dim == 0 else each[0] for each, dim in zip((members, frequencies), dims, strict=True)]
        actual = torch.func.vmap(derive, in_dims=dims)(*inputs)
        for member in range(3):
            alone = derive(*(each[member] if dim == 0 else each for each, dim in zip(inputs, dims, strict=True)))
            torch.testing.assert_close([gradient[member] for gradient in actual], list(alone), rtol=1e-4, atol=1e-5)


def test_derivatives_that_are_not_there_are_refused_by_name():
    """The second derivative, and forward mode, whose tangent would silently be 0."""
    call = make_call(1, 3, 1, [4], 1)
    leaf = call["weights"][0].requires_grad_()

    def function(weight):
        return positional_mlp(**(call | {"weights": [weight, call["weights"][1]]}), impl="triton").square().sum()

    (gradient,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative; impl 'reference' has one"):
        gradient.sum().backward()
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(function, (leaf.detach(),), (leaf.detach(),))


def test_a_model_compiles_without_a_graph_break_and_trains():
    call = make_call(2, 20, 4, [9], 2)
    call["weights"][0].requires_grad_()

    def model(weight):
        return positional_mlp(**(call | {"weights": [weight, call["weights"][1]]}), impl="triton").square().sum()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    actual, expected = (torch.autograd.grad(f(call["weights"][0]), call["weights"][0])[0] for f in (compiled, model))
    torch.testing.assert_close(actual, expected)


def test_autocast_takes_the_nets_in_its_dtype():
    call = make_call(2, 20, 4, [9], 2)
    low = {name: [value.half() for value in call[name]] for name in ("weights", "biases")}
    with torch.autocast("cpu", dtype=torch.float16):
        actual = positional_mlp(**call, impl="triton")
    torch.testing.assert_close(actual, positional_mlp(**(call | low), impl="triton"), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": [torch.zeros(1, 6, 257), torch.zeros(1, 257, 2)]}, "width 256 and 1024 outputs, and 257 and 2"),
        ({"weights": [torch.zeros(1, 6, 8), torch.zeros(1, 8, 1025)]}, "width 256 and 1024 outputs, and 8 and 1025"),
        ({"positions": torch.zeros(5, requires_grad=True)}, "no gradient to positions"),
        ({"positions": torch.zeros(5).double()}, "computes features in float32"),
        ({"weights": [torch.zeros(1, 6, 8).double(), torch.zeros(1, 8, 2).double()]}, "got torch.float64"),
        (
            {"weights": [torch.zeros(1, 6, 8).bfloat16(), torch.zeros(1, 8, 2).bfloat16()]},
            "no bfloat16 weights on a CPU",
        ),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(change, sentence):
    call = {"positions": torch.zeros(5), "frequencies": torch.zeros(3)} | {
        "weights": [torch.zeros(1, 6, 8), torch.zeros(1, 8, 2)],
        **change,
    }
    call["biases"] = [torch.zeros(1, weight.shape[2], dtype=weight.dtype) for weight in call["weights"]]
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as caught:
        positional_mlp(**call, features="fourier", impl="triton")
    assert sentence in str(caught.value)
