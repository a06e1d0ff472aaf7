"""Our training loop against a plain nanoGPT-style one of the same model: windows drawn, both passes, clip, AdamW."""

import pytest

pytest.importorskip("pydantic", reason="the Transformer's sizes need pydantic")

import torch
from torch import Tensor

from trans4init.ablations.device import choose_device
from trans4init.ablations.recipe import Recipe, load_recipe
from trans4init.ablations.trained import build
from trans4init.ablations.training import TrainingStep
from trans4init.bench.ledger import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite
from trans4init.bench.yardstick import BATCH, POSITIONS, SIZES, YardstickStep


def _cases() -> list[Case]:
    words = f"4×128, context 64, batch {BATCH}"
    return [Case("training loop", words, tokens=BATCH * SIZES["context"], quick=True)]


def _inputs(case: Case) -> Recipe:
    changes = {f"model.{name}": value for name, value in SIZES.items()} | {"model.position": POSITIONS}
    return load_recipe("text", changes | {"training.batch": BATCH})


def _check(recipe: Recipe, implementation: str, loss: Tensor) -> str:
    found = loss.item()
    return "" if 0 < found < 10 else f"a loss of {found}"


SUITE = Suite("training-loop", _cases, _inputs, _check, baseline="nanoGPT-style", rounds=40)


@SUITE.implementation("nanoGPT-style")
def _plain(recipe: Recipe) -> Call:
    task, _ = build(recipe)
    text = task.collate(("evaluate", torch.arange(0, 400_000, SIZES["context"])[:, None])).inputs.flatten()
    return YardstickStep(task.model_fields["vocabulary"], text.to(choose_device()))


@SUITE.implementation("trans4init")
def _ours(recipe: Recipe) -> Call:
    task, model = build(recipe)
    step = TrainingStep(model, task, recipe.training)
    batches = task.batches(0, BATCH, "evaluate")
    return lambda: step(next(batches))
