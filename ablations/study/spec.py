"""A study's file: its question, arms, task, model, tuning budget and seeds. Imports no torch."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from trans4init.ablations.data.tasks import AnyTaskConfig
from trans4init.ablations.data.text import NAMED_SOURCES, TextConfig
from trans4init.ablations.errors import InputError, nearest, unknown_name
from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.numbers import LARGEST_SEED, Count, Seed
from trans4init.ablations.settings.toml_file import load_toml, shipped_files
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm
from trans4init.reports.records.schema import CellKey, Metric
from trans4init.reports.speed.speeds import STUDY

__all__ = ["TUNABLE", "NetChoice", "StudySpec", "load_study", "shipped_studies"]

TUNABLE = ("beta2", "clip", "learning_rate", "slot_learning_rate_ratio", "slot_weight_decay", "weight_decay")
"""The training settings that a study's search space may name."""

_LONGEST_NAME = 100
"""Characters of a study's name. Names of files have 255 bytes, and the names of Optuna's studies add the cell's."""
_TAKEN_NAMES = (STUDY, "default", "fit", "mlartifacts", "train")
"""Refused as names of studies, with capitals too: what `bench`, `fit`, `train` and MLflow write beside the studies, and
MLflow's own experiment."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NetChoice(BaseModel):
    """Names a net, with the options that set its size."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    def size(self) -> dict[str, Any]:
        """Return the options of the net's size: every key but the name."""
        return dict(self.model_extra or {})


class Baseline(_Section):
    """Names another function for the same slot, with one of its arms."""

    function: str
    arm: str

    @field_validator("arm")
    @classmethod
    def _known_arm(cls, arm: str) -> str:
        if get_arm(arm).uses_net:
            raise ValueError(f"a baseline has no net, but arm {arm!r} needs one; list it under arms")
        return arm


class FitSection(_Section):
    """Says how nets are fitted to the function before the models are trained."""

    positions: Literal["training", "tested"] = "tested"
    """The positions that a net is fitted on: those of the trained context only, or also those of the longest test."""
    steps: Count = 3000
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    seed: Seed = 0


class Range(_Section):
    """Bounds the values of a hyper-parameter."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, not {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, not {self.low:g}")
        return self


class TuningSection(_Section):
    """Sets the tuning budget, the same for every cell: trials of the training settings in `space`."""

    trials: Count = 3
    """Number of trials: the first uses the study's own settings, the others draw from the space."""
    seed: Annotated[int, Field(ge=1000, le=LARGEST_SEED)] = 1000
    """The seed of every tuning run; evaluation seeds count from 0 and end before 1000."""
    space: dict[str, Range] = Field(default={})

    @field_validator("space")
    @classmethod
    def _known_settings(cls, space: dict[str, Range]) -> dict[str, Range]:
        for name in space:
            if name not in TUNABLE:
                close = nearest(name, TUNABLE)
                hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(TUNABLE)}"
                raise ValueError(f"{name!r} can't be tuned; {hint}")
            for end in (space[name].low, space[name].high):
                try:
                    TrainingConfig.model_validate({"steps": 1, "batch": 1, name: end})
                except ValidationError as error:
                    problem = error.errors()[0]["msg"]
                    raise ValueError(f"{name} can't be {end:g}: {problem[0].lower()}{problem[1:]}") from None
        return space


class EvaluationSection(_Section):
    """States, before any run, what the verdict is about."""

    seeds: Annotated[int, Field(ge=1, le=999)] = 10
    metric: str = "validation_loss"
    margin: Annotated[float, Field(gt=0)]
    """Differences smaller than this, in the metric's unit, count as equivalent."""


class ThroughputSection(_Section):
    """Says how speed is measured when nothing else runs: in rounds of every cell in turn."""

    rounds: Annotated[int, Field(ge=2)] = 40
    steps_per_round: Count = 3


