"""What an arm costs in training: forward, backward and optimiser step of a small language model, arm by arm.

The nets are fitted in one step: what they cost does not depend on how good they are.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("pydantic", reason="the Transformer's sizes need pydantic")

import torch
from torch import Tensor

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.device import choose_device
from trans4init.ablations.fit import Fitted, fit
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.tasks import TASKS, Batch, Task
from trans4init.ablations.training import TrainingStep
from trans4init.ablations.training_config import TrainingConfig
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.bench.floors import training_floor
from trans4init.bench.ledger import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, MissingError, Suite
from trans4init.reports.vocabulary import ARMS, REFERENCE_ARM, arm_named

_BATCH = 12
_NETS = {"sinusoidal": "fourier-mlp", "gelu": "mlp-relu", "layernorm-rsqrt": "mlp-relu", "softmax-exp": "mlp-relu"}
"""Function, and the net that stands in for it."""


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
    floor = training_floor(config, config.vocabulary, _BATCH)
    return [
        Case(
            name,
            f"{config}, batch {_BATCH}",
            {"batch": _BATCH},
            flop=floor.flop,
            bytes=floor.bytes,
            tokens=_BATCH * config.context,
            quick=name == "sinusoidal",
            counts_prepared=True,  # the model, and its optimiser's state
        )
        for name in _NETS
    ]


def _inputs(case: Case) -> _Inputs:
    function, config = get_function(case.operator), _config(case.operator)
    sizes = config.shapes()
    shape: dict[str, Any] = {name: sizes[name] for name in function.default_shape}
    domain = Domain(0, config.context - 1, integer=True) if function.domain.integer else None
    size: dict[str, Any] = {"hidden": (15,)} if _NETS[case.operator] == "mlp-relu" else {}
    fitted = fit(case.operator, _NETS[case.operator], domain=domain, size=size, steps=1, budget=0, **shape)
    task = TASKS.get("text")(TextConfig(), config.context, choose_device())
    return _Inputs(case.operator, config, fitted, task, next(task.batches(0, _BATCH, "evaluate")))


def _check(inputs: _Inputs, implementation: str, loss: Tensor) -> str:
    expected = math.log(inputs.config.vocabulary)  # a model that knows nothing
    found = loss.item()
    return "" if 0 < found < 2 * expected else f"a loss of {found}, and a model that knows nothing has {expected:.2f}"


SUITE = Suite("training-step", _cases, _inputs, _check, baseline=REFERENCE_ARM)


def _prepare(arm: str, inputs: _Inputs) -> Call:
    function = get_function(inputs.function)
    if arm not in function.arms:
        raise MissingError(f"makes no sense for {inputs.function}")
    model = Transformer(inputs.config).to(choose_device())
    net = inputs.fitted if arm_named(arm).uses_net else None
    record = apply_arm(model, function.slot, arm, net)
    step = TrainingStep(model, inputs.task, TrainingConfig(steps=10**6, batch=_BATCH), record.moves)

    def call() -> Tensor:
        loss = step(inputs.batch)
        model.zero_grad(set_to_none=True)  # as before the call, so that the next one's memory has its gradients in it
        if loss.is_cuda:
            torch.cuda.synchronize()
        return loss

    return call


def _declare(arm: str) -> None:
    SUITE.implementation(arm)(lambda inputs: _prepare(arm, inputs))


for _arm in ARMS:
    _declare(_arm.name)
