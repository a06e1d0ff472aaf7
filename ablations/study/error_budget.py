"""The section of a study file that asks for an error budget: polylines of growing size in a function's place.

The error of the best polyline falls as 1 / pieces², so that sizes from 1 to 1000 pieces have errors of six decades.
Imports no torch.
"""

import math
from itertools import pairwise
from typing import Annotated

from trans4init.ablations.settings.base import BaseModel, ConfigDict, Field, field_validator
from trans4init.ablations.settings.numbers import Count

__all__ = ["BUDGET_ARM", "FAMILY", "ErrorBudgetSection"]

BUDGET_ARM = "learned-frozen"
"""The arm whose nets have the errors: nothing of them moves in training, so that the error stays what it is."""
FAMILY = "piecewise-linear"
"""The nets of every budget: the best polylines of so many pieces."""


class ErrorBudgetSection(BaseModel):
    """Names the sizes of the polylines that are fitted first, and how far bisection sharpens the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pieces: Annotated[tuple[Count, ...], Field(min_length=2)] = (1, 3, 10, 32, 100, 316, 1000)
    """Numbers of pieces, ascending."""
    factor: Annotated[float, Field(ge=1.05)] = 1.5
    """Sizes between the largest error that the model tolerates and the next larger one are tried until the two differ
    by at most this factor."""
    sharpened: Annotated[tuple[int, ...], Field(exclude=True)] = ()
    """The sizes that bisection has chosen so far, in its order; never set in a file."""

    @field_validator("pieces")
    @classmethod
    def _ascending(cls, pieces: tuple[int, ...]) -> tuple[int, ...]:
        if list(pieces) != sorted(set(pieces)):
            raise ValueError(f"pieces must ascend, not {list(pieces)}")
        return pieces

    @field_validator("sharpened")
    @classmethod
    def _chosen_by_the_study(cls, sharpened: tuple[int, ...]) -> tuple[int, ...]:
        raise ValueError("bisection chooses these sizes; leave the key out")

    def with_size(self, pieces: int) -> "ErrorBudgetSection":
        """Return the section after one more step of bisection."""
        return self.model_copy(update={"sharpened": (*self.sharpened, pieces)})

    def steps(self) -> int:
        """Return the most steps of bisection: each halves the errors' ratio on a logarithmic scale."""
        widest = max(2 * math.log(more / fewer) for fewer, more in pairwise(self.pieces))
        return max(0, math.ceil(math.log2(widest / math.log(self.factor))))

    def names(self) -> tuple[str, ...]:
        """Return the names of the nets, the fewest pieces first."""
        return tuple(_name(pieces) for pieces in sorted({*self.pieces, *self.sharpened}))

    def sharpened_names(self) -> tuple[str, ...]:
        """Return the names of the nets that bisection chose."""
        return tuple(_name(pieces) for pieces in self.sharpened)

    @staticmethod
    def pieces_of(name: str) -> int:
        """Return the number of pieces of the net with this name."""
        return int(name.removeprefix(f"{FAMILY}-"))


def _name(pieces: int) -> str:
    return f"{FAMILY}-{pieces}"
