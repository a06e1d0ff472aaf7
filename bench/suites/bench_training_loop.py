"""The project's training loop beside a plain nanoGPT-style one: draw windows, forward, backward, clip, AdamW."""

import torch
from torch import Tensor

from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.device import choose_device
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks import TASKS, Task, model_config
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.transformer import Transformer
from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite
from trans4init.bench.suites.lower_bounds import training_lower_bound
from trans4init.bench.suites.nano_gpt import BATCH, POSITIONS, SIZES, YardstickStep

_VOCABULARY = 256
"""The tokens are bytes."""
MODEL = ModelSize(**SIZES, position=POSITIONS)
TRAINING = TrainingConfig(steps=2000, batch=BATCH)
"""Settings of recipe `text` with the sizes of the nanoGPT-style loop."""


def _cases() -> list[Case]:
    least = training_lower_bound(MODEL, _VOCABULARY, BATCH)
    return [
        Case(
            "training loop",
            f"4×128, context 64, batch {BATCH}",
            flop=least.flop,
            bytes=least.bytes,
            tokens=BATCH * SIZES["context"],
            quick=True,
            counts_prepared=True,  # the model and its optimiser's state
        )
    ]


def _inputs(case: Case) -> Task:
    return TASKS.get("text")(TextConfig(), MODEL.context, choose_device())


def _check(task: Task, implementation: str, loss: Tensor) -> str:
    value = loss.item()
    return "" if 0 < value < 10 else f"a loss of {value}"


SUITE = Suite("training-loop", _cases, _inputs, _check, baseline="nanoGPT-style")


@SUITE.implementation("nanoGPT-style")
def _plain(task: Task) -> Call:
    windows = torch.arange(0, 400_000, SIZES["context"])[:, None]
    text = task.collate(("evaluate", windows)).inputs.flatten()
    return YardstickStep(_VOCABULARY, text.to(choose_device()))


@SUITE.implementation("trans4init")
def _ours(task: Task) -> Call:
    model = Transformer(model_config(MODEL, task)).to(choose_device())
    step = TrainingStep(model, task, TRAINING)
    batches = task.batches(0, BATCH, "evaluate")
    return lambda: step(next(batches))
