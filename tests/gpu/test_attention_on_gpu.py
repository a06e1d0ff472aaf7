"""The attention kernels on a real GPU: as good as eager, bitwise repeatable where asked, compiled into one graph."""

import pytest
import torch

from trans4init.kernels.attention import RelativeBias, attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def run(inputs, out_grad, dtype, biased, **options):
    table_dtype = torch.promote_types(dtype, torch.float32)
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs[:3]]
    leaves += [inputs[3].detach().to(table_dtype).requires_grad_()] * biased
    torch.manual_seed(0)
    out = attention(*leaves[:3], bias=RelativeBias(leaves[3]) if biased else None, **options)
    return [out, *torch.autograd.grad(out, leaves, out_grad.to(dtype))]


def rms(tensor):
    return tensor.double().square().mean().sqrt().item()


def draw(queries, keys, width, dtype, batch=2, heads=4, kv_heads=2):
    torch.manual_seed(1)
    shapes = [(batch, heads, queries, width), (batch, kv_heads, keys, width), (batch, kv_heads, keys, width)]
    inputs = [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
    inputs.append(torch.randn(heads, queries + keys - 1, device="cuda"))
    return inputs, torch.randn(shapes[0], device="cuda").to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [16, 32, 64, 80, 96, 128, 256])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (113, 203), (239, 1), (512, 512)])
@pytest.mark.parametrize("biased", [True, False])
def test_kernels_are_as_good_as_eager(dtype, width, queries, keys, biased):
    inputs, out_grad = draw(queries, keys, width, dtype)
    for options in ({}, {"causal": True}, {"window": 50, "dropout_p": 0.3}, {"causal": True, "deterministic": True}):
        if "deterministic" in options and not biased:
            continue
        exact = run(inputs, out_grad, torch.float64, biased, impl="reference", **options)
        eager = run(inputs, out_grad, dtype, biased, impl="reference", **options)
        actual = run(inputs, out_grad, dtype, biased, impl="triton", **options)
        single = 4 * torch.finfo(torch.float32).eps * max(queries, keys) ** 0.5
        for name, x, e, f in zip(("out", "dq", "dk", "dv", "dtable"), exact, eager, actual, strict=False):
            allowed = 2 * rms(e - x) + torch.finfo(dtype).eps / 2 * rms(x) + single
            assert rms(f - x) <= allowed, (name, options)


def test_the_deterministic_backward_is_bitwise_equal_over_100_runs():
    inputs, out_grad = draw(1000, 1000, 64, torch.bfloat16)
    first = run(inputs, out_grad, torch.bfloat16, True, impl="triton", deterministic=True)
    for _ in range(100):
        again = run(inputs, out_grad, torch.bfloat16, True, impl="triton", deterministic=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_bias_takes_no_memory_that_is_quadratic_in_the_length():
    inputs, out_grad = draw(8192, 8192, 64, torch.bfloat16, batch=1)
    peaks = []
    for biased in (False, True):
        torch.cuda.reset_peak_memory_stats()
        run(inputs, out_grad, torch.bfloat16, biased, impl="triton")
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] - peaks[0] <= 4 * 3 * 64 * 1024  # heads; the table, its gradient and the copy that run() makes


def test_compiled_with_inductor_it_is_one_graph_and_the_same():
    inputs, out_grad = draw(64, 64, 64, torch.bfloat16)

    def call(q, k, v, table):
        return attention(q, k, v, bias=RelativeBias(table), causal=True)

    compiled = torch.compile(call, fullgraph=True)
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    torch.testing.assert_close(compiled(*leaves), call(*leaves))
    compiled(*leaves).backward(out_grad)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
