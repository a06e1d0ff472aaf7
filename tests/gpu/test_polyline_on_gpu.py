"""On a GPU: the polyline's kernel against float64, and its cost beside the closed form's."""

import pytest
import torch

from trans4init.kernels.polyline import chosen, polyline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


def drawn(pieces):
    """Lines that meet: kinks [K − 1], lines [2, K], float64."""
    generator = torch.Generator().manual_seed(0)
    kinks = torch.linspace(-3.5, 3.5, pieces - 1, dtype=torch.float64)
    slopes = torch.randn(pieces, generator=generator, dtype=torch.float64)
    intercepts = torch.cat([torch.ones(1, dtype=torch.float64), -(slopes.diff() * kinks)]).cumsum(0)
    return kinks.cuda(), torch.stack([slopes, intercepts]).cuda()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pieces", [2, 8, 16, 256])
@pytest.mark.parametrize("shape", [(1, 1), (113, 203), (239, 1), (1024, 4099)])
def test_value_and_gradient_are_right_to_rounding(shape, pieces, dtype):
    kinks, lines = drawn(pieces)
    inputs = (2 * torch.randn(shape, device="cuda")).to(dtype).requires_grad_()
    upstream = torch.randn(shape, device="cuda", dtype=dtype)
    value = polyline(inputs, kinks.float(), lines.float(), impl="triton")
    [gradient] = torch.autograd.grad(value, inputs, upstream)
    own = inputs.detach().double().requires_grad_()
    truth = polyline(own, kinks.float().double(), lines, impl="reference")
    [slope] = torch.autograd.grad(truth, own, upstream.double())
    assert (value.dtype, gradient.dtype) == (dtype, dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(value.double(), truth, rtol=2 * eps, atol=1e-5 + eps)
    torch.testing.assert_close(gradient.double(), slope, rtol=2 * eps, atol=1e-5)


def test_it_is_what_auto_takes_and_costs_what_gelu_costs():
    kinks, lines = (part.float() for part in drawn(16))
    inputs = torch.randn(2**26, device="cuda")
    assert chosen(inputs, 16) == "triton"

    def milliseconds(call):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call(inputs)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    calls = {"gelu": torch.nn.functional.gelu, "polyline": lambda x: polyline(x, kinks, lines)}
    times = {name: [] for name in calls}
    for _ in range(25):
        for name, call in calls.items():
            times[name].append(milliseconds(call))
    medians = {name: sorted(actual[5:])[10] for name, actual in times.items()}
    assert medians["polyline"] < 1.1 * medians["gelu"], medians
