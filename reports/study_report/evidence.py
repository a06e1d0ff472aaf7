"""Read the paired differences of a cell carefully: the sign-flip test alone assumes that they are symmetric.

Where a cell's differences are skewed, the sign test, which assumes nothing of their shape, is asked too. A run that
lands badly once in ten times is missed by one cell of ten seeds in three: where several cells of a study have such a
run, each of the others is also read as if it had one more. The most careful answer counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from trans4init.reports.statistics import (
    Interval,
    equivalence_test,
    outliers,
    sign_flip_interval,
    sign_flip_test,
    sign_interval,
    sign_test,
    skewed,
)

__all__ = ["Evidence", "gather"]

_SEVERAL = 2
"""From so many cells with a bad run on, one is supposed in the others."""


@dataclass(frozen=True)
class Evidence:
    """Holds the paired differences of one cell, and reads them with care."""

    differences: tuple[float, ...]
    supposed: tuple[float, ...] = ()
    """Differences that no seed has shown, but that other cells make conceivable: each is added by itself."""

    @property
    def skewed(self) -> bool:
        """Whether the differences speak against symmetry."""
        return skewed(self.differences)

    def p_different(self) -> float | None:
        """Return p of the two-sided question: twice the largest of the tests' p for the direction that they agree on.

        None without a difference.
        """
        directions = [
            self._largest(partial(sign_flip_test, alternative=side), partial(sign_test, alternative=side))
            for side in ("greater", "less")
        ]
        known = [p for p in directions if p is not None]
        return min(1.0, 2 * min(known)) if known else None

    def p_equivalent(self, margin: float) -> float | None:
        """Return the largest p of the tests that the mean is within ±margin; None without a difference."""
        return self._largest(
            lambda sample: equivalence_test(sample, margin),
            lambda sample: equivalence_test(sample, margin, sign_test),
        )

    def interval(self, level: float) -> Interval | None:
        """Return the means that the tests don't all reject at this level; None where they are too few to reject any."""
        confidence = 1 - level
        found = [sign_flip_interval(sample, confidence) for sample in self._samples()]
        found += [sign_interval(self.differences, confidence)] if self.skewed else []
        known = [interval for interval in found if interval is not None]
        if len(known) < len(found):
            return None
        return Interval(min(interval.low for interval in known), max(interval.high for interval in known))

    def _largest(
        self, symmetric: Callable[[Sequence[float]], float], any_shape: Callable[[Sequence[float]], float]
    ) -> float | None:
        if not self.differences:
            return None
        p_values = [symmetric(sample) for sample in self._samples()]
        return max(p_values + ([any_shape(self.differences)] if self.skewed else []))

    def _samples(self) -> list[tuple[float, ...]]:
        return [self.differences] + [(*self.differences, other) for other in self.supposed]


def gather(cells: Sequence[Sequence[float]]) -> list[Evidence]:
    """Return the evidence of each cell of a study, from the differences of all.

    How far off a bad run is counts in units of its cell's spread, the median distance from the median: cells may differ
    by much in theirs. A cell without a spread says nothing of others.
    """
    spreads = [_spread(differences) for differences in cells]
    below, above = [], []
    for differences, spread in zip(cells, spreads, strict=True):
        far = outliers(differences) if spread else ()
        distances = [(differences[place] - median(differences)) / spread for place in far]
        below.append([distance for distance in distances if distance < 0])
        above.append([distance for distance in distances if distance > 0])
    evidence = []
    for index, differences in enumerate(cells):
        supposed = [
            median(differences) + spreads[index] * median([distance for cell in side for distance in cell])
            for side in (below, above)
            if differences and not side[index] and sum(map(bool, side)) >= _SEVERAL
        ]
        evidence.append(Evidence(tuple(differences), tuple(supposed)))
    return evidence


def _spread(differences: Sequence[float]) -> float:
    """Return the median distance of the differences from their median; 0 where there are none."""
    return median([abs(difference - median(differences)) for difference in differences]) if differences else 0.0
