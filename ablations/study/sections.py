"""The sections of a study file that no recipe has, but for tuning and error budgets. Imports no torch."""

from typing import Annotated, Any, Literal

from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from trans4init.ablations.settings.numbers import Count, Seed
from trans4init.ablations.slots.arms import get_arm
from trans4init.ablations.study.tuning_section import SEEDS_APART

__all__ = [
    "Baseline",
    "EvaluationSection",
    "FitSection",
    "NetChoice",
    "Section",
    "TargetSection",
    "ThroughputSection",
]


class Section(BaseModel):
    """Is a part of a study file: it takes no key that it doesn't know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NetChoice(BaseModel):
    """Names a net, with the options that set its size."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    """The net's name; its other keys are the options of its size."""
    label: str = ""
    """What cells and reports call the net; empty: its name."""

    @property
    def called(self) -> str:
        """The net's name in cells: its label, if it has one."""
        return self.label or self.name

    @model_serializer(mode="wrap")
    def _without_an_empty_label(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a label that isn't set, so that the ids of runs without one stay the same."""
        values: dict[str, Any] = handler(self)
        return values if self.label else {key: value for key, value in values.items() if key != "label"}

    def size(self) -> dict[str, Any]:
        """Return the options of the net's size: every key but the name and the label."""
        return dict(self.model_extra or {})


class Baseline(Section):
    """Names another function for the same slot, with one of its arms."""

    function: str
    """The other function; it has the same slot as the study's."""
    arm: str
    """The arm of the other function; one without a net."""

    @field_validator("arm")
    @classmethod
    def _known_arm(cls, arm: str) -> str:
        if get_arm(arm).uses_net:
            raise ValueError(f"a baseline has no net, but arm {arm!r} needs one; list it under arms")
        return arm


class FitSection(Section):
    """Says how nets are fitted to the function before the models are trained."""

    positions: Literal["training", "tested"] = "tested"
    """The positions that a net is fitted on: those of the trained context only, or also those of the longest test."""
    steps: Count = 3000
    """Number of Adam's steps in the fit of a net, before it is refined."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Adam's learning rate at the start of a fit; it falls as a cosine."""
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


class TargetSection(Section):
    """Names a value of a metric whose first time each run is asked for."""

    metric: str
    """The metric's name; one that can be judged."""
    value: float
    """The value to reach, in the metric's unit."""


class EvaluationSection(Section):
    """States, before any run, what the verdict is about."""

    seeds: Annotated[int, Field(ge=1, le=SEEDS_APART - 1)] = 10
    """Number of runs of each cell that the verdict is about; they differ in their seeds."""
    metric: str = "validation_loss"
    """The metric that the verdict is about, one of the task's."""
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


class ThroughputSection(Section):
    """Says how speed is measured when nothing else runs: in rounds of every cell in turn."""

    rounds: Annotated[int, Field(ge=2)] = 40
    """Number of rounds. The models are built again every four: speeds get an interval from 32 on."""
    steps_per_round: Count = 3
    """Number of training steps that each cell is timed for in a round."""
