"""Tests of the precision of `attention`: every implementation against float64 from the inputs as they were given."""

import functools
import math

import pytest
import torch
from torch.nn import functional as F

from trans4init.kernels.attention import RelativeBias, attention

NAMES = ("out", "dq", "dk", "dv")
ODD = [(1, 1), (5, 17), (113, 203), (239, 1), (65, 65)]
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def draw(queries, keys, dtype=torch.float32, width=16, heads=2):
    """Return q, k and v, rounded to `dtype`, as leaves; and the gradient of the output."""
    q, k, v, out_grad = (torch.randn(1, heads, n, width).to(dtype) for n in (queries, keys, keys, queries))
    return [tensor.requires_grad_() for tensor in (q, k, v)], out_grad


def exact(q, k, v, bias=None, *, causal=False, scale=None):
    """Compute attention in float64 from float64 copies, with a dense bias or a table [H, Lq + Lk - 1]."""
    queries, keys = q.shape[2], k.shape[2]
    i, j = torch.arange(queries)[:, None], torch.arange(keys)
    scores = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.transpose(-1, -2))
    if bias is not None:
        scores = scores + (bias[:, i - j + keys - 1] if bias.shape[-1] == queries + keys - 1 else bias)
    hidden = (j > i + keys - queries) & causal
    weights = scores.masked_fill(hidden, -1e9).softmax(-1)  # a finite number, so that a row without a key isn't NaN
    return weights.masked_fill(hidden, 0.0) @ v


def with_gradients(function, leaves, out_grad):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    return [out, *torch.autograd.grad(out, leaves, out_grad.to(out.dtype))]


def relative(actual, expected):
    """Return the RMS error, relative to the RMS of what is right."""
    error = (actual.double() - expected).square().mean().sqrt()
    return (error / expected.square().mean().sqrt().clamp_min(1e-30)).item()


@pytest.mark.parametrize("impl", ["reference", "sdpa", "flex", "triton", "auto"])
def test_products_beyond_float16_are_scaled_before_they_overflow(impl):
    """Every product of a query and a key is about 90000; with a scale of 1/4 the scores differ by a few units."""
    (q, k, v), _ = draw(9, 13, torch.float16)
    with torch.no_grad():
        q[..., 0] = k[..., 0] = 300.0
        expected = exact(q.double(), k.double(), v.double())
        assert (q @ k.transpose(-1, -2)).isinf().all()
        assert relative(attention(q, k, v, impl=impl), expected) < 0.01


@pytest.mark.parametrize("impl", ["reference", "auto"])
def test_products_beyond_float16_are_right_with_a_dense_bias_and_the_log_sum_exp(impl):
    """No fused implementation does such a call: it is the specification's own."""
    (q, k, v), _ = draw(9, 13, torch.float16)
    with torch.no_grad():
        q[..., 0] = k[..., 0] = 300.0
    dense = torch.randn(9, 13)
    out, lse = attention(q, k, v, bias=dense, return_lse=True, impl=impl)
    expected = exact(q.double(), k.double(), v.double(), dense.double())
    assert relative(out, expected) < 0.01
    levels = (q.double() @ k.double().transpose(-1, -2) / 4 + dense.double()).logsumexp(-1)
    torch.testing.assert_close(lse.double(), levels, rtol=1e-6, atol=1e-2)


@pytest.mark.parametrize("impl", ["reference", "sdpa", "triton", "auto"])
def test_gradients_whose_inner_products_pass_float16_are_right(impl):
    """As with a loss that is scaled up: the weights' gradient is above 65504, what is returned is below."""
    (q, k, v), out_grad = draw(9, 13, torch.float16)
    out_grad = 12000 * out_grad.clamp(-4, 4)
    assert (out_grad @ v.transpose(-1, -2)).isinf().any()
    actual = with_gradients(lambda *t: attention(*t, scale=0.01, impl=impl), (q, k, v), out_grad)
    doubles = [tensor.double() for tensor in (q, k, v)]
    expected = with_gradients(lambda *t: exact(*t, scale=0.01), doubles, out_grad)
    for gradient, right in zip(actual, expected, strict=True):
        assert relative(gradient, right) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [0.0, -0.3])
