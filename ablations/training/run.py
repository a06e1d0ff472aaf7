"""Run a recipe: train from the start or the last checkpoint, test the best model; and load a trained model."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from trans4init.ablations.code_policy import named_by_data
from trans4init.ablations.data.codec import Codec, codec_from_json
from trans4init.ablations.device import accelerator_name, choose_device
from trans4init.ablations.errors import InputError, shown
from trans4init.ablations.functions import get_function
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.tasks import TASKS, Task, model_config
from trans4init.ablations.training.checkpoint import (
    Progress,
    Snapshot,
    random_states,
    read_snapshot,
    restore_random_states,
    write_snapshot,
)
from trans4init.ablations.training.distributed import Team
from trans4init.ablations.training.loop import DivergedError, TrainingStep, random_numbers, train_on
from trans4init.ablations.training.recipe import Recipe
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord
from trans4init.reports.records.store import write_run

__all__ = ["BEST", "LAST", "Outcome", "Trained", "build", "load_trained", "train_recipe"]

BEST, LAST = "best.safetensors", "last.safetensors"

OnMeasured = Callable[[int, list[Measurement], float], None]
"""A function that is called after an evaluation with its step, its measurements and the seconds of training so far."""


@dataclass(frozen=True)
class Outcome:
    """Holds the results of a run."""

    progress: Progress
    tested: list[Measurement]
    """The measurements of the best model on the test split."""
    parameters: int
    record: Path | None
    """The Parquet file of the run; None in a process that doesn't lead its team."""


@dataclass(frozen=True)
class Trained:
    """Holds a model from a checkpoint, with its codec and its recipe."""

    model: Transformer
    codec: Codec | None
    recipe: Recipe


def build(recipe: Recipe) -> tuple[Task, Transformer]:
    """Return the recipe's task with its data, and its untrained model, on this machine's device."""
    device = choose_device()
    task = TASKS.get(recipe.task.name)(recipe.task, recipe.model.context, device, recipe.model.kind)
    return task, Transformer(model_config(recipe.model, task), seed=recipe.seed).to(device)


