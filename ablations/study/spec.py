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
from trans4init.ablations.study.error_budget import BUDGET_ARM, FAMILY, ErrorBudgetSection
from trans4init.reports.records.schema import CellKey, Metric
from trans4init.reports.records.tuning_design import TunedRange
from trans4init.reports.speed.speeds import STUDY

__all__ = ["TUNABLE", "NetChoice", "StudySpec", "load_study", "shipped_studies"]

TUNABLE = ("beta2", "clip", "learning_rate", "slot_learning_rate_ratio", "slot_weight_decay", "weight_decay")
"""The training settings that a study's search space may name."""

_SEEDS_APART = 1000
"""Evaluation seeds are below it; the tuning seeds of `[tuning] seed` n begin at (n + 1) times it and are fewer."""
_LARGEST_TUNING_SEED = LARGEST_SEED // _SEEDS_APART - 2
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
    seeds: Literal["shared", "per-run"] = "shared"
    """One fit of each net for all runs, so that the verdict is about that fit; or for each seed the fit with that seed,
    so that it is about such nets."""
    seed: Seed = 0
    """The seed of the shared fit."""

    @model_validator(mode="after")
    def _one_seed_or_many(self) -> "FitSection":
        if self.seeds == "per-run" and self.seed:
            raise ValueError("seed is that of a shared fit; with seeds = \"per-run\" each run's seed is its fit's")
        return self

    def seed_for(self, run_seed: int) -> int:
        """Return the seed of the fit that a run with `run_seed` uses."""
        return run_seed if self.seeds == "per-run" else self.seed


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

    trials: Count = 8
    """Number of trials: the first uses the study's own settings, the others are spread over the space."""
    seeds_per_trial: Annotated[int, Field(ge=1, le=_SEEDS_APART)] = 3
    """Number of tuning seeds that every trial is run with; its value is their mean."""
    seed: Annotated[int, Field(ge=0, le=_LARGEST_TUNING_SEED)] = 0
    """Chooses the settings of the trials, and the tuning seeds: no other `seed` has any of these."""
    times: Count = 1
    """How often the study is tuned: the second time as with the next `seed`, and so on. The words come from the first
    time; the report says which of them another one changes."""
    space: dict[str, Range] = Field(default={})

    def seeds(self, time: int = 0) -> range:
        """Return the seeds that each trial is run with; no run that is evaluated has any of them.

        time: which time the study is tuned, from 0.
        """
        first = _SEEDS_APART * (self.seed + time + 1)
        return range(first, first + self.seeds_per_trial)

    @model_validator(mode="after")
    def _seeds_are_there(self) -> "TuningSection":
        if self.seed + self.times - 1 > _LARGEST_TUNING_SEED:
            raise ValueError(f"seed + times must be at most {_LARGEST_TUNING_SEED + 1}")
        return self

    def ranges(self) -> tuple[TunedRange, ...]:
        """Return the ranges of the space by name."""
        return tuple(TunedRange(name, r.low, r.high, r.log) for name, r in sorted(self.space.items()))

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


class TargetSection(_Section):
    """Names a value of a metric whose first time each run is asked for."""

    metric: str
    value: float


class EvaluationSection(_Section):
    """States, before any run, what the verdict is about."""

    seeds: Annotated[int, Field(ge=1, le=_SEEDS_APART - 1)] = 10
    metric: str = "validation_loss"
    margin: Annotated[float, Field(gt=0)]
    """Differences smaller than this, in the metric's unit, count as equivalent."""
    margins: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    """Other metrics that get words too, each with its margin; every other metric is only described."""
    looks: tuple[Count, ...] = ()
    """Numbers of seeds at which the study may be judged; they share the level. Empty: once, when all seeds are run."""
    target: TargetSection | None = None
    """The report says when runs reach it, at the evaluations during training. No verdict is about that."""

    @model_validator(mode="after")
    def _looks_end_with_all_seeds(self) -> "EvaluationSection":
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks must ascend, not {list(self.looks)}")
        if self.looks and self.seeds not in self.looks:
            raise ValueError(f"seeds = {self.seeds} is none of the looks {list(self.looks)}; the last is all seeds")
        return self


