"""Describe what tuning tried: the ranges of the settings, and the seeds that each trial is run with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["EXHAUSTIVE", "Setting", "TunedRange", "TuningDesign", "of_cell", "shapes_runs", "trials_of_cell"]

Setting = float | int | bool | str | list[Any]
"""The value of a setting, as JSON has it: a list is one value, such as the hidden widths of a net."""

Choice = float | int | bool | str | tuple[Any, ...]
"""A setting's value where it must be hashable."""
EXHAUSTIVE = ("grid", "brute-force")
"""Samplers of Optuna's that try every point of a space once."""
_EDGE = 0.05
"""`TunedRange.edge` calls so large a share of a range, at either end, its edge."""
_ROUNDING = 1e-9
"""What a place within a range may be off by, since logarithms are rounded."""


@dataclass(frozen=True)
class TunedRange:
    """Bounds a setting that tuning chooses: a number, linear or logarithmic, or one of some choices."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None
    """The distance of two values, which are counted from `low`; None where every number between the ends will do."""
    integer: bool = False
    choices: tuple[Choice, ...] = ()
    """The values there are, in place of numbers between two ends; a list is a tuple here."""

    def count(self) -> int | None:
        """Return how many values there are; None for a continuum."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1 if self.integer else None)
        return None if step is None else math.floor((self.high - self.low) / step + _ROUNDING) + 1

    def values(self) -> list[Setting]:
        """Return all values of a range that has few, in order; none of a continuum."""
        if self.choices:
            return [list(choice) if isinstance(choice, tuple) else choice for choice in self.choices]
        found = [self.low + place * (self.step or 1) for place in range(self.count() or 0)]
        return [round(value) if self.integer else float(f"{value:.10g}") for value in found]

    def place(self, value: Setting) -> float:
        """Return where a value lies on the range's own scale: 0 at the low end, 1 at the high end.

        One of a few values lies in the middle of its part of the scale.
        """
        count = self.count()
        if self.choices:
            return (self.choices.index(_choice(value)) + 0.5) / len(self.choices)
        assert isinstance(value, (int, float))
        if self.log:
            value, low, high = math.log(value), math.log(self.low), math.log(self.high)
            return (value - low) / (high - low)
        if count is not None:
            return (round((value - self.low) / (self.step or 1)) + 0.5) / count
        return (value - self.low) / (self.high - self.low)

    def at(self, place: float) -> Setting:
        """Return the value at a place: what `place` gives for it."""
        count = self.count()
        if self.choices:
            chosen = self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
            return list(chosen) if isinstance(chosen, tuple) else chosen
        if self.log:
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
            return round(value) if self.integer else value
        if count is not None:
            return self.values()[min(int(place * count), count - 1)]
        return self.low + place * (self.high - self.low)

    def has(self, value: Setting) -> bool:
        """Return whether the value is one of the range's."""
        if self.choices:
            return _choice(value) in self.choices
        if isinstance(value, (bool, str, list)) or value is None or not self.low <= value <= self.high:
            return False
        places = (value - self.low) / (self.step or 1)
        return self.count() is None or self.log or abs(places - round(places)) < _ROUNDING

    def edge(self, value: Setting) -> str:
        """Return "low" or "high" for a value within 5 % of that end on the range's scale, else an empty string.

        Of a few values only the first and the last are at an end, and choices have no order.
        """
        if self.choices or isinstance(value, (str, list)):
            return ""
        if self.count() is not None:
            return "low" if value <= self.low else "high" if value > self.high - (self.step or 1) else ""
        place = self.place(value)
        return "low" if place <= _EDGE + _ROUNDING else "high" if place >= 1 - _EDGE - _ROUNDING else ""

    def as_fields(self) -> dict[str, Any]:
        """Return the fields, as JSON has them, without those of kinds of ranges that this one isn't."""
        later = {"step": self.step, "integer": self.integer, "choices": list(self.choices)}
        first = {"name": self.name, "low": self.low, "high": self.high, "log": self.log}
        return first | {name: value for name, value in later.items() if value}