@pytest.mark.parametrize(("queries", "keys"), ODD)
@pytest.mark.parametrize("causal", [False, True])
def test_a_scale_of_zero_or_less_is_right(queries, keys, scale, causal, dtype):
    """PyTorch's own causal mask is not: it hides keys by -inf before it multiplies by the scale."""
    leaves, out_grad = draw(queries, keys, dtype)
    doubles = [leaf.double() for leaf in leaves]
    expected = with_gradients(lambda *t: exact(*t, causal=causal, scale=scale), doubles, out_grad.double())
    for impl in ("reference", "sdpa", "auto"):
        call = functools.partial(attention, causal=causal, scale=scale, impl=impl)
        for name, value, right in zip(NAMES, with_gradients(call, leaves, out_grad), expected, strict=True):
            size = right.square().mean().sqrt().item()
            if name in ("dq", "dk"):  # where a row sees one key they are 0 but for rounding
                size = max(size, abs(scale) * queries**0.5)
            error = (value.double() - right).square().mean().sqrt().item()
            assert error <= 4 * torch.finfo(dtype).eps * size, (impl, name)


@pytest.mark.parametrize("scale", [None, -0.3, 0.0])
@pytest.mark.parametrize(
    ("queries", "keys", "options", "asked"),
    [
        (7, 7, {}, "nothing"),
        (5, 7, {}, "nothing"),
        (7, 7, {"causal": True}, "is_causal"),
        (5, 7, {"causal": True}, "mask"),
        (7, 7, {"causal": True, "window": 3}, "mask"),
        (7, 7, {"causal": True, "key_lengths": torch.tensor([6])}, "mask"),
        (7, 7, {"causal": True, "bias": RelativeBias(torch.zeros(2, 13))}, "mask"),
        (7, 7, {"causal": True, "bias": torch.zeros(7, 7)}, "mask"),
    ],
    ids=str,
)
@pytest.mark.parametrize("impl", ["sdpa", "auto"])
def test_pytorchs_causal_mask_is_used_for_squares_alone_and_never_with_a_scale_of_zero_or_less(
    queries, keys, options, asked, scale, impl, monkeypatch
):
    calls, original = [], F.scaled_dot_product_attention

    def remember(*tensors, **given):
        calls.append(given)
        return original(*tensors, **given)

    monkeypatch.setattr(F, "scaled_dot_product_attention", remember)
    (q, k, v), _ = draw(queries, keys)
    attention(q, k, v, scale=scale, impl=impl, **options)
    [given] = calls
    assert given["scale"] > 0
    assert bool(given.get("is_causal")) == (asked == "is_causal")
    assert (given.get("attn_mask") is not None) == (asked == "mask")


@pytest.mark.parametrize("impl", ["reference", "sdpa", "flex", "triton", "auto"])
@pytest.mark.parametrize("biased", ["table", "dense", "no bias"])
def test_autocast_rounds_queries_keys_and_values_and_nothing_else(impl, biased):
    """Inside, products are those of the call without autocast, and a float32 bias is not rounded to autocast's type."""
    q, k, v = (torch.randn(1, 2, 7, 16) for _ in range(3))
    bias = {"table": RelativeBias(50 + torch.randn(2, 13)), "dense": 50 + torch.randn(7, 7)}.get(biased)
    bias = None if impl == "triton" and biased == "dense" else bias  # the kernels take no dense bias
    with torch.autocast("cpu", torch.bfloat16):
        actual = attention(q, k, v, bias=bias, causal=True, impl=impl)
    expected = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias=bias, causal=True, impl=impl)
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, expected)


def test_a_row_that_sees_nothing_is_zero_in_float16():
    (q, k, v), _ = draw(6, 4, torch.float16)
    out, lse = attention(q, k, v, causal=True, return_lse=True, impl="reference")
    assert out[:, :, :2].abs().max() == 0
    assert (lse[:, :, :2] == -math.inf).all()
    assert out.dtype == torch.float16
    assert lse.dtype == torch.float32
