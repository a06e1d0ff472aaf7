"""Do a study's work in a worker process: check it, fit its nets, build its models, and time its cells."""

import dataclasses
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.text import MULTIPLES
from trans4init.ablations.device import accelerator_name, choose_device
from trans4init.ablations.errors import FaultError, InputError, shown
from trans4init.ablations.fit import (
    FitDivergedError,
    Fitted,
    OnStep,
    Wanted,
    fit_many,
    load_fitted,
    refinement_budget,
)
from trans4init.ablations.fit.error_budget import budget_domain, check_budgeted, fitted_error
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets import Net, build_net, net_class
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm
from trans4init.ablations.slots.guard import ArmRecord
from trans4init.ablations.slots.slot import slots_named
from trans4init.ablations.study.optuna_names import BY_SEED
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.ablations.study.search_check import check_search, corners
from trans4init.ablations.study.space import NET, of_nets
from trans4init.ablations.study.spec import SEARCHED
from trans4init.ablations.tasks import TASKS, Task, model_config
from trans4init.ablations.tasks.base import evaluating
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.training.throughput import ROUNDS_PER_BUILD, TimedModel, interleaved
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer.widened import widened
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord
from trans4init.reports.records.vocabulary import Status

__all__ = [
    "OnAdvance",
    "build_model",
    "build_task",
    "check_study",
    "described_net",
    "fit_nets",
    "parameter_count",
    "run_fits",
    "run_throughput",
    "what_went_wrong",
]

OnAdvance = Callable[[int, int, float], None]
"""A function that is called with the step, the number of steps of the whole run, and the loss."""


def check_study(study: ResolvedStudy, file: str) -> None:
    """Build everything that the study names, so that mistakes are found before any run.

    Raises InputError that begins with `file`, the study's file or name.
    """
    try:
        _build_once(study)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _build_once(study: ResolvedStudy) -> None:
    spec = study.spec
    function = get_function(spec.function)
    if spec.error_budget is not None:
        check_budgeted(function)
    key = function.slot.replace("-", "_")
    if key in spec.model.model_fields_set and getattr(spec.model, key) != spec.function:
        raise InputError(f"[model] {key}: the study is about {spec.function!r} there; leave the key out.")
    task = build_task(study)
    model = Transformer(_config(study, spec.reference(), task))
    if spec.tuning.pruner.name not in ("none", BY_SEED):
        _check_pruned_metric(study, model, task)
    for cell in spec.cells():
        cell_function = get_function(cell.function)
        if cell_function.slot != function.slot:
            raise InputError(
                f"baseline {cell.function!r} belongs in slot {cell_function.slot!r}, not {function.slot!r}."
            )
        get_arm(cell.arm).check_applies_to(cell_function)
        if cell.net:
            _bare_net(study, cell)
    check_search(study)
    for settings in corners(study):
        for net in spec.net_names():
            _bare_net(dataclasses.replace(study, settings=settings), CellKey(spec.function, "", net))


def _check_pruned_metric(study: ResolvedStudy, model: Transformer, task: Task) -> None:
    """Raise InputError if runs can't be stopped by the judged metric, since it is measured at their ends alone."""
    judged = study.spec.evaluation.metric
    found = [m.metric.name for m in task.evaluate(model.to(choose_device()), "tune", 0, final=False)]
    if judged not in found:
        raise InputError(
            f"[tuning] pruner {study.spec.tuning.pruner.name!r} can't go by {judged}, which is measured at a run's end "
            f"alone; during training there are: {', '.join(found)}."
        )


def fit_nets(
    study: ResolvedStudy, net: str, seeds: Sequence[int], steps: int, on_step: OnStep | None = None
) -> Iterator[tuple[int, Fitted | FitDivergedError]]:
    """Fit the study's net of that name to its function in `steps` steps, with each of `seeds`, together.

    Yields the index of the seed, and the net or the error of a fit that diverged. A net is the same, bit for bit,
    whichever others are fitted with it.
    """
    spec = study.spec
    (name, size), domain, shape = described_net(study, net), _fit_domain(study), _shape(study)
    wanted = [Wanted(spec.function, name, size, seed, domain, shape) for seed in seeds]
    return fit_many(wanted, steps=steps, learning_rate=spec.fit.learning_rate, on_step=on_step)


