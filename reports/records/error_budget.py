"""What an error budget states: the nets of growing size that are compared, and how close its bisection comes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BudgetDesign"]


@dataclass(frozen=True)
class BudgetDesign:
    """Names the nets of an error budget. They are of one kind, fitted to one function, and differ in size alone."""

    pieces: tuple[tuple[str, int], ...]
    """Each net's name and its number of pieces, the fewest first."""
    sharpened: tuple[str, ...]
    """The names of those nets that bisection chose after the others were judged."""
    planned: int
    """How many cells can be compared with the reference: all of these and of the bisection's steps, whether or not they
    were made. The words are corrected for so many."""
    factor: float
    """Bisection ends where the smallest error that is too large is at most so many times the largest that isn't."""

    @classmethod
    def of(cls, fields: Mapping[str, Any] | None) -> "BudgetDesign | None":
        """Return the design that `dataclasses.asdict` turned into `fields`; None for None."""
        if fields is None:
            return None
        pieces = tuple((name, int(number)) for name, number in fields["pieces"])
        return cls(pieces, tuple(fields["sharpened"]), int(fields["planned"]), float(fields["factor"]))
