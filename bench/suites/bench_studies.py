"""Measure runs per hour: of a study's command, and of runs and fits one at a time or as one tensor program."""

import string
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.device import choose_device, threads
from trans4init.ablations.fit import Fitted, Wanted, fit, fit_many
from trans4init.ablations.functions import get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks import TASKS, Batch
from trans4init.ablations.training.array import ArrayStep, Member
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.transformer import Transformer
from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite, scratch_folder
from trans4init.bench.suites.lower_bounds import training_lower_bound
from trans4init.bench.suites.processes import run_python

STUDY, TRAINING, FITS = "a study", "training runs", "fits"
_COMMAND = "import sys; from trans4init.ablations.cli import main\nif __name__ == '__main__': main(sys.argv[1:])"
_STUDY = string.Template("""
name = "timed"
question = "How many runs an hour?"
function = "sinusoidal"
arms = ["analytic", "none", "free-table"]

[task]
source = "text.txt"

[model]
layers = $layers
width = $width
heads = 4
context = $context

[training]
steps = $steps
batch = $batch

[evaluation]
seeds = $seeds
margin = 0.05

[throughput]
rounds = 2
""")
_ARMS = 3
_MODEL = TransformerConfig(layers=2, width=64, heads=4, context=64)
_BATCH = 12
_SIZES = {(2, 32): (16, 16), (2, 64): (16, 16), (1, 32): (32, 16), (3, 64): (32, 16), (4, 128): (128, 16)}
"""Context and batch by the layers and the width of models that are trained: tiny ones; those of the shipped studies
(`first-look`, and `positional-text` with one layer more); and a character language model's."""
_TOGETHER = 8
"""How many runs or fits are measured together, each from another seed."""
_FUNCTION, _NET, _SIZE = "gelu", "mlp-gelu", {"hidden": (16,)}
_TOLERANCE = {TRAINING: 1e-5, FITS: 0.05}
"""Largest relative difference of losses from those of single runs, and of errors from those of single fits: float32
sums are taken in another order, and ten steps, or a hundred, enlarge the difference."""


def _cases() -> list[Case]:
    return [
        _study(seeds=1, steps=20, rounds=1, quick=True),
        *(_training(layers, width, steps=10 if width < 128 else 3) for layers, width in _SIZES),
        _fits(steps=100),
        _study(seeds=4, steps=100, rounds=3, quick=False),
    ]


def _study(*, seeds: int, steps: int, rounds: int, quick: bool) -> Case:
    runs = _ARMS * seeds
    step = training_lower_bound(_MODEL, _MODEL.vocabulary, _BATCH)
    return Case(
        STUDY,
        f"{runs} runs of {steps} steps, decoder {_MODEL.layers}×{_MODEL.width}, its report included",
        {"runs": runs, "seeds": seeds, "steps": steps},
        flop=runs * steps * step.flop,
        bytes=runs * steps * step.bytes,
        runs=runs,
        quick=quick,
        rounds=rounds,
        cold=True,
    )


def _training(layers: int, width: int, *, steps: int) -> Case:
    context, batch = _SIZES[layers, width]
    model = _model(layers, width)
    step = training_lower_bound(model, model.vocabulary, batch)
    return Case(
        TRAINING,
        f"{_TOGETHER} of {steps} steps, decoder {layers}×{width}, {batch}×{context} tokens",
        {"runs": _TOGETHER, "steps": steps, "layers": layers, "width": width},
        flop=_TOGETHER * steps * step.flop,
        bytes=_TOGETHER * steps * step.bytes,
        runs=_TOGETHER,
        quick=width == 32,
        rounds=6,
    )


def _model(layers: int, width: int) -> TransformerConfig:
    return TransformerConfig(layers=layers, width=width, heads=4, context=_SIZES[layers, width][0])


def _fits(*, steps: int) -> Case:
    function = get_function(_FUNCTION)
    net, points = build_net(_NET, function.domain, 1, **_SIZE), len(function.points(function.domain))
    return Case(
        FITS,
        f"{_TOGETHER} of {steps} steps, {_FUNCTION} by {_NET} {_SIZE['hidden'][0]}, their errors included",
        {"runs": _TOGETHER, "steps": steps},
        flop=3.0 * _TOGETHER * steps * points * net.flops(),
        bytes=4.0 * _TOGETHER * steps * (2 * points + 6 * net.parameter_count()),
        runs=_TOGETHER,
        rounds=6,
    )


@dataclass(frozen=True)
class _Study:
    folder: Path
    runs: int


@dataclass(frozen=True)
class _Training:
    """Models, each from its own seed, and the batches of each."""

    config: TrainingConfig
    batches: list[list[Batch]]
    """[steps][runs]"""
    task: Any
    model: TransformerConfig

    def models(self) -> list[Transformer]:
        return [Transformer(self.model, seed=seed).to(choose_device()) for seed in range(_TOGETHER)]


@dataclass(frozen=True)
class _Fits:
    steps: int


