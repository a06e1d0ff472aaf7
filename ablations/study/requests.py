"""A study's runs as requests, whose ids depend on everything that decides the result. Imports no torch."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.base import BaseModel, ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.arms import get_arm
from trans4init.ablations.study.space import of_models, of_training, shapes_runs
from trans4init.ablations.study.spec import StudySpec, spec_hash
from trans4init.ablations.study.tuner import settings_to_try
from trans4init.ablations.study.tuning_section import SHARED
from trans4init.reports.files import without_folders
from trans4init.reports.machine import Environment
from trans4init.reports.records.error_budget import BudgetDesign
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord, StudyCard
from trans4init.reports.records.tuning_design import Setting, TuningDesign
from trans4init.reports.records.vocabulary import ANEW_NOTE, REFERENCE_COPY, Phase, Status

__all__ = ["Request", "ResolvedStudy"]

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """Describes a run that is to be done."""

    run_id: str
    phase: Phase
    cell: CellKey
    seed: int
    trial: int | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    """The settings that the run's trial changes."""
    rivals: tuple[Mapping[int, float], ...] = ()
    """The judged metric by step of the same seed's runs in all trials before the trial's generation, for a pruner."""
    place: int = 0
    """The trial's place in its generation."""
    spec_hash: str = ""
    """The hash of the conditions of the study, or of the block of a grid, that the run belongs to."""
    anew: tuple[str, ...] = ()
    """Why the run was begun anew, once for each time."""

    def begun_anew(self, why: str) -> "Request":
        """Return the request once more, after what was done for it was lost; the run's record will say why."""
        return dataclasses.replace(self, anew=(*self.anew, why))

    def label(self, function: str) -> str:
        """Return the run in words, in a study of `function`."""
        trial = f" trial {self.trial}" if self.phase == "tune" else ""
        seed = f" seed {self.seed}" if self.phase != "throughput" else ""
        copy = ", second copy" if self.phase == "throughput" and self.seed == REFERENCE_COPY else ""
        return f"{self.phase} {self.cell.label(function)}{trial}{seed}{copy}"


