"""Our training loop against a plain nanoGPT-style one of the same model: windows drawn, both passes, clip, AdamW."""

from dataclasses import dataclass

import pytest

pytest.importorskip("pydantic", reason="the Transformer's sizes need pydantic")

import torch
from torch import Tensor

from trans4init.ablations.device import choose_device
from trans4init.ablations.recipe import Recipe, load_recipe
from trans4init.ablations.tasks import TASKS, Task, model_config
from trans4init.ablations.training import TrainingStep
from trans4init.ablations.transformer import Transformer
from trans4init.bench.floors import training_floor
from trans4init.bench.ledger import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite
from trans4init.bench.yardstick import BATCH, POSITIONS, SIZES, YardstickStep

_VOCABULARY = 256
"""Bytes."""


@dataclass(frozen=True)
class _Inputs:
    recipe: Recipe
    task: Task


def _recipe() -> Recipe:
    changes = {f"model.{name}": value for name, value in SIZES.items()} | {"model.position": POSITIONS}
    return load_recipe("text", changes | {"training.batch": BATCH})


def _cases() -> list[Case]:
    floor = training_floor(_recipe().model, _VOCABULARY, BATCH)
    return [
        Case(
            "training loop",
            f"4×128, context 64, batch {BATCH}",
            flop=floor.flop,
            bytes=floor.bytes,
            tokens=BATCH * SIZES["context"],
            quick=True,
            counts_prepared=True,  # the model, and its optimiser's state
        )
    ]


def _inputs(case: Case) -> _Inputs:
    recipe = _recipe()
    return _Inputs(recipe, TASKS.get("text")(recipe.task, recipe.model.context, choose_device()))


def _check(inputs: _Inputs, implementation: str, loss: Tensor) -> str:
    found = loss.item()
    return "" if 0 < found < 10 else f"a loss of {found}"


SUITE = Suite("training-loop", _cases, _inputs, _check, baseline="nanoGPT-style", rounds=40)


@SUITE.implementation("nanoGPT-style")
def _plain(inputs: _Inputs) -> Call:
    windows = torch.arange(0, 400_000, SIZES["context"])[:, None]
    text = inputs.task.collate(("evaluate", windows)).inputs.flatten()
    return YardstickStep(_VOCABULARY, text.to(choose_device()))


@SUITE.implementation("trans4init")
def _ours(inputs: _Inputs) -> Call:
    model = Transformer(model_config(inputs.recipe.model, inputs.task)).to(choose_device())
    step = TrainingStep(model, inputs.task, inputs.recipe.training)
    batches = inputs.task.batches(0, BATCH, "evaluate")
    return lambda: step(next(batches))
