"""A study file: what is asked, with which arms, task, model, tuning budget and seeds. Imports no torch."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from trans4init.ablations.data.tasks import AnyTaskConfig
from trans4init.ablations.data.text import NAMED_SOURCES, TextConfig
from trans4init.ablations.errors import nearest, unknown_name
from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.toml_file import load_toml, shipped_files
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm
from trans4init.reports.records.schema import CellKey, Metric
from trans4init.reports.speed.speeds import STUDY

__all__ = ["TUNABLE", "NetChoice", "StudySpec", "load_study", "shipped_studies"]

TUNABLE = ("beta2", "clip", "learning_rate", "slot_learning_rate_ratio", "slot_weight_decay", "weight_decay")
"""The training settings that a search space may name."""

Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NetChoice(BaseModel):
    """A net by name, with its size in the net's own words."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    def size(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class Baseline(_Section):
    """Another function in the same slot, in one of its arms."""

    function: str
    arm: str

    @field_validator("arm")
    @classmethod
    def _known_arm(cls, arm: str) -> str:
        if get_arm(arm).uses_net:
            raise ValueError(f"a baseline has no net, and arm {arm!r} needs one; list it under arms")
        return arm


class FitSection(_Section):
    """How nets are fitted to the function before the models are trained."""

    positions: Literal["training", "tested"] = "tested"
    """The positions that a net is fitted on: those of the trained context, or also those of the longest test."""
    steps: Count = 3000
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    seed: int = 0


class Range(_Section):
    """The values that a hyper-parameter may take."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, and {self.low:g} and {self.high:g} were given")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, and {self.low:g} was given")
        return self


class TuningSection(_Section):
    """The same tuning budget for every arm: trials of the training settings in `space`."""

    trials: Count = 3
    """The first tries the study's own settings, the others are drawn from the space; none where there is no space."""
    seed: Annotated[int, Field(ge=1000)] = 1000
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
    """What the verdict is about, stated before any run."""

    seeds: Annotated[int, Field(ge=1, le=999)] = 10
    metric: str = "validation_loss"
    margin: Annotated[float, Field(gt=0)]
    """Differences smaller than this count as equivalent; in the metric's unit."""


class ThroughputSection(_Section):
    """How speed is measured, when nothing else runs: rounds of every arm in turn."""

    rounds: Annotated[int, Field(ge=2)] = 40
    steps_per_round: Count = 3


class StudySpec(_Section):
    """A study: function × arms × task × model × tuning budget × seeds."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
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
    def _not_the_benchmarks(cls, name: str) -> str:
        if name == STUDY:
            raise ValueError(f"{name!r} is what benchmarks are called; give the study another name")
        return name

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
        """Tuning trials of each cell; none where there is nothing to tune."""
        return self.tuning.trials if self.tuning.space else 0

    def metric(self) -> Metric:
        """The metric that the verdict is about."""
        return next(metric for metric in self.task.metrics if metric.name == self.evaluation.metric)

    def reference(self) -> CellKey:
        """The cell that the others are compared with."""
        return CellKey(self.function, REFERENCE_ARM)

    def cells(self) -> tuple[CellKey, ...]:
        """Every function, arm and net of the study, the reference first."""
        found = [self.reference()]
        for arm in self.arms:
            nets = [net.name for net in self.nets] if get_arm(arm).uses_net else [""]
            found += [CellKey(self.function, arm, net) for net in nets]
        found += [CellKey(baseline.function, baseline.arm) for baseline in self.baselines]
        return tuple(dict.fromkeys(found))

    def net(self, name: str) -> NetChoice:
        """The net of that name, with its size."""
        return next(net for net in self.nets if net.name == name)

    def conditions(self, fingerprint: str) -> dict[str, Any]:
        """What all runs of a study must share for their numbers to be compared: all but how many there are."""
        kept = self.model_dump(mode="json", exclude={"name", "question", "arms", "nets", "baselines", "throughput"})
        kept["task"] |= {"source": fingerprint}
        del kept["tuning"]["trials"], kept["evaluation"]["seeds"]
        return kept

    def public(self) -> dict[str, Any]:
        """The spec as it goes into results: a user's file by its name alone."""
        kept = self.model_dump(mode="json")
        kept["task"] = self.task.public()
        return kept

    def setting(self) -> str:
        """Task, data, model and training in one line."""
        return f"{self.task}; {self.model}; {self.training}"


def spec_hash(conditions: dict[str, Any]) -> str:
    """A short name for the conditions of a study."""
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
        spec = spec.model_copy(update={"name": f"{spec.name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', data.stem)}"})
    return spec.model_copy(update={"task": spec.task.located(folder)})


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with the project, by name."""
    return shipped_files("studies")
