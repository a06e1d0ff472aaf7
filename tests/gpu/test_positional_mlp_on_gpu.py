"""On a GPU: the kernels against float64, values and gradients, in the dtypes that they take."""

import math
from itertools import pairwise

import pytest
import torch

from trans4init.kernels.positional_mlp import ACTIVATIONS, FEATURES, positional_mlp

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]

SIZES = [
    (1, 1, 1, [16], 1, 0),
    (3, 113, 8, [96], 203, 2),
    (2, 4099, 16, [32], 16, 0),
    (1, 500, 32, [256, 256, 256], 512, 2),
]
"""Nets, positions, frequencies, hidden widths, outputs, entries of add_to."""


def run(impl, dtype, exact, features, activation, sizes):
    """Result and gradients in float64, from the same rounded parameters whatever the dtype of the computation."""
    nets, positions, frequencies, hidden, outputs, batch = sizes
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape, scale=1.0, to=dtype):
        rounded = (scale * torch.randn(*shape, generator=generator)).to("cuda", to)
        return (rounded.double() if exact else rounded).requires_grad_()

    widths = [frequencies * (2 if features == "fourier" else 1), *hidden, outputs]
    weights = [leaf(nets, i, o, scale=1 / math.sqrt(i)) for i, o in pairwise(widths)]
    biases = [leaf(nets, o) for o in widths[1:]]
    w = torch.linspace(0.01, 1.0, frequencies, device="cuda", dtype=torch.float64 if exact else torch.float32)
    w.requires_grad_()
    add_to = leaf(nets, batch, positions, outputs) if batch else None
    p = torch.linspace(-3, 60, positions, device="cuda").to(w.dtype)
    options = {"features": features, "activation": activation, "add_to": add_to, "impl": impl}
    out = positional_mlp(p, w, weights, biases, **options)
    upstream = torch.randn(out.shape, generator=generator).to("cuda", dtype)
    leaves = [w, *weights, *biases, *([add_to] if batch else [])]
    return [t.double() for t in (out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype)))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_are_as_good_as_eager(sizes, features, dtype):
    for activation in ACTIVATIONS:
        exact = run("reference", dtype, True, features, activation, sizes)
        eager = run("reference", dtype, False, features, activation, sizes)
        actual = run("triton", dtype, False, features, activation, sizes)
        for truth, other, ours in zip(exact, eager, actual, strict=True):
            size = truth.norm() + 1e-30
            error, allowed = (ours - truth).norm() / size, (other - truth).norm() / size
            assert error <= 2 * allowed + 4 * torch.finfo(dtype).eps


def test_the_same_call_gives_the_same_bits():
    sizes = (3, 5000, 16, [64, 64], 16, 2)
    one, other = (run("triton", torch.float32, False, "fourier", "gelu", sizes) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_auto_is_triton_where_it_can_and_bmm_where_not():
    sizes = (2, 100, 16, [64], 16, 0)
    for dtype, impl in ((torch.float32, "triton"), (torch.float64, "bmm")):
        one, other = (run(name, dtype, False, "fourier", "gelu", sizes)[0] for name in ("auto", impl))
        assert torch.equal(one, other)