class StudySpec(_Section):
    """Describes a study: function × arms × task × model × tuning budget × seeds."""

    name: str
    question: str
    function: str
    arms: Annotated[tuple[str, ...], Field(min_length=1)]
    nets: tuple[NetChoice, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    fit: FitSection = FitSection()
    task: AnyTaskConfig = TextConfig()
    model: ModelSize
    training: TrainingConfig
    tuning: TuningSection = TuningSection()
    evaluation: EvaluationSection
    throughput: ThroughputSection = ThroughputSection()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        return _checked_name(name)

    @field_validator("arms")
    @classmethod
    def _arms_make_a_study(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for arm in arms:
            get_arm(arm).description()  # raises for an arm that isn't there or can't be drawn
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is named twice")
        if REFERENCE_ARM not in arms:
            raise ValueError(f"the arms must include {REFERENCE_ARM!r}, which the others are compared with")
        return arms

    @model_validator(mode="after")
    def _parts_fit(self) -> "StudySpec":
        names = [net.name for net in self.nets]
        if len(set(names)) < len(names):
            raise ValueError("a net is named twice in [[nets]]")
        if not names and any(get_arm(arm).uses_net for arm in self.arms):
            raise ValueError("arms with a net need at least one in [[nets]]")
        known = [metric.name for metric in self.task.metrics]
        if self.evaluation.metric not in known:
            raise ValueError(f"[evaluation] {unknown_name('metric', self.evaluation.metric, known)}")
        outside = [
            name
            for name, allowed in self.tuning.space.items()
            if not allowed.low <= getattr(self.training, name) <= allowed.high
        ]
        if "trials" in self.tuning.model_fields_set and not self.tuning.space:
            raise ValueError("[tuning] trials needs a [tuning.space]: without one there is nothing to try")
        if outside:
            raise ValueError(
                f"[training] {outside[0]} = {getattr(self.training, outside[0]):g} is outside its range in "
                f"[tuning.space]: the first trial tries the study's own settings"
            )
        return self

    def trials(self) -> int:
        """Return the number of tuning trials of each cell: 0 without a search space."""
        return self.tuning.trials if self.tuning.space else 0

    def metric(self) -> Metric:
        """Return the metric that the verdict is about."""
        return next(metric for metric in self.task.metrics if metric.name == self.evaluation.metric)

    def reference(self) -> CellKey:
        """Return the cell that the others are compared with."""
        return CellKey(self.function, REFERENCE_ARM)

    def cells(self) -> tuple[CellKey, ...]:
        """Return a cell for every function, arm and net of the study, the reference first."""
        cells = [self.reference()]
        for arm in self.arms:
            nets = [net.name for net in self.nets] if get_arm(arm).uses_net else [""]
            cells += [CellKey(self.function, arm, net) for net in nets]
        cells += [CellKey(baseline.function, baseline.arm) for baseline in self.baselines]
        return tuple(dict.fromkeys(cells))

    def net(self, name: str) -> NetChoice:
        """Return the net of that name, with its size."""
        return next(net for net in self.nets if net.name == name)

    def conditions(self, fingerprint: str) -> dict[str, Any]:
        """Return what all runs must share for their numbers to be compared: not how many there are, nor wording."""
        shared = self.model_dump(mode="json", exclude={"name", "question", "arms", "nets", "baselines", "throughput"})
        shared["task"] |= {"source": fingerprint}
        del shared["tuning"]["trials"], shared["evaluation"]["seeds"]
        return shared

    def public(self) -> dict[str, Any]:
        """Return the spec as it goes into results: a user's file by its name alone."""
        return self.model_dump(mode="json") | {"task": self.task.public()}

    def setting(self) -> str:
        """Return task, data, model and training in one line."""
        return f"{self.task}; {self.model}; {self.training}"


def _checked_name(name: str) -> str:
    """Return a study's name if it can be that of a folder beside other studies, and of an experiment in MLflow."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"a study's name is made of at most {_LONGEST_NAME} letters, digits, dots, hyphens and underscores and "
            f"begins with a letter or a digit, not {name!r}"
        )
    if name.lower() in _TAKEN_NAMES or name.lower().startswith("mlflow.db"):
        raise ValueError(f"{name!r} is the name of something else in the folder of all studies; add a word to it")
    return name


def spec_hash(conditions: dict[str, Any]) -> str:
    """Return a short hash of a study's conditions."""
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:12]


def load_study(
    name_or_path: str, *, seeds: int | None = None, trials: int | None = None, data: Path | None = None
) -> StudySpec:
    """Load the study of that name or in that file, with what the command line changes.

    A file or a named source in `data` makes a study of its own, called after both. Raises InputError as `load_toml`
    does.
    """
    source = None if data is None else str(data) if str(data) in NAMED_SOURCES else str(data.absolute())
    changes = {"evaluation.seeds": seeds, "tuning.trials": trials, "task.source": source}
    changes = {key: value for key, value in changes.items() if value is not None}
    spec, folder = load_toml(StudySpec, "study", name_or_path, shipped_studies(), changes)
    if data is not None:
        try:
            name = _checked_name(f"{spec.name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', data.stem)}")
        except ValueError as error:
            raise InputError(f"--data {data}: {error}; rename the file.") from None
        spec = spec.model_copy(update={"name": name})
    return spec.model_copy(update={"task": spec.task.located(folder)})


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with the project, by name."""
    return shipped_files("studies")
