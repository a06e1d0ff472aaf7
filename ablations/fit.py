"""Fit: train a net on its function alone, measure how well it stands in for it, keep it."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from trans4init.ablations.checkpoint import read_checkpoint, write_checkpoint
from trans4init.ablations.errors import InputError
from trans4init.ablations.fidelity import Fidelity, RegionErrors, measure
from trans4init.ablations.functions import Domain, Function, get_function
from trans4init.ablations.nets import Net, build_net, net_from_card
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots import Content, Folded, FoldedKnots, NetContent
from trans4init.ablations.threads import threads

__all__ = ["Fidelity", "FitDivergedError", "Fitted", "OnStep", "RegionErrors", "fit", "load_fitted"]

DEFAULT_STEPS = 3000
DEFAULT_LEARNING_RATE = 1e-2
_CHECKS = 30
"""Times that the loss of a fit is looked at and told."""
_REPRESENTATIVES = 2048
"""Inputs that stand for a density."""

OnStep = Callable[[int, float], None]


class FitDivergedError(Exception):
    """The loss of a fit stopped being a number."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A net that was fitted to a function."""

    function: Function
    shape: dict[str, int]
    net: Net
    seed: int
    fidelity: Fidelity

    def __call__(self, inputs: Tensor) -> Tensor:
        """The net's values for inputs [...], in float32 or float64 as they are; integers count as float32."""
        exact = inputs if inputs.is_floating_point() else inputs.float()
        return _content(self.function, self.shape, self.net).value(exact)

    def fold(self) -> Content:
        """The net as a table over its finite domain, or as the knots that it is; raises InputError otherwise."""
        content = _content(self.function, self.shape, self.net)
        if self.net.domain.integer:
            return Folded(content, self.net.domain)
        if FoldedKnots.foldable(content):
            return FoldedKnots(content)
        raise InputError(
            f"{self.net.name} on the reals {self.net.domain} doesn't fold: it is no table and no polyline."
        )

    def save(self, folder: Path | str) -> Path:
        """Write `net.safetensors` and `card.json` into `folder`."""
        card = {
            "function": self.function.located,
            "shape": self.shape,
            "seed": self.seed,
            **self.net.card(),
            "fidelity": asdict(self.fidelity),
        }
        return write_checkpoint(Path(folder), card, safetensors.torch.save(self.net.state_dict()))


def fit(
    function: str,
    net: str,
    *,
    seed: int = 0,
    domain: Domain | None = None,
    density: Tensor | None = None,
    size: dict[str, Any] | None = None,
    steps: int = DEFAULT_STEPS,
    budget: int | None = None,
    target_error: float = 0.0,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    on_step: OnStep | None = None,
    **shape: int,
) -> Fitted:
    """Fit the net called `net` to the function called `function` on `domain`, by default the function's own.

    A net that can be placed from the data starts there, and is done where nothing can be better. Otherwise Adam on
    the mean square error over the whole domain, its rate falling to 0 on a cosine; then the exact least-squares
    optimum of the last layer, and L-BFGS on everything, in float64. A function whose values matter by their ratios is
    fitted in their logarithm. The same seed gives the same bits on the same machine.

    density: inputs [N] that a slot was really given; the error counts where they are, not evenly. size: the net's
    size, such as `{"hidden": (64,)}`. steps: of Adam. budget: evaluations of L-BFGS, a tenth of the steps unless
    given. target_error: stop training where the largest error is no larger. shape: the function's, such as
    `width=128`. on_step: called now and then with Adam's step and the loss.
    Raises InputError for names, shapes and sizes there aren't; FitDivergedError where the loss is not a number.
    """
    target = get_function(function)
    shape = {**target.default_shape, **shape}
    domain = target.domain if domain is None else domain
    if not target.fittable():
        if target.approximates:
            raise InputError(
                f"{function} stands in for {target.approximates} itself and isn't fitted; "
                f"its errors are measured by: trans4init fit {target.approximates} --all"
            )
        raise InputError(f"{function} can't be fitted: {target.tails or 'it has no closed form'}.")
    if steps < 1:
        raise InputError(f"a fit takes at least 1 step, and {steps} was given.")
    if density is not None and (domain.integer or target.takes != "numbers" or len(density) < 2):
        raise InputError("a density is at least two inputs of a function on the reals; positions are all equal.")
    learner = build_net(net, domain, target.outputs(**shape), **(size or {}))
    NetContent(target, shape, learner)  # refuses a net that doesn't fit the function
    learner.initialise(keyed_generator(seed, "fit", function, net))
    start = time.perf_counter()
    with threads(1):  # sums are added up in the same order everywhere
        placed = learner.place(*_pairs(target, shape, target.points(domain, **shape)))
        points = target.points(domain, **shape) if density is None else _representative(density)
        if placed != "best" or density is not None:
            schedule = _Schedule(
                0 if placed == "start" else steps, steps // 10 if budget is None else budget, learning_rate
            )
            _train(learner, *_pairs(target, shape, points), schedule, target_error, on_step)
        seconds = time.perf_counter() - start
        fidelity = measure(_content(target, shape, learner), domain, density, seconds)
    return Fitted(target, shape, learner, seed, fidelity)