def run_fits(study: ResolvedStudy, requests: list[Request], on_advance: OnAdvance) -> list[RunRecord]:
    """Fit one net with the seed of each request, save the nets, and return a record for each.

    Raises FaultError where the disk refuses: then no fit has failed.
    """
    study = study.of(requests[0])
    start, steps = time.perf_counter(), study.spec.fit.steps
    net, total = requests[0].cell.net, steps + refinement_budget(steps)
    outcomes: dict[int, Fitted | FitDivergedError] = {}
    try:
        seeds = [request.seed for request in requests]
        for index, outcome in fit_nets(study, net, seeds, steps, lambda step, loss: on_advance(step, total, loss)):
            if isinstance(outcome, Fitted):
                _save(outcome, study.checkpoint(net, seeds[index]))
            outcomes[index] = outcome
    except FaultError:
        raise
    except Exception as trouble:  # noqa: BLE001  the fits are `failed` or `oom` records
        status, error = what_went_wrong(trouble)
        missing = [Measurement(metrics.FIT_LOSS, None)]
        return [study.record(request, missing, status=status, error=error) for request in requests]
    seconds = Measurement(metrics.WALL_TIME, time.perf_counter() - start)
    return [_fit_record(study, request, outcomes[index], seconds) for index, request in enumerate(requests)]


def _save(fitted: Fitted, folder: Path) -> None:
    try:
        fitted.save(folder)
    except OSError as error:
        raise FaultError(f"a fitted net can't be written to {shown(folder.parent)}: {error.strerror}.") from error


def _fit_record(
    study: ResolvedStudy, request: Request, outcome: Fitted | FitDivergedError, seconds: Measurement
) -> RunRecord:
    name = accelerator_name()
    if isinstance(outcome, FitDivergedError):
        missing = [Measurement(metrics.FIT_LOSS, None), seconds]
        return study.record(request, missing, accelerator=name, status="diverged", error=str(outcome))
    notes = {"fitted_on": str(outcome.net.domain), "folded_by": outcome.fidelity.folded_by}
    notes = {key: value for key, value in notes.items() if value}
    measurements = [*outcome.fidelity.measurements(), seconds]
    if study.spec.error_budget is not None:
        measurements.append(fitted_error(outcome))
    return study.record(request, measurements, accelerator=name, notes=notes)


def what_went_wrong(trouble: Exception) -> tuple[Status, str]:
    """Return the status of a run that raised, and why."""
    if isinstance(trouble, (MemoryError, torch.OutOfMemoryError)):
        return "oom", str(trouble) or "out of memory"
    return "failed", "".join(traceback.format_exception(trouble))


def run_throughput(study: ResolvedStudy, requests: list[Request]) -> list[RunRecord]:
    """Time training steps and forward passes of every request's cell in turn; return a record for each.

    Nothing else of the study should run meanwhile.
    """
    try:
        task = build_task(study)
        plan, cores = study.spec.throughput, study.spec.training.threads
        timings = interleaved(
            [partial(_timed, study.of(request), request.cell, task) for request in requests],
            rounds=plan.rounds,
            steps=plan.steps_per_round,
            cores=cores,
        )
    except Exception as trouble:  # noqa: BLE001  the session is `failed` or `oom` records
        missing = [Measurement(metrics.TRAINING_THROUGHPUT, None)]
        status, error = what_went_wrong(trouble)
        return [study.record(request, missing, status=status, error=error) for request in requests]
    name = accelerator_name()
    session = {"session": uuid.uuid4().hex[:12], "rounds_per_build": str(ROUNDS_PER_BUILD)}
    return [
        study.record(request, rows, accelerator=name, notes=session)
        for request, rows in zip(requests, timings, strict=True)
    ]


def _timed(study: ResolvedStudy, cell: CellKey, task: Task) -> TimedModel:
    model, record = build_model(study, cell, 0, task)
    step = TrainingStep(model, task, study.training, record.moves)
    training = study.training
    return TimedModel(step, next(task.batches(0, training.batch, "evaluate", unit=training.batch_unit)))


