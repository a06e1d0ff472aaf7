"""L-BFGS on many problems at once: each as good as alone, and none in the way of another."""

import copy
import statistics

import pytest
import torch

from trans4init.ablations.device import threads
from trans4init.ablations.fit import Wanted
from trans4init.ablations.fit.jobs import _Job
from trans4init.ablations.fit.lbfgs import lbfgs_together
from trans4init.ablations.fit.optimise import Schedule, adam_together, tune_net, tune_together


def rosenbrock(steepness):
    """Chained, [M, P], a steepness for each: the least is 0 at 1."""

    def evaluate(points):
        points = points.detach().requires_grad_()
        head, tail = points[:, :-1], points[:, 1:]
        values = (steepness[:, None] * (tail - head**2) ** 2 + (1 - head) ** 2).sum(1)
        [gradients] = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradients, torch.zeros(len(points), dtype=torch.bool)

    return evaluate


def problems(many):
    steepness = torch.logspace(0, 2, many, dtype=torch.float64)
    start = torch.randn(many, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return steepness, start


def test_every_problem_gets_to_its_least():
    steepness, start = problems(5)
    found = lbfgs_together(rosenbrock(steepness), start, 300)
    values = rosenbrock(steepness)(found)[0]
    assert (values < 1e-18).sum() >= 4  # the chain has a second, shallow least
    assert (rosenbrock(steepness)(found)[1].abs() < 1e-7).all()


def test_a_problem_does_not_feel_the_others():
    steepness, start = problems(4)
    together = lbfgs_together(rosenbrock(steepness), start, 40)
    for index in range(4):
        one = slice(index, index + 1)
        alone = lbfgs_together(rosenbrock(steepness[one]), start[one], 40)
        torch.testing.assert_close(together[one], alone, rtol=1e-9, atol=1e-9)


def test_what_is_no_number_is_too_high_and_stays_with_its_own():
    """A logarithm's domain ends inside the first step."""
    shift = torch.tensor([[1e-3], [3.0]], dtype=torch.float64)

    def evaluate(points):
        points = points.detach().requires_grad_()
        values = (points - 2 * (points + shift).log()).sum(1)  # least at 2 − shift
        [gradients] = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradients, torch.zeros(2, dtype=torch.bool)

    found = lbfgs_together(evaluate, torch.zeros(2, 1, dtype=torch.float64), 60)
    torch.testing.assert_close(found, 2 - shift, rtol=1e-6, atol=1e-6)
    lost = lbfgs_together(evaluate, torch.tensor([[-1.0], [0.0]], dtype=torch.float64), 60)
    assert lost[0] == -1.0
    torch.testing.assert_close(lost[1:], 2 - shift[1:], rtol=1e-6, atol=1e-6)


def test_the_result_is_never_worse_than_the_start_and_one_that_is_good_enough_stays():
    steepness, start = problems(3)
    evaluate = rosenbrock(steepness)
    before = evaluate(start)[0]
    for budget in (1, 2, 5):
        assert (evaluate(lbfgs_together(evaluate, start, budget))[0] <= before).all()

    def enough(points):
        values, gradients, _ = evaluate(points)
        return values, gradients, torch.tensor([True, False, False])

    found = lbfgs_together(enough, start, 50)
    assert torch.equal(found[0], start[0])
    assert not torch.equal(found[1], start[1])


@pytest.mark.parametrize(
    ("net", "size"),
    [
        ("mlp-gelu", {"hidden": (8,)}),
        ("siren", {"hidden": (32,)}),
        ("mlp", {"hidden": (8, 8)}),
        ("fourier-mlp", {"hidden": (8,), "frequencies": 4}),
    ],
)
def test_nets_end_as_near_as_by_torchs_own_one_after_the_other(net, size):
    jobs = [_Job(Wanted(function, net, size, seed)) for function in ("gelu", "silu", "sigmoid") for seed in (0, 1)]
    jobs = [job for job in jobs if job.alike() == jobs[0].alike()]
    points, targets = jobs[0].pairs[0], [job.pairs[1] for job in jobs]
    nets, schedule = [job.net for job in jobs], Schedule(200, 150, 1e-2)
    with threads(1):
        adam_together(nets, points.float(), [values.float() for values in targets], schedule)
        alone = copy.deepcopy(nets)
        for one, values in zip(alone, targets, strict=True):
            tune_net(one, points, values, schedule)
        tune_together(nets, points, targets, schedule)

    def errors(some):
        return [(one(points) - values).square().mean().sqrt().item() for one, values in zip(some, targets, strict=True)]

    ratios = [mine / torchs for mine, torchs in zip(errors(nets), errors(alone), strict=True)]
    assert len(ratios) >= 2
    assert statistics.geometric_mean(ratios) < 1.2, ratios
    assert max(ratios) < 2.5, ratios
