"""The short AdamW: torch's, step by step, and many members at once as each alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.training.adamw import AdamW


def trajectory(make, starts, gradients):
    """The parameters after every step of the optimiser that `make` makes, for gradients given from outside."""
    parameters = [start.clone().requires_grad_(True) for start in starts]
    optimiser = make(parameters)
    found = []
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimiser.step()
        found.append([parameter.detach().clone() for parameter in parameters])
    return found


def drawn(seed, shapes, steps):
    generator = torch.Generator().manual_seed(seed)
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    return starts, [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(steps)]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 100),
    st.floats(1e-4, 1e-1),
    st.floats(0, 0.9),
    st.floats(0.5, 0.999),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_it_equals_torch_step_by_step(seed, rate, beta1, beta2, decay):
    starts, gradients = drawn(seed, [(3, 4), (5,), ()], 12)
    ours = trajectory(lambda p: AdamW(p, rate, betas=(beta1, beta2), weight_decay=decay), starts, gradients)
    theirs = trajectory(
        lambda p: torch.optim.AdamW(p, rate, betas=(beta1, beta2), weight_decay=decay), starts, gradients
    )
    for one, other in zip(ours, theirs, strict=True):
        for mine, torchs in zip(one, other, strict=True):
            torch.testing.assert_close(mine, torchs, rtol=2e-6, atol=2e-7)


def test_a_parameter_without_a_gradient_waits_as_in_torch():
    starts, gradients = drawn(0, [(3,), (2,)], 6)
    gradients = [[first, None if step < 3 else second] for step, (first, second) in enumerate(gradients)]
    ours = trajectory(lambda p: AdamW(p, 1e-2), starts, gradients)
    theirs = trajectory(lambda p: torch.optim.AdamW(p, 1e-2), starts, gradients)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-7)


def test_members_move_by_their_own_rate_and_decay():
    """Three members side by side are three models trained alone."""
    starts, gradients = drawn(1, [(3, 4, 2), (3, 5)], 8)
    rates, decays = torch.tensor([1e-3, 1e-2, 1e-1]), torch.tensor([0.0, 0.1, 1.0])
    together = trajectory(lambda p: AdamW(p, rates, weight_decay=decays), starts, gradients)
    for member in range(3):
        alone = trajectory(
            lambda p, g=member: AdamW(p, rates[g].item(), weight_decay=decays[g].item()),
            [start[member] for start in starts],
            [[gradient[member] for gradient in step] for step in gradients],
        )
        for one, other in zip(together, alone, strict=True):
            for mine, its in zip(one, other, strict=True):
                torch.testing.assert_close(mine[member], its, rtol=2e-6, atol=2e-7)


def test_rates_for_another_number_of_members_are_refused():
    with pytest.raises(ValueError, match="learning_rate has 2 entries"):
        AdamW([torch.zeros(3, 4)], torch.ones(2))