def load_fitted(folder: Path | str) -> Fitted:
    """The net that `Fitted.save` wrote; raises InputError where there is none."""
    card, weights = read_checkpoint(Path(folder))
    try:
        net = net_from_card(card)
        net.load_state_dict(safetensors.torch.load(weights))
        fidelity = dict(card["fidelity"])
        fidelity["regions"] = tuple(RegionErrors(**errors) for errors in fidelity["regions"])
        record = Fidelity(**fidelity)
    except (ValueError, TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder} holds no fitted net: {error}") from error
    return Fitted(get_function(card["function"]), card["shape"], net, card["seed"], record)


@dataclass(frozen=True)
class _Schedule:
    steps: int
    budget: int
    learning_rate: float


def _pairs(function: Function, shape: dict[str, int], points: Tensor) -> tuple[Tensor, Tensor]:
    """Points [N], and what a net should give there, [N, outputs], float64."""
    rows = function.as_rows(function.analytic(points, **shape))
    return points, rows.log() if function.log_values else rows


def _representative(density: Tensor) -> Tensor:
    """At most _REPRESENTATIVES quantiles of the inputs, ascending, float64."""
    ordered = density.detach().double().flatten().sort().values
    places = torch.linspace(0, len(ordered) - 1, min(len(ordered), _REPRESENTATIVES)).round().long()
    return ordered[places]


def _train(
    net: Net,
    points: Tensor,
    targets: Tensor,
    schedule: _Schedule,
    target_error: float,
    on_step: OnStep | None,
) -> None:
    """Adam, the last layer solved, L-BFGS; stopped early where the largest error is at most `target_error`."""
    if schedule.steps and _adam(net, points.float(), targets.float(), schedule, target_error, on_step):
        return
    net.solve_output(points, targets)
    if schedule.budget and not _reached(net(points), targets, target_error):
        _refine(net, points, targets, schedule.budget)


def _adam(
    net: Net, inputs: Tensor, values: Tensor, schedule: _Schedule, target_error: float, on_step: OnStep | None
) -> bool:
    """Whether the target was reached."""
    steps = schedule.steps
    optimiser = torch.optim.Adam(net.parameters(), lr=schedule.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    check_every = max(1, steps // _CHECKS)
    for step in range(steps):
        result = net(inputs)
        loss = (result - values).square().mean()
        if step % check_every == 0 or step == steps - 1:
            _report(step, loss.item(), on_step)
            if _reached(result, values, target_error):
                return True
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cosine.step()
    return False


def _reached(result: Tensor, targets: Tensor, target_error: float) -> bool:
    return target_error > 0 and (result.detach() - targets).abs().max().item() <= target_error


def _refine(net: Net, points: Tensor, targets: Tensor, budget: int) -> None:
    """L-BFGS with a strong Wolfe line search; what it makes worse is undone."""
    kept = {name: value.clone() for name, value in net.state_dict().items()}

    def loss() -> Tensor:
        error: Tensor = net(points) - targets
        return error.square().mean()

    before = loss().item()
    net.double()
    scale = targets.square().mean().clamp_min(1e-300)
    optimiser = torch.optim.LBFGS(
        net.parameters(),
        max_iter=budget,
        max_eval=budget,
        history_size=50,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss() / scale
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    net.float()
    net.zero_grad()
    if not loss().item() < before:
        net.load_state_dict(kept)


def _report(step: int, loss: float, on_step: OnStep | None) -> None:
    if not math.isfinite(loss):
        raise FitDivergedError(f"the loss of the fit is {loss} at step {step}")
    if on_step is not None:
        on_step(step, loss)


def _content(function: Function, shape: dict[str, int], net: Net) -> NetContent:
    return NetContent(function, shape, net)