def train_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    team: Team | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    on_measured: OnMeasured | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train from the start, or from `folder`'s last checkpoint, to the end; test the best model; write a record.

    Raises InputError if the folder holds a run of another recipe, StoppedError when `stop` returns True, and
    DivergedError, after writing a record of it.
    """
    team = team or Team()
    task, model = build(recipe)
    step = TrainingStep(model, task, recipe.training, team=team)
    run = _Run(recipe, folder, task, step, on_measured)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    snapshot = read_snapshot(folder / LAST) if (folder / LAST).exists() else None
    with random_numbers(recipe.seed, team.rank):
        progress = run.resumed(snapshot) if snapshot else Progress()
        run.start(progress)
        try:
            train_on(
                step,
                progress,
                seed=recipe.seed,
                split=recipe.measured_on,
                on_progress=on_progress,
                keep=run.keep,
                stop=stop,
            )
        except DivergedError as error:
            if team.leads:
                write_run(run.diverged(error, parameters), folder / "results")
            raise
    if not team.leads:
        return Outcome(progress, [], parameters, None)
    model.load_state_dict(read_snapshot(folder / BEST).part("model"))
    tested = task.evaluate(model, "evaluate", progress.best_step, final=True)
    record = write_run(run.record(progress, tested, parameters), folder / "results")
    return Outcome(progress, tested, parameters, record)


_CLOCKS = {metrics.WALL_TIME: time.perf_counter, metrics.PROCESSOR_TIME: time.process_time}


class _Run:
    """Writes a run's checkpoints while it trains, and makes its record at the end."""

    def __init__(
        self, recipe: Recipe, folder: Path, task: Task, step: TrainingStep, on_measured: OnMeasured | None
    ) -> None:
        self.recipe, self.folder, self.task, self.step, self.on_measured = recipe, folder, task, step, on_measured

    def start(self, progress: Progress) -> None:
        """Start the clocks, after what a resumed run has used."""
        self._shown = len(progress.found)
        before = {m.metric: m.value or 0.0 for m in progress.found}
        self._began = {metric: clock() - before.get(metric, 0.0) for metric, clock in _CLOCKS.items()}

    def resumed(self, snapshot: Snapshot) -> Progress:
        """Set model, optimiser and random states to those of the checkpoint, and return its progress."""
        header, team = snapshot.header, self.step.team
        _check_same(self.recipe, header, snapshot.path, self.task.fingerprint)
        if header["fingerprint"] != self.task.fingerprint:
            raise InputError(f"the data of {self.recipe.task} changed since {shown(snapshot.path)} was written.")
        if header["team"] != team.size:
            raise InputError(
                f"{shown(snapshot.path)} was written by {header['team']} processes; start as many, not {team.size}."
            )
        self.step.model.load_state_dict(snapshot.part("model"))
        self.step.restore(snapshot.part("optimiser"), header["step"])
        restore_random_states(snapshot.part(f"random/{team.rank}"))
        return Progress.from_json(header["progress"])

    def keep(self, step: TrainingStep, progress: Progress, best: bool) -> None:
        """Write the last checkpoint, and the best if the model is the best so far; pass on what was measured."""
        states = step.team.gathered(random_states())
        if not step.team.leads:
            return
        new = progress.found[self._shown :]
        if progress.step in self.recipe.training.evaluated_at():
            seconds = {metric: clock() - self._began[metric] for metric, clock in _CLOCKS.items()}
            progress.found += [Measurement(metric, value, progress.step) for metric, value in seconds.items()]
            if self.on_measured is not None:
                self.on_measured(progress.step, new, seconds[metrics.WALL_TIME])
        self._shown = len(progress.found)
        tensors, rest = step.state()
        parts: dict[str, dict[str, Tensor]] = {"model": step.model.state_dict(), "optimiser": tensors}
        parts["random"] = {
            f"{rank}/{name}": value for rank, state in enumerate(states) for name, value in state.items()
        }
        codec = self.task.codec
        header = {
            "recipe": _public(self.recipe),
            "fingerprint": self.task.fingerprint,
            "model": step.model.config.model_dump(mode="json"),
            "codec": None if codec is None else codec.as_json(),
            "team": step.team.size,
            "step": rest,
            "progress": progress.as_json(),
        }
        for name in [BEST, LAST] if best else [LAST]:
            write_snapshot(self.folder / name, header, **parts)

    def diverged(self, error: DivergedError, parameters: int) -> RunRecord:
        """Return the record of a run whose loss became NaN or infinite, with what was measured before."""
        lost = Measurement(self.task.judged, None, error.step)
        found = Progress(step=error.step, found=[*error.measurements, lost])
        return dataclasses.replace(self.record(found, [], parameters), status="diverged", error=str(error))

    def record(self, progress: Progress, tested: list[Measurement], parameters: int) -> RunRecord:
        """Return the record of the run: what was measured on the way, then the test of the best model."""
        recipe, environment = self.recipe, capture(accelerator_name())
        conditions = _public(recipe) | {"fingerprint": self.task.fingerprint}
        del conditions["about"]
        own_file = conditions["task"] != recipe.task.model_dump(mode="json")  # whose hash tells it, wherever it is
        identity = conditions | {"task": conditions["task"] | ({"source": ""} if own_file else {})}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        count = Measurement(metrics.PARAMETERS, parameters)
        closed = "analytic" in get_function(recipe.model.position).arms
        return RunRecord(
            run_id=f"train-{digest[:16]}",
            study="train",
            spec_hash=digest[:12],
            cell=CellKey(recipe.model.position, "analytic" if closed else "free-table"),
            task=recipe.task.name,
            model=str(recipe.model),
            trial=None,
            seed=recipe.seed,
            phase="evaluate",
            status="ok",
            device=environment.accelerator or environment.processor,
            created_at=datetime.now(UTC),
            measurements=(count, *progress.found, *(_as_test(measurement) for measurement in tested)),
            environment=environment,
            notes=self.task.notes,
            spec=conditions,
        )


def _as_test(measurement: Measurement) -> Measurement:
    """Put a measurement on the test split into a group of its own, apart from those on the validation split."""
    return Measurement(metrics.of_group(measurement.metric, "test"), measurement.value, measurement.step)


def _public(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as it is kept: a user's file by its name alone, since a model travels."""
    return recipe.model_dump(mode="json") | {"task": recipe.task.public()}


def _check_same(recipe: Recipe, header: dict[str, Any], path: Path, fingerprint: str) -> None:
    """Raise InputError if the checkpoint is of another recipe, with the first key that differs.

    Where data of the same fingerprint come from doesn't matter.
    """
    was, now = _flat(header["recipe"]), _flat(_public(recipe))
    ignored = ("about", *(["task.source"] if fingerprint == header["fingerprint"] else []))
    different = [key for key in sorted(was | now) if was.get(key) != now.get(key) and key not in ignored]
    if different:
        key = different[0]
        raise InputError(
            f"{shown(path.parent)} holds a run with {key} = {was.get(key, 'its default')}, not "
            f"{now.get(key, 'its default')}; name another folder with --out."
        )


def _flat(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return a nested dictionary as one whose keys are joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return flat


def load_trained(path: Path) -> Trained:
    """Load the model of a checkpoint, or the best one of a run's folder.

    Raises InputError if there is none, and where it names code that wasn't run before: see `ablations.code_policy`.
    """
    with named_by_data(shown(path)):
        return _loaded(path)


def _loaded(path: Path) -> Trained:
    snapshot = read_snapshot(path / BEST if path.is_dir() else path)
    header = snapshot.header
    try:
        model = Transformer(TransformerConfig(**header["model"])).to(choose_device())
        model.load_state_dict(snapshot.part("model"))
        codec = None if header["codec"] is None else codec_from_json(header["codec"])
        recipe = Recipe.model_validate(header["recipe"])
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{shown(snapshot.path)} was written by another version of this project: {reason}.") from error
    return Trained(model.eval(), codec, recipe)
