"""Describe what tuning tried: the ranges of the settings, and the seeds that each trial is run with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TunedRange", "TuningDesign"]

_EDGE = 0.05
"""`TunedRange.edge` calls so large a share of a range, at either end, its edge."""
_ROUNDING = 1e-9
"""What a place within a range may be off by, since logarithms are rounded."""


@dataclass(frozen=True)
class TunedRange:
    """Bounds a setting that tuning chooses: linear, or logarithmic."""

    name: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies on the range's own scale: 0 at the low end, 1 at the high end."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low)

    def at(self, place: float) -> float:
        """Return the value at a place: what `place` gives for it."""
        if self.log:
            return math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        return self.low + place * (self.high - self.low)

    def edge(self, value: float) -> str:
        """Return "low" or "high" for a value within 5 % of that end on the range's scale, else an empty string."""
        place = self.place(value)
        return "low" if place <= _EDGE + _ROUNDING else "high" if place >= 1 - _EDGE - _ROUNDING else ""


@dataclass(frozen=True)
class TuningDesign:
    """Says what tuning tried in every cell; empty where nothing is tuned, and in results from before cards had it."""

    seeds: tuple[int, ...] = ()
    """The seeds that each trial is run with."""
    ranges: tuple[TunedRange, ...] = ()
    again: tuple[tuple[int, ...], ...] = ()
    """The seeds of each further time that the study is tuned, which its words are checked with."""

    def further(self) -> tuple["TuningDesign", ...]:
        """Return the design of each further time."""
        return tuple(TuningDesign(seeds, self.ranges) for seeds in self.again)

    @staticmethod
    def of(fields: Mapping[str, Any]) -> "TuningDesign":
        """Return the design whose fields were written as JSON."""
        return TuningDesign(
            tuple(fields.get("seeds", ())),
            tuple(TunedRange(**tuned) for tuned in fields.get("ranges", ())),
            tuple(tuple(seeds) for seeds in fields.get("again", ())),
        )
