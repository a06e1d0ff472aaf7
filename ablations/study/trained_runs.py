"""Train the models of a study's runs in a worker process, one by itself or several together, and record them."""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from trans4init.ablations.data.config import Split
from trans4init.ablations.device import accelerator_name, threads
from trans4init.ablations.errors import FaultError
from trans4init.ablations.slots.guard import ArmRecord
from trans4init.ablations.slots.kept import kept_slots
from trans4init.ablations.study.optuna_names import BY_SEED
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.ablations.study.work import (
    OnAdvance,
    build_model,
    build_task,
    described_net,
    parameter_count,
    what_went_wrong,
)
from trans4init.ablations.training.array import ArrayStep, Member, train_array
from trans4init.ablations.training.loop import DivergedError, Prune, PrunedError, TrainingStep, train
from trans4init.ablations.training.stacked import NotStackableError
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement, RunRecord
from trans4init.reports.records.vocabulary import Status

__all__ = ["NotTogetherError", "pruner_of", "run_array", "run_request"]

Keep = Callable[[bytes], None]
"""A function that is called with the content of a file of what a run made of its slots."""

_WARM_UP, _TIMED = 3, 4
"""Steps that `_check_faster` makes untimed, and times, of a run by itself and of an array."""


class NotTogetherError(Exception):
    """Raised before anything is trained, where runs can't be trained together or gain nothing by it."""

    def __init__(self, why: str, *, smaller: bool = False) -> None:
        """smaller: whether fewer of them might be."""
        super().__init__(why)
        self.smaller = smaller


def run_request(study: ResolvedStudy, request: Request, on_advance: OnAdvance, keep: Keep | None = None) -> RunRecord:
    """Train the model that the request asks for, and return the run's record.

    A run that goes wrong has one too: diverged, oom or failed. keep: called if an evaluation made something of its
    slots.
    """
    clock, notes = _Clock(on_advance), dict[str, str]()
    study = study.of(request)
    made: list[Measurement] | Exception
    try:
        made, notes = _train(study, request, clock.advanced, keep)
    except Exception as trouble:  # noqa: BLE001  the run has a record that says what went wrong
        made = trouble
    return _record(study, request, made, notes, clock)


def run_array(
    study: ResolvedStudy,
    requests: Sequence[Request],
    on_advance: OnAdvance,
    keep: Callable[[str, bytes], None] | None = None,
) -> list[RunRecord]:
    """Train the models that the requests ask for together; return a record for each.

    The requests differ in their seeds, rates and decays alone. keep: as of `run_request`, called with the run's id
    too. Raises NotTogetherError where they are to be run one by one, FaultError where the disk refuses a checkpoint.
    """
    clock, studies = _Clock(on_advance), [study.of(request) for request in requests]
    cell = requests[0].cell.label(study.spec.function)
    try:
        task = build_task(studies[0])
        pairs = list(zip(studies, requests, strict=True))
        built = [build_model(of, request.cell, request.seed, task) for of, request in pairs]
        before = [_measured_before(model, record) for model, record in built]
        members = [
            Member(model, of.training, record, request.seed, task, pruner_of(of, request))
            for (of, request), (model, record) in zip(pairs, built, strict=True)
        ]
        path = _checkpoint(study, requests)
        if not path.exists():  # else it was tried by the command that wrote it
            _check_faster(members, cell)
        trained = train_array(
            members,
            split=_split(requests[0]),
            on_progress=lambda step, loss: clock.advanced(step, studies[0].training.steps, loss),
            checkpoint=path,
            runs=[request.run_id for request in requests],
        )
    except NotTogetherError:
        raise
    except NotStackableError as refusal:
        raise NotTogetherError(f"Runs of {cell} are made one by one: {refusal}.") from None
    except FaultError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise NotTogetherError(f"{len(requests)} runs of {cell} don't fit into memory.", smaller=True) from None
    except Exception as trouble:  # one by one, each has a record that says what went wrong
        fault = f"{type(trouble).__name__}: {trouble}"
        raise NotTogetherError(f"Runs of {cell} failed together ({fault}) and are made one by one.") from trouble
    records = []
    for of, request, (model, record), found, made in zip(studies, requests, built, before, trained, strict=True):
        notes = {"array": str(len(requests))}
        if not isinstance(made, Exception):
            made = [*found, *made]
            own = None if keep is None else partial(keep, request.run_id)
            notes = _notes_at_end(of, request, model, record, own) | notes
        records.append(_record(of, request, made, notes, clock))
    return records


