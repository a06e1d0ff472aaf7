"""Measure what each arm costs in training: forward, backward and optimiser step of a small language model.

Only the last layer of the nets is fitted: their cost doesn't depend on their errors, and placing kinks needs scipy.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.device import choose_device
from trans4init.ablations.fit import Fitted
from trans4init.ablations.fit.fidelity import measure
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm, list_arms
from trans4init.ablations.slots.contents import NetContent
from trans4init.ablations.slots.slot import slots_named
from trans4init.ablations.tasks import TASKS, Batch, Task
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer.widened import widened
from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, MissingError, Suite
from trans4init.bench.suites.lower_bounds import training_lower_bound

_BATCH = 12
_NETS = {"sinusoidal": "fourier-mlp", "gelu": "mlp-relu", "layernorm-rsqrt": "mlp-relu", "softmax-exp": "mlp-relu"}
"""The functions, and the net that stands in for each."""
_TOLERANCE = 1e-6
"""Largest relative error of a float32 loss: a right step is off by 1e-7, one that misses a slot's update by 4e-6."""


@dataclass(frozen=True)
class _Inputs:
    function: str
    config: TransformerConfig
    fitted: Fitted
    task: Task
    batch: Batch


def _config(function: str) -> TransformerConfig:
    return TransformerConfig.preset("nano", **{get_function(function).slot: function})


def _cases() -> list[Case]:
    config = _config("sinusoidal")
    least = training_lower_bound(config, config.vocabulary, _BATCH)
    return [
        Case(
            name,
            f"{config}, batch {_BATCH}",
            {"batch": _BATCH},
            flop=least.flop,
            bytes=least.bytes,
            tokens=_BATCH * config.context,
            quick=name == "sinusoidal",
            counts_prepared=True,  # the model and its optimiser's state
        )
        for name in _NETS
    ]


def _inputs(case: Case) -> _Inputs:
    config = _config(case.operator)
    task = TASKS.get("text")(TextConfig(), config.context, choose_device())
    batch = next(task.batches(0, _BATCH, "evaluate"))
    return _Inputs(case.operator, config, _fitted(case.operator, config), task, batch)


def _fitted(name: str, config: TransformerConfig) -> Fitted:
    function = get_function(name)
    shape = function.shape_in(config.shapes())
    domain = Domain(0, config.context - 1, integer=True) if function.domain.integer else function.domain
    size = {"hidden": (15,)} if _NETS[name] == "mlp-relu" else {}
    net = build_net(_NETS[name], domain, function.outputs(**shape), **size)
    points = function.points(domain, **shape)
    rows = function.as_rows(function.analytic(points, **shape))
    net.solve_output(points, rows.log() if function.log_values else rows)
    fidelity = measure(NetContent(function, shape, net), domain, density=None, seconds=0.0)
    return Fitted(function, shape, net, 0, fidelity)


def _check(inputs: _Inputs, arm: str, result: tuple[Tensor, int]) -> str:
    """Compare with as many steps of the same model in float64: after an update the loss tells of the gradients too."""
    loss, steps = result
    step = _step(arm, inputs, torch.float64)
    for _ in range(steps):
        expected = step(inputs.batch).item()
    error = abs(loss.item() - expected) / expected
    return "" if error <= _TOLERANCE else f"relative error of the loss {error:.1e}, at most {_TOLERANCE:.0e} allowed"


SUITE = Suite("training-step", _cases, _inputs, _check, baseline=REFERENCE_ARM)


def _step(arm: str, inputs: _Inputs, dtype: torch.dtype) -> TrainingStep:
    function = get_function(inputs.function)
    if arm not in function.arms:
        raise MissingError(f"makes no sense for {inputs.function}")
    moves: tuple[str, ...] = ()
    model = Transformer(inputs.config)
    if get_arm(arm).widens:
        nets = len(slots_named(model, function.slot))
        model = widened(inputs.config, nets * inputs.fitted.net.parameter_count()).to(choose_device())
    else:
        net = copy.deepcopy(inputs.fitted) if get_arm(arm).uses_net else None
        moves = apply_arm(model.to(choose_device()), function.slot, arm, net).moves
    return TrainingStep(model.to(dtype), inputs.task, TrainingConfig(steps=10**6, batch=_BATCH), moves)


def _prepare(arm: str, inputs: _Inputs) -> Call:
    step = _step(arm, inputs, torch.float32)

    def call() -> tuple[Tensor, int]:
        loss = step(inputs.batch)
        step.model.zero_grad(set_to_none=True)  # so that the next call allocates them, and its memory counts them
        if loss.is_cuda:
            torch.cuda.synchronize()
        return loss, step.steps

    return call


def _declare(arm: str) -> None:
    SUITE.implementation(arm, colour=get_arm(arm).colour)(lambda inputs: _prepare(arm, inputs))


for _arm in list_arms():
    _declare(_arm)