@dataclass(frozen=True)
class ResolvedStudy:
    """Holds a study with the fingerprint of its data: all that a run needs to know. Sent to worker processes."""

    spec: StudySpec
    fingerprint: str
    environment: Environment
    folder: Path
    command: str
    block: str = ""
    """The label of this block of a grid; empty for a study that isn't one of several."""
    together: int | None = None
    """How many comparisons are corrected together in all blocks of the grid; None for one block."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """The settings of the trial whose run is made; without one, the study's own count."""

    def of(self, request: Request) -> "ResolvedStudy":
        """Return the study with the settings that a run has."""
        return dataclasses.replace(self, settings=request.parameters)

    @property
    def model(self) -> ModelSize:
        """The sizes of the model, with what the trial changes; raises InputError if they don't fit together."""
        return _changed(self.spec.model, of_models(self.settings), "a model")

    @property
    def training(self) -> TrainingConfig:
        """How a run trains, with what the trial changes; raises InputError for settings that don't fit together."""
        return _changed(self.spec.training, of_training(self.settings), "a training")

    @cached_property
    def spec_hash(self) -> str:
        """Return the hash of the conditions that all runs of the study share."""
        return spec_hash(self.spec.conditions(self.fingerprint))

    @cached_property
    def _cells(self) -> frozenset[CellKey]:
        return frozenset(self.spec.cells())

    @property
    def results(self) -> Path:
        """The folder of the study's results."""
        return self.folder / "results"

    def card(self) -> StudyCard:
        """Return what a report needs to know about the study."""
        return StudyCard(
            name=self.spec.name,
            question=self.spec.question,
            metric=self.spec.evaluation.metric,
            margin=self.spec.evaluation.margin,
            reference=self.spec.reference(),
            cells=self.spec.cells(),
            seeds=self.spec.evaluation.seeds,
            command=without_folders(self.command),
            setting=self.spec.setting(),
            arms=tuple(get_arm(arm).description() for arm in dict.fromkeys(cell.arm for cell in self.spec.cells())),
            trials=self.spec.trials(),
            spec_hash=self.spec_hash,
            throughput_runs=self._throughput_runs(),
            margins=tuple(self.spec.evaluation.margins.items()),
            looks=self.spec.evaluation.looks,
            tuning=self._tuning_design(),
            error_budget=self._budget_design(),
            target=(target.metric, target.value) if (target := self.spec.evaluation.target) else None,
            block=self.block,
            together=self.together,
        )

    def with_size(self, pieces: int) -> "ResolvedStudy":
        """Return the study with one more net in its error budget, which bisection has chosen."""
        assert self.spec.error_budget is not None
        section = self.spec.error_budget.with_size(pieces)
        return dataclasses.replace(self, spec=self.spec.model_copy(update={"error_budget": section}))

    def _throughput_runs(self) -> tuple[str, ...]:
        """Return the ids of the runs that time the cells; none where they depend on what tuning will choose."""
        if shapes_runs(self.spec.own_settings()):
            return ()
        return tuple(request.run_id for request in self.throughput_requests())

    def _tuning_design(self) -> TuningDesign:
        spec, tuning = self.spec, self.spec.tuning
        return TuningDesign(
            seeds=tuple(spec.tuning_seeds()),
            ranges=tuning.ranges(),
            again=tuple(tuple(spec.tuning_seeds(time)) for time in range(1, spec.times_tuned())),
            sampler="" if tuning.sampler.name == SHARED else str(tuning.sampler),
            pruner="" if tuning.pruner.name == "none" else str(tuning.pruner),
            objectives=tuning.objectives,
            budgets=spec.budgets(),
            roles=tuple(tuning.roles.items()),
        )

    def _budget_design(self) -> BudgetDesign | None:
        section = self.spec.error_budget
        if section is None:
            return None
        return BudgetDesign(
            pieces=tuple((name, section.pieces_of(name)) for name in section.names()),
            sharpened=section.sharpened_names(),
            planned=len(self.spec.cells()) - 1 - len(section.sharpened) + section.steps(),
            factor=section.factor,
        )

    def record(
        self,
        request: Request,
        measurements: Sequence[Measurement],
        *,
        accelerator: str = "",
        status: Status = "ok",
        error: str = "",
        notes: Mapping[str, str] | None = None,
    ) -> RunRecord:
        """Return the record of a request's run."""
        environment = dataclasses.replace(self.environment, accelerator=accelerator)
        return RunRecord(
            run_id=request.run_id,
            study=self.spec.name,
            spec_hash=self.spec_hash,
            cell=request.cell,
            task=self.spec.task.name,
            model=str(self.spec.model),
            trial=request.trial,
            seed=request.seed,
            phase=request.phase,
            status=status,
            device=environment.accelerator or environment.processor,
            created_at=datetime.now(UTC),
            measurements=tuple(measurements),
            environment=environment,
            card=self.card(),
            parameters=dict(request.parameters),
            notes={**(notes or {}), **({ANEW_NOTE: " ".join(request.anew)} if request.anew else {})},
            spec=self.spec.public() | {"fingerprint": self.fingerprint},
            error=error,
        )

    def request_of(self, record: RunRecord) -> Request | None:
        """Return the request that would make this run in this study; None if the study has no such run.

        Its id differs from the record's if the study differs from the one that made the record.
        """
        if record.phase == "fit":
            known = record.cell.net in self.spec.net_names()
            return self.fit_request(record.cell.net, record.seed, record.parameters) if known else None
        if record.cell not in self._cells:
            return None
        return self._request(record.phase, record.cell, record.seed, record.trial, record.parameters)

    def fit_request(self, net: str, run_seed: int = 0, parameters: Mapping[str, Setting] | None = None) -> Request:
        """Return the request to fit one net, for the run with `run_seed`; speed is measured with the net of seed 0.

        parameters: the settings of the run's trial, of which those count that change nets or models.
        """
        cell, seed = CellKey(self.spec.function, "", net), self.spec.fit.seed_for(run_seed)
        return self._request("fit", cell, seed, parameters=shapes_runs(parameters or {}))

    def fit_of(self, request: Request) -> Request | None:
        """Return the fit that a run of the study needs; None if it needs none."""
        needed = request.phase != "fit" and get_arm(request.cell.arm).needs_fit
        return self.fit_request(request.cell.net, request.seed, request.parameters) if needed else None

    def fit_requests(self) -> list[Request]:
        """Return every fit that the study needs, net by net, in the order in which its runs need them."""
        nets = dict.fromkeys(cell.net for cell in self.spec.cells() if get_arm(cell.arm).needs_fit)
        tuning_seeds = [seed for time in range(self.spec.times_tuned()) for seed in self.spec.tuning_seeds(time)]
        run_seeds = (*tuning_seeds, *range(self.spec.evaluation.seeds))
        seeds = dict.fromkeys(self.spec.fit.seed_for(seed) for seed in run_seeds)
        return [self.fit_request(net, seed) for net in nets for seed in seeds]

    def tune_request(self, cell: CellKey, trial: int, parameters: Mapping[str, Setting], seed: int) -> Request:
        """Return the request for one tuning seed of one trial of one cell."""
        return self._request("tune", cell, seed, trial, parameters)

    def tune_requests(self, time: int = 0) -> list[Request]:
        """Return every tuning run, trial by trial and seed by seed, of one of the times that the study is tuned.

        They are known from the start where all cells share their settings; none is where each cell has a sampler.
        """
        spec = self.spec
        if spec.tuning.sampler.name != SHARED:
            return []
        shared = settings_to_try(spec.tuning.ranges(), spec.own_settings(), spec.tuning.seed + time, spec.trials())
        return [
            self.tune_request(cell, trial, spec.acting(cell, settings if trial else spec.own_settings(cell.net)), seed)
            for trial, settings in enumerate(shared)
            for seed in spec.tuning_seeds(time)
            for cell in spec.cells()
            if trial < spec.trials(cell)
        ]

    def evaluate_request(
        self, cell: CellKey, seed: int, trial: int | None, parameters: Mapping[str, Setting]
    ) -> Request:
        """Return the request for one seed of one cell, with the settings of its best trial, if it had trials."""
        return self._request("evaluate", cell, seed, trial, parameters)

    def throughput_requests(self, chosen: Mapping[CellKey, Mapping[str, Setting]] | None = None) -> list[Request]:
        """Return the requests to time every cell and a second copy of the reference, which are run together, in turn.

        The copy is as fast as the reference in truth: what a session measures of it checks the session. chosen: the
        settings of each cell's best trial, of which those count that change nets or models.
        """
        reference, settings = self.spec.reference(), chosen or {}
        cells = [(cell, 0) for cell in self.spec.cells()]
        return [
            self._request("throughput", cell, seed, parameters=shapes_runs(settings.get(cell, {})))
            for cell, seed in [*cells, (reference, REFERENCE_COPY)]
        ]

    def checkpoint(self, net: str, run_seed: int = 0) -> Path:
        """Return the folder of the fitted net that the run with `run_seed` uses."""
        return self.checkpoint_of(self.fit_request(net, run_seed, self.settings).run_id)

    def checkpoint_of(self, fit_id: str) -> Path:
        """Return the folder of the net that the fit with this id has made."""
        return self.folder / "checkpoints" / fit_id

    def _request(
        self,
        phase: Phase,
        cell: CellKey,
        seed: int,
        trial: int | None = None,
        parameters: Mapping[str, Setting] | None = None,
    ) -> Request:
        decides = {
            "conditions": self.spec_hash,
            "phase": phase,
            "cell": [cell.function, cell.arm, cell.net],
            "net": self.spec.net(cell.net).model_dump(mode="json") if cell.net else None,
            "seed": seed,
            "trial": trial if phase == "tune" else None,
            "parameters": dict(parameters or {}),
            "rounds": self._together() if phase == "throughput" else None,
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        return Request(f"{phase}-{digest}", phase, cell, seed, trial, dict(parameters or {}), spec_hash=self.spec_hash)

    def _together(self) -> list[object]:
        """Return what two throughput sessions differ by: speeds are ratios within one, of its models and rounds."""
        models = [*self.spec.cells(), self.spec.reference()]
        return [self.spec.throughput.model_dump(mode="json"), [str(cell) for cell in models]]


def _changed(section: S, changes: Mapping[str, Setting], called: str) -> S:
    """Return a section of the study with a trial's changes, checked; raises InputError if they don't fit together."""
    if not changes:
        return section
    try:
        return type(section).model_validate(section.model_dump(exclude_unset=True) | dict(changes))
    except ValidationError as error:
        raise InputError(sentence(error, type(section), f"{called} with {dict(changes)}")) from None