def _checkpoint(study: ResolvedStudy, requests: Sequence[Request]) -> Path:
    """Return the file from which an array of just these runs, in this order, goes on."""
    digest = hashlib.sha256(" ".join(request.run_id for request in requests).encode()).hexdigest()[:16]
    return study.folder / "checkpoints" / f"array-{digest}.safetensors"


class _Clock:
    """Remembers when a run, or an array of runs, was at which step."""

    def __init__(self, on_advance: OnAdvance) -> None:
        self._start, self._on_advance = time.perf_counter(), on_advance
        self.seconds: dict[int, float] = {}

    def advanced(self, step: int, steps: int, loss: float) -> None:
        """Note the time of a step, and pass on how far the run is."""
        self.seconds[step] = self.now()
        self._on_advance(step, steps, loss)

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._start


def _record(
    study: ResolvedStudy,
    request: Request,
    made: Sequence[Measurement] | Exception,
    notes: Mapping[str, str],
    clock: _Clock,
) -> RunRecord:
    """Return the record of a run that made measurements, or ended with an exception."""
    status: Status = "ok"
    error = ""
    if isinstance(made, PrunedError):
        measurements, status, error = [*made.measurements], "pruned", str(made)
    elif isinstance(made, DivergedError):
        measurements = [*made.measurements, Measurement(study.spec.metric(), None, made.step)]
        status, error = "diverged", str(made)
    elif isinstance(made, Exception):
        measurements = [Measurement(study.spec.metric(), None)]
        status, error = what_went_wrong(made)
    else:
        measurements = [*made]
    last = max(measurement.step for measurement in measurements)
    whole = clock.now()
    if isinstance(made, Exception) and "array" in notes:  # the others went on
        whole = max((value for step, value in clock.seconds.items() if step <= last), default=whole)
    at_steps = clock.seconds.items()
    measurements += [Measurement(metrics.WALL_TIME, value, step) for step, value in at_steps if step < last]
    measurements.append(Measurement(metrics.WALL_TIME, whole, last))
    name = accelerator_name()
    return study.record(request, measurements, accelerator=name, status=status, error=error, notes=notes)


def _train(
    study: ResolvedStudy, request: Request, on_advance: OnAdvance, keep: Keep | None
) -> tuple[list[Measurement], dict[str, str]]:
    task = build_task(study)
    model, record = build_model(study, request.cell, request.seed, task)
    config, start = study.training, time.perf_counter()
    measurements = _measured_before(model, record)
    measurements += train(
        model,
        task,
        config,
        record,
        seed=request.seed,
        split=_split(request),
        on_progress=lambda step, loss: on_advance(step, config.steps, loss),
        prune=pruner_of(study, request),
    )
    if metrics.TRAINING_THROUGHPUT.name in study.spec.tuning.objectives and request.phase == "tune":
        tokens = config.steps * task.tokens_in(next(task.batches(0, config.batch, "tune", unit=config.batch_unit)))
        measurements.append(
            Measurement(metrics.TRAINING_THROUGHPUT, tokens / (time.perf_counter() - start), config.steps)
        )
    return measurements, _notes_at_end(study, request, model, record, keep)


