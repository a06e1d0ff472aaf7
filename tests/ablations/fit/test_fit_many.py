"""Many fits as one tensor program: each gives the same as by itself."""

import time

import pytest
import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import FitDivergedError, Wanted, fit, fit_many
from trans4init.ablations.fit import jobs as module
from trans4init.ablations.fit.optimise import Schedule, adam, refine
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets import build_net

REALS, POSITIONS = Domain(-4, 4, integer=False), Domain(0, 31, integer=True)
ALIKE = [
    ("mlp-gelu", [{"hidden": (3,)}, {"hidden": (8,)}, {"hidden": (5,)}]),
    ("mlp-relu", [{"hidden": (3, 4)}, {"hidden": (8, 2)}]),
    ("mlp", [{"hidden": (4, 4, 4, 4)}, {"hidden": (4, 4, 4, 4)}]),
    ("siren", [{"hidden": (6,)}, {"hidden": (9,)}]),
    ("fourier-mlp", [{"hidden": (7,), "frequencies": 3}, {"hidden": (4,), "frequencies": 3}]),
    ("fourier-mlp", [{"hidden": (k,), "frequencies": 3, "fixed": True} for k in (4, 6)]),
    ("fourier", [{"frequencies": 5}, {"frequencies": 5}]),
    ("rational", [{}, {}]),
]


@pytest.mark.parametrize("domain", [REALS, POSITIONS], ids=str)
@pytest.mark.parametrize(("name", "sizes"), ALIKE)
def test_each_of_many_nets_is_trained_as_if_it_were_alone(name, sizes, domain):
    """Compares every parameter after 40 steps of Adam in float64, so that rounding doesn't matter."""
    points = domain.points(64)
    targets = [torch.stack([(points / (5 + k)).sin(), points / 31], dim=1) for k in range(len(sizes))]

    def nets():
        made = [build_net(name, domain, 2, **size).double() for size in sizes]
        for seed, net in enumerate(made):
            net.initialise(torch.Generator().manual_seed(seed))
        return made

    schedule = Schedule(steps=40, budget=0, learning_rate=1e-2)
    together, alone = nets(), nets()
    assert len({net.alike() for net in together}) == 1
    assert adam(together, points, targets, schedule) == [False] * len(sizes)
    for net, values in zip(alone, targets, strict=True):
        torchs_adam(net, points, values, schedule)
    for one, other in zip(together, alone, strict=True):
        for (key, value), expected in zip(one.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-8, msg=key)


def torchs_adam(net, points, values, schedule):
    """Train one net by Adam in the usual loop."""
    optimiser = torch.optim.Adam(net.parameters(), lr=schedule.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.steps)
    for _ in range(schedule.steps):
        optimiser.zero_grad()
        (net(points) - values).square().mean().backward()
        optimiser.step()
        cosine.step()


def test_many_fits_are_the_single_ones():
    """Seeds, widths and functions are fitted together; nets that aren't alike, or are set from data, are not."""
    wanted = [
        Wanted("gelu", "mlp-gelu", {"hidden": (8,)}),
        Wanted("gelu", "mlp-gelu", {"hidden": (4,)}, seed=3),
        Wanted("tanh", "mlp-gelu", {"hidden": (6,)}),
        Wanted("silu", "mlp-gelu", {"hidden": (6,)}),
        Wanted("gelu", "spline", {"intervals": 8}),
        Wanted("alibi", "siren", {"hidden": (4,)}, domain=POSITIONS, shape={"heads": 2}),
    ]
    found = dict(fit_many(wanted, steps=200, budget=0))
    assert set(found) == set(range(len(wanted)))
    for index, one in enumerate(wanted):
        single = fit(
            one.function, one.net, size=one.size, seed=one.seed, domain=one.domain, steps=200, budget=0, **one.shape
        )
        assert (found[index].net.description(), found[index].seed) == (single.net.description(), one.seed)
        for mine, theirs in zip(found[index].fidelity.regions, single.fidelity.regions, strict=True):
            assert mine.rms_error == pytest.approx(theirs.rms_error, rel=0.02), one


def test_alike_fits_are_one_program(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "adam", lambda nets, *rest: calls.append(len(nets)) or adam(nets, *rest))
    wanted = [Wanted("gelu", "siren", {"hidden": (4,)}, seed) for seed in range(18)]
    assert len(list(fit_many(wanted, steps=2, budget=0))) == 18
    assert calls == [16, 2]


def test_one_that_reached_its_target_keeps_what_it_had():
    """A net that is right at the start is not moved while another is trained."""
    points = REALS.points(64)
    nets = [build_net("siren", REALS, 1, hidden=(4,)) for _ in range(2)]
    nets[0].zero_output()
    kept = {name: value.clone() for name, value in nets[0].state_dict().items()}
    targets = [torch.zeros(64, 1, dtype=torch.float64), points[:, None].sin()]
    schedule = Schedule(steps=60, budget=0, learning_rate=1e-2, target_error=1e-6)
    assert adam(nets, points.float(), targets, schedule) == [True, False]
    assert all(torch.equal(kept[name], value) for name, value in nets[0].state_dict().items())


def test_one_that_diverges_does_not_take_the_others_with_it(monkeypatch):
    function = get_function("tanh")
    monkeypatch.setattr(type(function), "analytic", lambda self, x, **_: x / 0)
    wanted = [Wanted(name, "siren", {"hidden": (4,)}) for name in ("gelu", "tanh")]
    found = dict(fit_many(wanted, steps=30, budget=0))
    assert isinstance(found[1], FitDivergedError)
    alone = fit("gelu", "siren", size={"hidden": (4,)}, steps=30, budget=0)
    assert found[0].fidelity.regions[0].rms_error == pytest.approx(alone.fidelity.regions[0].rms_error, rel=0.02)


def test_seconds_cut_a_fit_short_and_still_end_it_well():
    start = time.perf_counter()
    fitted = fit("gelu", "mlp-gelu", size={"hidden": (8,)}, steps=10**9, budget=10**6, seconds=1.0)
    assert fitted.fidelity.regions[0].rms_error < 0.1
    assert 0.8 <= fitted.fidelity.fit_seconds <= time.perf_counter() - start


def test_refinement_alone_has_the_seconds_of_its_schedule():
    """The seconds count from the call, not from the zero of the clock."""
    points = REALS.points(64)
    targets = get_function("gelu").analytic(points)[:, None]
    told = []
    for seconds in (1e-9, 3600.0):
        net = build_net("mlp-gelu", REALS, 1, hidden=(4,))
        schedule = Schedule(steps=0, budget=20, learning_rate=1e-2, seconds=seconds)
        evaluations = []
        refine([net], points, [targets], schedule, lambda step, loss, steps=evaluations: steps.append(step))
        told.append(len(evaluations))
    assert told == [1, 20]


def test_what_cannot_be_fitted_is_said_before_anything_is():
    with pytest.raises(InputError, match="did you mean 'siren'"):
        next(fit_many([Wanted("gelu", "spline"), Wanted("gelu", "sirne")]))
    for wrong in ({"steps": 0}, {"budget": -1}, {"target_error": -1.0}, {"learning_rate": float("nan")}):
        with pytest.raises(InputError, match=r"takes at least|0 or more|more than 0"):
            next(fit_many([Wanted("gelu", "spline")], **wrong))
