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
    """Compute attention in float64 from float64 copies, with a table [H, Lq + Lk - 1] or a dense bias [H, Lq, Lk]."""
    queries, keys = q.shape[2], k.shape[2]
    i, j = torch.arange(queries)[:, None], torch.arange(keys)
    scores = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.transpose(-1, -2))
    if bias is not None:
        scores = scores + (bias[:, i - j + keys - 1] if bias.dim() == 2 else bias)
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
    dense = torch.randn(2, 9, 13)
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


def bias_of(kind, queries, keys, offset, dtype=torch.float32):
    """Return a leaf of about `offset`: a table for two heads, or a dense bias."""
    shape = (2, queries + keys - 1) if kind == "table" else (2, queries, keys)
    return (offset + torch.randn(shape)).to(dtype).requires_grad_()


def call_with(impl, kind, causal=True):
    """Return a function of q, k, v and the bias as a tensor; "streamed" is what "auto" does at greater lengths."""

    def call(q, k, v, bias):
        given = RelativeBias(bias) if kind == "table" else bias
        with pytest.MonkeyPatch.context() as patch:
            if impl == "streamed":
                patch.setattr("trans4init.kernels.attention.checks.STREAMED_FROM", 0)
            return attention(q, k, v, bias=given, causal=causal, impl="auto" if impl == "streamed" else impl)

    return call


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (13, 45), (29, 1)])
@pytest.mark.parametrize(
    ("impl", "kind"),
    [(impl, kind) for impl in ("reference", "sdpa", "auto") for kind in ("table", "dense")]
    + [("streamed", "table"), ("triton", "table")],
)
def test_a_float32_bias_is_not_rounded_to_the_type_of_the_queries(impl, kind, queries, keys, offset, dtype):
    """A constant in the bias changes nothing, and its gradient is float32's wherever nothing is rounded inside."""
    (q, k, v), out_grad = draw(queries, keys, dtype)
    bias = bias_of(kind, queries, keys, offset)
    doubles = [tensor.double() for tensor in (q, k, v, bias)]
    expected = with_gradients(lambda *t: exact(*t, causal=True), doubles, out_grad.double())
    actual = with_gradients(call_with(impl, kind), (q, k, v, bias), out_grad)
    assert actual[-1].dtype == torch.float32
    for name, value, right in zip((*NAMES, "dbias"), actual, expected, strict=True):
        eps = torch.finfo(torch.float32 if name == "dbias" and impl != "triton" else dtype).eps
        allowed = (100 if eps < 1e-6 else 2) * eps
        size = right.square().mean().sqrt().item()
        if name in ("dq", "dk", "dbias"):  # where a row sees one key they are 0 but for rounding
            size = max(size, 0.05)
        assert (value.double() - right).square().mean().sqrt().item() <= allowed * size, name


@pytest.mark.parametrize("impl", ["reference", "sdpa", "flex"])
@pytest.mark.parametrize("kind", ["table", "dense"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias_dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_bias_of_any_type_is_right_without_gradients(impl, kind, dtype, bias_dtype):
    """PyTorch has other code for calls without gradients. A float64 bias is rounded to float32 beside 32 bits."""
    (q, k, v), _ = draw(13, 45, dtype)
    bias = bias_of(kind, 13, 45, 100, bias_dtype)
    with torch.no_grad():
        actual = call_with(impl, kind)(q, k, v, bias)
    expected = exact(*(tensor.double() for tensor in (q, k, v, bias)), causal=True)
    rounding = 0 if dtype == torch.float64 and bias_dtype != torch.float64 else 1e-5
    assert actual.dtype == dtype
    assert relative(actual, expected) <= 2 * torch.finfo(dtype).eps + rounding


@pytest.mark.parametrize(
    ("impl", "kind"),
    [("reference", "table"), ("sdpa", "table"), ("streamed", "table"), ("reference", "dense"), ("sdpa", "dense")],
)
def test_the_gradient_of_a_16_bit_bias_is_rounded_once_after_it_is_summed(impl, kind):
    q, k, v = (torch.randn(3, 2, 70, 16) for _ in range(3))
    out_grad = torch.randn(3, 2, 70, 16)
    bias = bias_of(kind, 70, 70, 0, torch.bfloat16)
    expected = with_gradients(exact, [tensor.double() for tensor in (q, k, v, bias)], out_grad.double())[-1]
    actual = with_gradients(call_with(impl, kind, causal=False), (q, k, v, bias), out_grad)[-1]
    assert actual.dtype == torch.bfloat16
    assert relative(actual, expected) < 0.4 * torch.finfo(torch.bfloat16).eps


def test_the_error_does_not_jump_where_auto_begins_to_stream():
    """724 and 725 positions of one head: the longest call that is not streamed, and the shortest that is."""
    errors = []
    for length in (724, 725):
        (q, k, v), _ = draw(length, length, torch.bfloat16, heads=1)
        table = 20 + torch.randn(1, 2 * length - 1)
        expected = exact(*(tensor.double() for tensor in (q, k, v, table)), causal=True)
        errors.append(relative(attention(q, k, v, bias=RelativeBias(table), causal=True), expected))
    assert max(errors) < 1.2 * min(errors)