def build_model(study: ResolvedStudy, cell: CellKey, seed: int, task: Task) -> tuple[Transformer, ArmRecord]:
    """Return the study's model, started from `seed` with the cell's arm in it, and the arm's record."""
    if get_arm(cell.arm).widens:
        return _build_widened(study, cell, seed, task)
    model = Transformer(_config(study, cell, task), seed=seed).to(choose_device())
    net: Fitted | Net | None = None
    if get_arm(cell.arm).needs_fit:
        net_class(described_net(study, cell.net)[0])  # which a checkpoint may name, since the study does
        net = load_fitted(study.checkpoint(cell.net, seed))
    elif cell.net:
        net = _bare_net(study, cell)
    return model, apply_arm(model, get_function(cell.function).slot, cell.arm, net, seed=seed)


def _build_widened(study: ResolvedStudy, cell: CellKey, seed: int, task: Task) -> tuple[Transformer, ArmRecord]:
    """Return a model with the closed form, and with the values of the cell's nets in its feed-forward layers."""
    config, slot = _config(study, cell, task), get_function(cell.function).slot
    plain = Transformer(config, seed=seed).to(choose_device())
    nets = len(slots_named(plain, slot))
    model = widened(config, nets * _bare_net(study, cell).parameter_count(), seed).to(choose_device())
    record = apply_arm(model, slot, REFERENCE_ARM)
    with evaluating(model), evaluating(plain):
        inputs = plain.example_inputs()
        outputs = [network(**inputs) if isinstance(inputs, dict) else network(inputs) for network in (model, plain)]
    difference = outputs[0] - outputs[1]
    return model, dataclasses.replace(
        record,
        arm=cell.arm,
        net=cell.net,
        parameters_added=parameter_count(model) - parameter_count(plain),
        output_difference_max=difference.abs().max().item(),
        output_difference_rms=difference.double().square().mean().sqrt().item(),
    )


def parameter_count(model: Transformer) -> int:
    """Return the number of values of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def _config(study: ResolvedStudy, cell: CellKey, task: Task) -> TransformerConfig:
    slot = get_function(cell.function).slot.replace("-", "_")
    return model_config(study.model, task, **{slot: cell.function})


def build_task(study: ResolvedStudy) -> Task:
    """Return the study's task with its data; raises InputError if the data changed since the study began."""
    spec = study.spec
    task = TASKS.get(spec.task.name)(spec.task, spec.model.context, choose_device(), spec.model.kind)
    if task.fingerprint != study.fingerprint:
        raise InputError(f"the data of {spec.task} changed while the study was running.")
    return task


def _shape(study: ResolvedStudy) -> dict[str, int]:
    """Return the shape that the model gives to the function."""
    return get_function(study.spec.function).shape_in(study.model.shapes())


def _fit_domain(study: ResolvedStudy) -> Domain:
    """Return the domain that the net is fitted on: for a function of the reals, the function's own or a wider one.

    For a function of integers: all integers that the slot is given in training, random positions included, and those
    of the longest test if the study says so. Images are never longer than in training.
    """
    function, size = get_function(study.spec.function), study.model
    if not function.domain.integer:
        return function.domain if study.spec.error_budget is None else budget_domain(function, _shape(study))
    random = size.randomised_positions if function.slot == "position" else None
    count = random or size.positions
    if study.spec.fit.positions == "tested" and size.kind != "image":
        count = max(count, max(MULTIPLES) * size.context)
    first = int(function.domain.low)  # positions and distances count from 0, visible keys from 1
    return Domain(first, first + count - 1, integer=True)


def _bare_net(study: ResolvedStudy, cell: CellKey) -> Net:
    name, size = described_net(study, cell.net)
    outputs = get_function(study.spec.function).outputs(**_shape(study))
    return build_net(name, _fit_domain(study), outputs, **size)


def described_net(study: ResolvedStudy, net: str) -> tuple[str, dict[str, Any]]:
    """Return the kind of a cell's net and its size: of what trials change, what that kind has."""
    searched = net == SEARCHED and study.spec.searches_nets()
    settings = {**study.spec.own_settings(net), **study.settings}
    name = str(settings[NET]) if searched else study.spec.net(net).name
    changed = of_nets(settings)
    known = net_class(name).Size.model_fields
    return name, study.spec.net(net).size() | {key: value for key, value in changed.items() if key in known}