def _inputs(case: Case) -> _Study | _Training | _Fits:
    if case.operator == STUDY:
        return _study_folder(case)
    if case.operator == FITS:
        return _Fits(case.shape["steps"])
    model = _model(case.shape["layers"], case.shape["width"])
    batch = _SIZES[model.layers, model.width][1]
    task = TASKS.get("text")(TextConfig(), model.context, choose_device())
    streams = [task.batches(seed, batch, "evaluate") for seed in range(_TOGETHER)]
    batches = [[next(stream) for stream in streams] for _ in range(case.shape["steps"])]
    return _Training(TrainingConfig(steps=10**6, batch=batch), batches, task, model)


def _study_folder(case: Case) -> _Study:
    folder = scratch_folder()
    (folder / "text.txt").write_bytes(b"".join(bytes([32 + i * i % 91]) for i in range(40_000)))
    sizes = {"layers": _MODEL.layers, "width": _MODEL.width, "context": _MODEL.context, "batch": _BATCH}
    (folder / "timed.toml").write_text(_STUDY.substitute(case.shape, **sizes))
    (folder / "command.py").write_text(_COMMAND)
    return _Study(folder, case.shape["runs"])


def _check(inputs: _Study | _Training | _Fits, implementation: str, result: Any) -> str:
    if isinstance(inputs, _Study):
        done, out = result
        runs = len(list(out.rglob("evaluate-*.parquet")))
        if done.returncode or runs != inputs.runs:
            said = done.stderr.strip() or done.stdout.strip()
            return f"exit code {done.returncode}, {runs} of {inputs.runs} runs: {said[-200:]}"
        return ""
    if isinstance(inputs, _Training):
        return _wrong(TRAINING, result, _one_training(inputs)())
    return _wrong(FITS, _errors(result), _errors(_one_fit(inputs)()))


def _wrong(operator: str, result: Tensor, expected: Tensor) -> str:
    if result.shape != expected.shape:
        return f"{tuple(result.shape)} values, not {tuple(expected.shape)}"
    error = ((result - expected).abs() / expected.abs()).max().item()
    allowed = _TOLERANCE[operator]
    return "" if error <= allowed else f"differs from single runs by {error:.1e}, at most {allowed:g} allowed"


def _errors(fits: list[Fitted]) -> Tensor:
    return torch.tensor([fitted.fidelity.regions[0].rms_error for fitted in fits])


SUITE = Suite("studies", _cases, _inputs, _check, baseline="one at a time", counts_memory=False)


def _one_training(inputs: _Training) -> Call:
    steps = [TrainingStep(model, inputs.task, inputs.config) for model in inputs.models()]

    def call() -> Tensor:
        with threads(1):  # as the runs of a study have
            runs = [[step(row[run]) for row in inputs.batches] for run, step in enumerate(steps)]
        return torch.stack([torch.stack(losses) for losses in runs])

    return call


def _training_array(inputs: _Training) -> Call:
    members = [Member(model, inputs.config, None, seed, inputs.task) for seed, model in enumerate(inputs.models())]
    array = ArrayStep(members)

    def call() -> Tensor:
        with threads(1):
            return torch.stack([array(row) for row in inputs.batches], dim=1)

    return call


def _one_fit(inputs: _Fits) -> Call:
    return lambda: [fit(_FUNCTION, _NET, seed=seed, size=_SIZE, steps=inputs.steps) for seed in range(_TOGETHER)]


def _fit_array(inputs: _Fits) -> Call:
    wanted = [Wanted(_FUNCTION, _NET, _SIZE, seed=seed) for seed in range(_TOGETHER)]

    def call() -> list[Fitted]:
        results = dict(fit_many(wanted, steps=inputs.steps))
        return [result for _, result in sorted(results.items()) if isinstance(result, Fitted)]

    return call


def _command(inputs: _Study, *options: str) -> Call:
    words = ["command.py", "run", "timed.toml", *options, "--out"]

    def call() -> tuple[subprocess.CompletedProcess[str], Path]:
        out = scratch_folder()
        return run_python([*words, str(out)], inputs.folder), out

    return call


def _inline(inputs: _Study) -> Call:
    return _command(inputs, "--executor", "inline", "--no-arrays")


def _processes(inputs: _Study) -> Call:
    return _command(inputs, "--no-arrays")


_WAYS: dict[str, dict[type, Callable[[Any], Call]]] = {
    "one at a time": {
        _Study: lambda inputs: _command(inputs, "--executor", "inline", "--no-arrays"),
        _Training: _one_training,
        _Fits: _one_fit,
    },
    "a process each": {_Study: lambda inputs: _command(inputs, "--no-arrays")},
    "trial arrays": {_Study: _command, _Training: _training_array, _Fits: _fit_array},
}
_OPERATORS = {_Study: STUDY, _Training: TRAINING, _Fits: FITS}


def _declare(name: str, ways: dict[type, Callable[[Any], Call]]) -> None:
    operators = [_OPERATORS[kind] for kind in ways]
    SUITE.implementation(name, operators=operators)(lambda inputs: ways[type(inputs)](inputs))


for _name, _ways in _WAYS.items():
    _declare(_name, _ways)
