"""Tests of a network of i - j as the bias of attention: its call, exact gradients, and that it learns a known bias."""

import math

import pytest
import torch

from trans4init.kernels.attention import RelativeBias, attention
from trans4init.kernels.positional_mlp import positional_mlp, relative_mlp_attention

FAR = 16
"""All distances from this one on share T5's last bucket in this test."""


def alibi_and_t5(heads, length, generator):
    """Return a table for i - j >= 0: ALiBi's slope (Press et al. 2022) plus T5's buckets (Raffel et al. 2020)."""
    distance = torch.arange(1 - length, length).clamp(min=0)
    exact, buckets = 4, 8
    larger = exact + (distance.clamp(min=1) / exact).log() / math.log(FAR / exact) * (buckets - exact)
    bucket = torch.where(distance < exact, distance, larger.long().clamp(max=buckets - 1))
    slopes = 2.0 ** -torch.arange(3, heads + 3)  # of the middle heads of 8
    return torch.randn(heads, buckets, generator=generator)[:, bucket] - slopes[:, None] * distance


def make_net(nets, frequencies, hidden, outputs, generator, dtype=torch.float32):
    shapes = [(nets, 2 * len(frequencies), hidden), (nets, hidden, outputs)]
    weights = [torch.randn(s, dtype=dtype, generator=generator) / math.sqrt(s[1]) for s in shapes]
    biases = [torch.zeros(nets, s[2], dtype=dtype) for s in shapes]
    return [tensor.requires_grad_() for tensor in (frequencies.to(dtype), *weights, *biases)]


@pytest.mark.parametrize(("nets", "outputs"), [(1, 4), (4, 1), (2, 2)])
def test_the_networks_outputs_are_the_heads_net_by_net(nets, outputs):
    generator = torch.Generator().manual_seed(0)
    frequencies, *layers = make_net(nets, torch.tensor([0.3, 0.7]), 5, outputs, generator)
    q, k, v = (torch.randn(2, 4, length, 8, generator=generator) for length in (5, 7, 7))
    actual = relative_mlp_attention(
        q, k, v, frequencies, layers[:2], layers[2:], features="fourier", unit=10.0, causal=True
    )
    distances = (torch.arange(5)[:, None] - torch.arange(7)).flatten() / 10
    pairs = positional_mlp(distances, frequencies, layers[:2], layers[2:], features="fourier", impl="reference")
    bias = pairs.transpose(1, 2).reshape(4, 5, 7)
    torch.testing.assert_close(actual, attention(q, k, v, bias=bias, causal=True))


def test_gradients_to_the_network_are_exact():
    generator = torch.Generator().manual_seed(0)
    net = make_net(1, torch.tensor([0.3, 0.7]), 3, 2, generator, torch.float64)
    q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, generator=generator) for _ in range(3))

    def function(frequencies, *layers):
        return relative_mlp_attention(q, k, v, frequencies, layers[:2], layers[2:], features="fourier", causal=True)

    assert torch.autograd.gradcheck(function, net)


def test_training_recovers_a_mixture_of_alibi_and_t5():
    """From attention's outputs alone; up to a constant per head, on which softmax doesn't depend."""
    heads, length = 4, 32
    generator = torch.Generator().manual_seed(0)
    truth = alibi_and_t5(heads, length, generator)
    frequencies = math.pi / length * torch.arange(1, 33)
    net = make_net(1, frequencies, 64, heads, generator)
    optimiser = torch.optim.Adam(net, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 500)
    for _ in range(500):
        q, k, v = (torch.randn(4, heads, length, 16, generator=generator) for _ in range(3))
        target = attention(q, k, v, bias=RelativeBias(truth), causal=True)
        actual = relative_mlp_attention(q, k, v, net[0], net[1:3], net[3:], features="fourier", causal=True)
        loss = (actual - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    distances = torch.arange(length).float()
    learned = positional_mlp(distances, net[0], net[1:3], net[3:], features="fourier")[0].T
    error = learned - truth[:, length - 1 :]
    error = error - error[:, : length // 2].mean(dim=1, keepdim=True)
    spread = truth[:, length - 1 :].std(dim=1)
    # Few queries see far keys, and where ALiBi is steep their weight is small: only near distances are learned well.
    assert error[:, : length // 2].abs().max() < 0.15
    assert (error.square().mean(dim=1).sqrt() / spread).max() < 0.25


def test_what_does_not_fit_is_refused():
    net = make_net(1, torch.tensor([0.3]), 3, 2, torch.Generator())
    q = torch.zeros(1, 3, 4, 8)
    with pytest.raises(ValueError, match="the networks have 2 outputs, and there are 3 query heads"):
        relative_mlp_attention(q, q, q, net[0], net[1:3], net[3:], features="fourier")
    with pytest.raises(ValueError, match="a second one can't be given"):
        relative_mlp_attention(q, q, q, net[0], net[1:3], net[3:], features="fourier", bias=q)