class ThroughputSection(_Section):
    """Says how speed is measured when nothing else runs: in rounds of every cell in turn."""

    rounds: Annotated[int, Field(ge=2)] = 40
    """Number of rounds. The models are built again every four: speeds get an interval from 32 on."""
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
    error_budget: ErrorBudgetSection | None = None

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
        names = self.net_names()
        if len(set(names)) < len(names):
            raise ValueError("a net is named twice in [[nets]]")
        with_nets = [arm for arm in self.arms if get_arm(arm).uses_net]
        if not names and with_nets:
            raise ValueError("arms with a net need at least one in [[nets]]")
        if self.error_budget is not None and (self.nets or with_nets != [BUDGET_ARM]):
            raise ValueError(
                f"[error_budget] makes the nets of arm {BUDGET_ARM!r}: list that arm, no other one with a net, and no "
                "[[nets]]"
            )
        known = [metric.name for metric in self.task.metrics]
        if self.evaluation.metric not in known:
            raise ValueError(f"[evaluation] {unknown_name('metric', self.evaluation.metric, known)}")
        judged = {metric.name for metric in self.task.metrics if metric.higher_is_better is not None}
        for name in self.evaluation.margins:
            if name not in judged - {self.evaluation.metric}:
                others = sorted(judged - {self.evaluation.metric})
                raise ValueError(f"[evaluation.margins] {unknown_name('metric', name, others)}")
        target = self.evaluation.target
        if target is not None and target.metric not in judged:
            raise ValueError(f"[evaluation.target] {unknown_name('metric', target.metric, sorted(judged))}")
        outside = [
            name
            for name, allowed in self.tuning.space.items()
            if not allowed.low <= getattr(self.training, name) <= allowed.high
        ]
        asked = self.tuning.model_fields_set & {"trials", "times"}
        if asked and not self.tuning.space:
            raise ValueError(f"[tuning] {max(asked)} needs a [tuning.space]: without one there is nothing to try")
        if outside:
            raise ValueError(
                f"[training] {outside[0]} = {getattr(self.training, outside[0]):g} is outside its range in "
                f"[tuning.space]: the first trial tries the study's own settings"
            )
        return self

    def trials(self) -> int:
        """Return the number of tuning trials of each cell: 0 without a search space."""
        return self.tuning.trials if self.tuning.space else 0

    def times_tuned(self) -> int:
        """Return how often the study is tuned, and every cell evaluated with what that chose: 1 without a space."""
        return self.tuning.times if self.tuning.space else 1

    def tuning_seeds(self, time: int = 0) -> range:
        """Return the seeds that each trial is run with: none without a search space."""
        return self.tuning.seeds(time) if self.tuning.space else range(0)

    def training_runs(self) -> int:
        """Return the number of models that are trained: in every cell trials × their seeds, and evaluation seeds.

        They are as many each time that the study is tuned. A run that two times ask for alike counts twice.
        """
        once = len(self.cells()) * (self.trials() * len(self.tuning_seeds()) + self.evaluation.seeds)
        return self.times_tuned() * once

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
            nets = self.net_names() if get_arm(arm).uses_net else ("",)
            cells += [CellKey(self.function, arm, net) for net in nets]
        cells += [CellKey(baseline.function, baseline.arm) for baseline in self.baselines]
        return tuple(dict.fromkeys(cells))

    def net_names(self) -> tuple[str, ...]:
        """Return the names that the nets have in cells."""
        return tuple(net.name for net in self.nets) if self.error_budget is None else self.error_budget.names()

    def net(self, name: str) -> NetChoice:
        """Return the net of that name, with its size; of an error budget's nets every size, chosen yet or not."""
        if self.error_budget is not None:
            return NetChoice.model_validate({"name": FAMILY, "pieces": self.error_budget.pieces_of(name)})
        return next(net for net in self.nets if net.name == name)

    def conditions(self, fingerprint: str) -> dict[str, Any]:
        """Return what all runs must share for their numbers to be compared: not how many there are, nor wording."""
        free = {"name", "question", "arms", "nets", "baselines", "throughput", "error_budget"}
        shared = self.model_dump(mode="json", exclude=free)
        if self.error_budget is not None:
            shared["error_budget"] = True  # its nets are fitted on another domain
        shared["task"] |= {"source": fingerprint}
        for stated in ("seeds", "margins", "looks", "target"):
            del shared["evaluation"][stated]
        for count in ("trials", "seeds_per_trial", "times"):
            del shared["tuning"][count]
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
    name_or_path: str,
    *,
    seeds: int | None = None,
    trials: int | None = None,
    tunings: int | None = None,
    data: Path | None = None,
    function: str | None = None,
) -> StudySpec:
    """Load the study of that name or in that file, with what the command line changes.

    A file or a named source in `data` makes a study of its own, called after both, and so does a `function` other than
    the study's. Raises InputError as `load_toml` does.
    """
    source = None if data is None else str(data) if str(data) in NAMED_SOURCES else str(data.absolute())
    counts = {"evaluation.seeds": seeds, "tuning.trials": trials, "tuning.times": tunings}
    asked = {**counts, "task.source": source, "function": function}
    changes = {key: value for key, value in asked.items() if value is not None}
    spec, folder = load_toml(StudySpec, "study", name_or_path, shipped_studies(), changes)
    if function is not None:
        own, _ = load_toml(StudySpec, "study", name_or_path, shipped_studies(), {})
        if own.function != function:
            spec = _called_after(spec, f"--function {function}", function)
    if data is not None:
        spec = _called_after(spec, f"--data {data}", data.stem, "; rename the file")
    return spec.model_copy(update={"task": spec.task.located(folder)})


def _called_after(spec: StudySpec, option: str, word: str, advice: str = "") -> StudySpec:
    """Return the study with a word after its name; raises InputError with the option if that makes no name."""
    try:
        name = _checked_name(f"{spec.name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', word)}")
    except ValueError as error:
        raise InputError(f"{option}: {error}{advice}.") from None
    return spec.model_copy(update={"name": name})


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with the project, by name."""
    return shipped_files("studies")