def _check_faster(members: Sequence[Member], cell: str) -> None:
    """Raise NotTogetherError if steps of an array take no less time than steps of its runs by themselves.

    Both are tried on copies of the models.
    """
    copies = [Member(copy.deepcopy(m.model), m.config, m.record, m.seed, m.task) for m in members]
    together = ArrayStep(copies)
    first, count = members[0], len(members)
    moves = first.record.moves if first.record else ()
    alone = TrainingStep(copy.deepcopy(first.model), first.task, first.config, moves)
    batch = next(first.task.batches(first.seed, first.config.batch, "tune", unit=first.config.batch_unit))
    with threads(first.config.threads):
        in_array, by_itself = _seconds(lambda: together([batch] * count).sum().item(), lambda: alone(batch).item())
    if in_array >= count * by_itself:
        raise NotTogetherError(
            f"Runs of {cell} are made one by one: steps of {count} together take {in_array / by_itself / count:.2f} "
            "times as long."
        )


def _seconds(*steps: Callable[[], float]) -> list[float]:
    """Return the seconds of each of several steps, timed in turn: the least of some times, which others disturb least.

    On a CPU they are its own: other processes take turns with this one.
    """
    clock = time.perf_counter if accelerator_name() else time.process_time
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(_WARM_UP + _TIMED):
        for step, of_step in zip(steps, times, strict=True):
            start = clock()
            step()
            of_step.append(clock() - start)
    return [min(of_step[_WARM_UP:]) for of_step in times]


def _split(request: Request) -> Split:
    return "tune" if request.phase == "tune" else "evaluate"


def _measured_before(model: Transformer, record: ArmRecord) -> list[Measurement]:
    """Return what is known of a run before it is trained: its size, and how the arm changed the model's output."""
    measurements = [
        Measurement(metrics.PARAMETERS, parameter_count(model)),
        Measurement(metrics.PARAMETERS_ADDED, record.parameters_added),
    ]
    if not math.isnan(record.output_difference_max):
        measurements.append(Measurement(metrics.OUTPUT_DIFFERENCE_MAX, record.output_difference_max))
        measurements.append(Measurement(metrics.OUTPUT_DIFFERENCE_RMS, record.output_difference_rms))
    return measurements


def _notes_at_end(
    study: ResolvedStudy, request: Request, model: Transformer, record: ArmRecord, keep: Keep | None
) -> dict[str, str]:
    """Return the notes of a run that is trained, and keep what an evaluation made of its slots."""
    notes = {"moves": " ".join(record.moves), "frozen": " ".join(record.frozen)}
    if keep is not None and request.phase == "evaluate":
        try:
            kept = kept_slots(model, record, _facts(study, request))
        except Exception as trouble:  # noqa: BLE001  a training that is done is not lost for a drawing of it
            notes["slots"] = f"not kept: {type(trouble).__name__}: {trouble}"
        else:
            if kept is not None:
                keep(kept)
    return notes


def pruner_of(study: ResolvedStudy, request: Request) -> Prune | None:
    """Return what says at each evaluation whether a tuning run falls behind; None where nothing is asked."""
    if request.phase != "tune" or study.spec.tuning.pruner.name in ("none", BY_SEED):
        return None
    from trans4init.ablations.study.pruning import RunPruner

    pruner, metric = RunPruner(study.spec, request.rivals, request.place), study.spec.evaluation.metric

    def stops(step: int, measured: list[Measurement]) -> bool:
        value = next(m.value for m in measured if m.metric.name == metric)
        assert value is not None  # else the run has diverged
        return pruner.stops(step, value)

    return stops


def _facts(study: ResolvedStudy, request: Request) -> dict[str, object]:
    """Return what a file of kept slots says of its run."""
    cell = request.cell
    return {
        "run_id": request.run_id,
        "study": study.spec.name,
        "spec_hash": study.spec_hash,
        "function": cell.function,
        "arm": cell.arm,
        "net": {"name": (net := described_net(study, cell.net))[0], **net[1]} if cell.net else None,
        "seed": request.seed,
    }
