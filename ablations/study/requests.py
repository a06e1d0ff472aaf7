"""A study's runs as requests, whose ids depend on everything that decides the result. Imports no torch."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from trans4init.ablations.slots.arms import get_arm
from trans4init.ablations.study.spec import StudySpec, spec_hash
from trans4init.reports.files import without_folders
from trans4init.reports.machine import Environment
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord, StudyCard
from trans4init.reports.records.vocabulary import Phase, Status

__all__ = ["Request", "ResolvedStudy"]


@dataclass(frozen=True)
class Request:
    """Describes a run that is to be done."""

    run_id: str
    phase: Phase
    cell: CellKey
    seed: int
    trial: int | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    """The training settings that the run's trial changes."""

    def label(self, function: str) -> str:
        """Return the run in words, in a study of `function`."""
        suffix = {"tune": f" trial {self.trial}", "evaluate": f" seed {self.seed}"}.get(self.phase, "")
        return f"{self.phase} {self.cell.label(function)}{suffix}"


@dataclass(frozen=True)
class ResolvedStudy:
    """A study with the fingerprint of its data: all that a run needs to know. Sent to worker processes."""

    spec: StudySpec
    fingerprint: str
    environment: Environment
    folder: Path
    command: str

    @cached_property
    def spec_hash(self) -> str:
        """Return the hash of the conditions that all runs of the study share."""
        return spec_hash(self.spec.conditions(self.fingerprint))

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
            throughput_runs=tuple(request.run_id for request in self.throughput_requests()),
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
            notes=dict(notes or {}),
            spec=self.spec.public() | {"fingerprint": self.fingerprint},
            error=error,
        )

    def request_of(self, record: RunRecord) -> Request | None:
        """Return the request that would make this run in this study; None if the study has no such run.

        Its id differs from the record's if the study differs from the one that made the record.
        """
        if record.phase == "fit":
            known = any(net.name == record.cell.net for net in self.spec.nets)
            return self.fit_request(record.cell.net) if known else None
        if record.cell not in self.spec.cells():
            return None
        return self._request(record.phase, record.cell, record.seed, record.trial, record.parameters)

    def fit_request(self, net: str) -> Request:
        """Return the request to fit one net."""
        cell = CellKey(self.spec.function, "", net)
        return self._request("fit", cell, self.spec.fit.seed)

    def tune_request(self, cell: CellKey, trial: int, parameters: Mapping[str, float]) -> Request:
        """Return the request for one trial of one cell."""
        return self._request("tune", cell, self.spec.tuning.seed, trial, parameters)

    def evaluate_request(self, cell: CellKey, seed: int, trial: int | None, parameters: Mapping[str, float]) -> Request:
        """Return the request for one seed of one cell, with the settings of its best trial, if it had trials."""
        return self._request("evaluate", cell, seed, trial, parameters)

    def throughput_requests(self) -> list[Request]:
        """Return the requests to time every cell, which are run together, in turn."""
        return [self._request("throughput", cell, 0) for cell in self.spec.cells()]

    def fits_needed(self) -> list[str]:
        """Return the names of the nets that some cell needs fitted."""
        return list(dict.fromkeys(cell.net for cell in self.spec.cells() if get_arm(cell.arm).needs_fit))

    def checkpoint(self, net: str) -> Path:
        """Return the folder of the fitted net."""
        return self.folder / "checkpoints" / self.fit_request(net).run_id

    def _request(
        self,
        phase: Phase,
        cell: CellKey,
        seed: int,
        trial: int | None = None,
        parameters: Mapping[str, float] | None = None,
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
        return Request(f"{phase}-{digest}", phase, cell, seed, trial, dict(parameters or {}))

    def _together(self) -> list[object]:
        """Return what two throughput sessions differ by: speeds are ratios within one, of its cells and rounds."""
        return [self.spec.throughput.model_dump(mode="json"), [str(cell) for cell in self.spec.cells()]]
