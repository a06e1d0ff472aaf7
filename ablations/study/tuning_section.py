"""The section of a study file that says how settings are chosen before the arms are compared. Imports no torch."""

from typing import Annotated, Any, Literal

from trans4init.ablations.errors import nearest
from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from trans4init.ablations.settings.numbers import LARGEST_SEED, Count
from trans4init.ablations.study.optuna_names import PRUNERS, SAMPLERS, OptunaChoice
from trans4init.ablations.study.space import Range, check_range, checked_space, tuned_range
from trans4init.reports.records.tuning_design import EXHAUSTIVE, TunedRange

__all__ = ["SEEDS_APART", "SHARED", "TuningSection"]

SHARED = "shared"
"""The sampler that is none of Optuna's: all cells are tried with the same settings."""
SEEDS_APART = 1000
"""Evaluation seeds are below it; the tuning seeds of `[tuning] seed` n begin at (n + 1) times it and are fewer."""
_LARGEST_TUNING_SEED = LARGEST_SEED // SEEDS_APART - 2
_LATER = ("sampler", "pruner", "generation", "objectives", "budgets", "roles")
"""Keys that are newer than the first published study. At their defaults they are left out of what is hashed."""

Role = Literal["scientific", "nuisance", "fixed"]


class TuningSection(BaseModel):
    """Sets the tuning budget, the same for every cell: trials of the settings in `space`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: Count = 8
    """Number of trials: the first uses the study's own settings, the others are spread over the space."""
    seeds_per_trial: Annotated[int, Field(ge=1, le=SEEDS_APART)] = 3
    """Number of tuning seeds that every trial is run with; its value is their mean."""
    seed: Annotated[int, Field(ge=0, le=_LARGEST_TUNING_SEED)] = 0
    """Chooses the settings of the trials, and the tuning seeds: no other `seed` has any of these."""
    times: Count = 1
    """How often the study is tuned: the second time as with the next `seed`, and so on. The words come from the first
    time; the report says which of them another one changes."""
    sampler: OptunaChoice = OptunaChoice(name=SHARED)
    """Chooses the settings of the trials: "shared" has the same points for every cell, which cross all ranges; every
    other one is Optuna's, and chooses for each cell by itself. A name, or a table of a name and its options."""
    pruner: OptunaChoice = OptunaChoice(name="none")
    """Stops tuning runs that fall behind the trials of earlier generations: "none", or one of Optuna's by name."""
    generation: Count = 8
    """Number of trials that a sampler of Optuna's proposes at once, knowing the results of all generations before."""
    objectives: tuple[str, ...] = ()
    """Metrics that tuning weighs, the judged one first; of the trials within half the margin of the best in it, the one
    that is best in the others is evaluated. Empty: the judged metric alone."""
    budgets: tuple[Count, ...] = ()
    """Smaller numbers of trials whose best setting is evaluated as well: the report says which words depend on it."""
    roles: dict[str, Role] = Field(default={})
    """What a setting is in this study: scientific (asked about), nuisance (tuned away) or fixed."""
    space: dict[str, Range] = Field(default={})
    """The ranges of settings that trials change: of [training] by name, `model.…`, `nets.…` for sizes, or `net`."""

    def seeds(self, time: int = 0) -> range:
        """Return the seeds that each trial is run with; no run that is evaluated has any of them.

        time: which time the study is tuned, from 0.
        """
        first = SEEDS_APART * (self.seed + time + 1)
        return range(first, first + self.seeds_per_trial)

    def time_of(self, seed: int) -> int:
        """Return which time of tuning a tuning seed belongs to, from 0."""
        return seed // SEEDS_APART - 1 - self.seed

    def ranges(self) -> tuple[TunedRange, ...]:
        """Return the ranges of the space by name."""
        return tuple(tuned_range(name, allowed) for name, allowed in sorted(self.space.items()))

    @field_validator("sampler", mode="before")
    @classmethod
    def _known_sampler(cls, sampler: Any) -> Any:
        return SAMPLERS.checked(sampler)

    @field_validator("pruner", mode="before")
    @classmethod
    def _known_pruner(cls, pruner: Any) -> Any:
        return PRUNERS.checked(pruner)

    @field_validator("space", mode="before")
    @classmethod
    def _known_settings(cls, space: Any) -> Any:
        return checked_space(space) if isinstance(space, dict) else space

    @field_validator("space")
    @classmethod
    def _allowed_values(cls, space: dict[str, Range]) -> dict[str, Range]:
        for name, allowed in space.items():
            check_range(name, allowed)
        return space

    @model_validator(mode="after")
    def _parts_fit(self) -> "TuningSection":
        if self.seed + self.times - 1 > _LARGEST_TUNING_SEED:
            raise ValueError(f"seed + times must be at most {_LARGEST_TUNING_SEED + 1}")
        if self.objectives and self.pruner.name != "none":
            raise ValueError("several objectives can't be pruned: a run that is behind in one may lead in another")
        if len(set(self.objectives)) < len(self.objectives) or len(self.objectives) == 1:
            raise ValueError("objectives must be two or more metrics, each named once")
        if list(self.budgets) != sorted(set(self.budgets)) or (self.budgets and self.budgets[-1] >= self.trials):
            raise ValueError(f"budgets must ascend and be less than trials = {self.trials}, not {list(self.budgets)}")
        for name, role in self.roles.items():
            if role == "fixed" and name in self.space:
                raise ValueError(f"roles calls {name} fixed, but it has a range in the space")
            if role != "fixed" and name not in self.space:
                close = nearest(name, self.space)
                hint = f"; did you mean {close!r}?" if close else ""
                raise ValueError(f"roles calls {name} {role}, but it has no range in the space{hint}")
        points = self._points()
        if self.sampler.name in EXHAUSTIVE:
            continuous = [tuned.name for tuned in self.ranges() if tuned.count() is None]
            if continuous:
                raise ValueError(f"sampler {self.sampler.name!r} needs choices or steps: {continuous[0]} has neither")
            if points < self.trials:
                raise ValueError(f"sampler {self.sampler.name!r} has {points} points, and trials = {self.trials}")
        return self

    def _points(self) -> int:
        """Return how many points the space has, if all of its ranges have few."""
        points = 1
        for tuned in self.ranges():
            points *= tuned.count() or 1
        return points

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump the newer keys only if they differ from their defaults, so that hashes of earlier studies stay."""
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        kept = {name for name in values if name not in _LATER or getattr(self, name) != fields[name].default}
        return {name: value for name, value in values.items() if name in kept}