@dataclass(frozen=True)
class TuningDesign:
    """Says what tuning tried in every cell; empty where nothing is tuned, and in results from before cards had it."""

    seeds: tuple[int, ...] = ()
    """The seeds that each trial is run with."""
    ranges: tuple[TunedRange, ...] = ()
    again: tuple[tuple[int, ...], ...] = ()
    """The seeds of each further time that the study is tuned, which its words are checked with."""
    sampler: str = ""
    """Optuna's sampler, which chose each cell's settings by itself; empty where all cells were tried with the same."""
    pruner: str = ""
    """Optuna's pruner; empty where every trial was run to its end."""
    objectives: tuple[str, ...] = ()
    """The metrics that tuning weighs, the judged one first; empty where that is the only one."""
    budgets: tuple[int, ...] = ()
    """Smaller numbers of trials whose best settings were evaluated too."""
    roles: tuple[tuple[str, str], ...] = ()
    """What the study calls its settings, by name: scientific, nuisance or fixed."""

    def trials(self, has_net: bool, budget: int) -> int:
        """Return how many trials a cell has, where `budget` are asked for in every cell."""
        return trials_of_cell(self.ranges, self.sampler.partition(" ")[0], has_net, budget)

    def further(self) -> tuple["TuningDesign", ...]:
        """Return the design of each further time."""
        return tuple(replace(self, seeds=seeds, again=()) for seeds in self.again)

    def as_fields(self) -> dict[str, Any]:
        """Return the fields, as JSON has them; those that later versions added only where they say something."""
        later = {
            "again": [list(seeds) for seeds in self.again],
            "sampler": self.sampler,
            "pruner": self.pruner,
            "objectives": list(self.objectives),
            "budgets": list(self.budgets),
            "roles": [list(role) for role in self.roles],
        }
        first: dict[str, Any] = {"seeds": list(self.seeds), "ranges": [tuned.as_fields() for tuned in self.ranges]}
        return first | {name: value for name, value in later.items() if value}

    @staticmethod
    def of(fields: Mapping[str, Any]) -> "TuningDesign":
        """Return the design whose fields were written as JSON."""
        ranges = [
            {**tuned, "choices": tuple(map(_choice, tuned.get("choices", ())))} for tuned in fields.get("ranges", ())
        ]
        return TuningDesign(
            tuple(fields.get("seeds", ())),
            tuple(TunedRange(**tuned) for tuned in ranges),
            tuple(tuple(seeds) for seeds in fields.get("again", ())),
            fields.get("sampler", ""),
            fields.get("pruner", ""),
            tuple(fields.get("objectives", ())),
            tuple(fields.get("budgets", ())),
            tuple((name, role) for name, role in fields.get("roles", ())),
        )


def of_cell(ranges: Sequence[TunedRange], has_net: bool) -> tuple[TunedRange, ...]:
    """Return those ranges that act on a cell: those of nets only where it has one."""
    return tuple(tuned for tuned in ranges if has_net or not _is_of_nets(tuned.name))


def trials_of_cell(ranges: Sequence[TunedRange], sampler: str, has_net: bool, budget: int) -> int:
    """Return how many trials a cell has, where `budget` are asked for: no more than there are points to try.

    There is one point where no range acts on the cell; of other spaces only samplers that try each point once run out.
    """
    own = of_cell(ranges, has_net)
    if (own or not ranges) and sampler not in EXHAUSTIVE:
        return budget
    return min(budget, math.prod(tuned.count() or budget for tuned in own))


def shapes_runs(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return those settings of a trial that a fit and a speed depend on: of nets and models."""
    return {n: value for n, value in settings.items() if _is_of_nets(n) or n.startswith("model.")}


def _is_of_nets(name: str) -> bool:
    return name == "net" or name.startswith("nets.")


def _choice(value: Setting | Choice) -> Choice:
    return tuple(value) if isinstance(value, list) else value
