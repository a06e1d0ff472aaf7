"""Tests that the operators take dtype and device from their inputs, whatever PyTorch's defaults are."""

import contextlib
import functools

import pytest
import torch

from trans4init.kernels.attention import RelativeBias, attention, pytorch
from trans4init.kernels.polyline import native_refusal, polyline
from trans4init.kernels.positional_mlp import positional_mlp, relative_mlp_attention

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float32, device="cpu")


Q, K, V, TABLE, LENGTHS = draw(2, 2, 5, 16), draw(2, 1, 17, 16), draw(2, 1, 17, 16), draw(2, 21), torch.tensor([17, 7])
POSITIONS, FREQUENCIES = draw(11), draw(4).abs()
LAYERS = draw(2, 8, 6), draw(2, 6, 3), draw(2, 6), draw(2, 3)
INPUTS, KINKS, LINES = draw(7, 3), draw(5).sort().values, draw(2, 6)


def attend(impl, q, k, v, table):
    torch.manual_seed(3)
    dropout_p = 0.4 if impl in ("reference", "triton") else 0.0
    biased = {"bias": RelativeBias(table), "causal": True, "window": 9, "key_lengths": LENGTHS, "impl": impl}
    return [
        attention(q, k, v, **biased, dropout_p=dropout_p),
        attention(q, k, v, **biased, deterministic=True),
        attention(q, k, v, causal=True, impl=impl),
        attention(q, k, v, bias=RelativeBias(table).dense(5, 17) if impl != "triton" else None, impl=impl),
    ]


def evaluate_nets(impl, frequencies, *layers):
    return [positional_mlp(POSITIONS, frequencies, layers[:2], layers[2:], features="fourier", impl=impl)]


def attend_with_nets(impl, frequencies, *layers):
    weights, biases = (layers[0][:1, :4], layers[1][:1, :, :2]), (layers[2][:1], layers[3][:1, :2])
    return [relative_mlp_attention(Q, K, V, frequencies, weights, biases, features="log", unit=3.0)]


def bend(impl, inputs):
    return [polyline(inputs, KINKS, LINES, impl=impl)]


CALLS = [(attend, impl, (Q, K, V, TABLE)) for impl in ("auto", "reference", "sdpa", "flex", "triton")]
CALLS += [(evaluate_nets, impl, (FREQUENCIES, *LAYERS)) for impl in ("auto", "reference", "bmm", "triton")]
CALLS += [(attend_with_nets, "auto", (FREQUENCIES, *LAYERS))]
CALLS += [(bend, impl, (INPUTS,)) for impl in ("reference", "sum", "triton")]
CALLS += [(bend, "native", (INPUTS,))] if native_refusal() is None else []


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def results(call, impl, leaves):
    """Return outputs and their gradients, without gradients for "flex", which has none on a CPU."""
    leaves = [leaf.clone().requires_grad_(impl != "flex") for leaf in leaves]
    outputs = call(impl, *leaves)
    if impl == "flex":
        return outputs
    loss = sum(output.square().sum() for output in outputs)
    return [*outputs, *torch.autograd.grad(loss, leaves, allow_unused=True)]


@functools.cache
def plain_results(call, impl, leaves):
    return results(call, impl, leaves)


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64, "meta"], ids=str)
@pytest.mark.parametrize(("call", "impl", "leaves"), CALLS, ids=[f"{call.__name__}-{impl}" for call, impl, _ in CALLS])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_results_do_not_depend_on_pytorchs_default_dtype_and_device(call, impl, leaves, default):
    expected = plain_results(call, impl, leaves)
    pytorch._block_mask.cache_clear()  # so that flex's mask is made under the default, too
    with torch.device(default) if default == "meta" else default_dtype(default):
        actual = results(call, impl, leaves)
    for value, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-6, atol=1e-6)
