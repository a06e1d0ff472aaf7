"""Pairs of a source and a target sequence, and the special tokens of their tasks. Imports no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BEGIN", "END", "PADDING", "SEPARATOR", "SPECIALS", "Pairs"]

PADDING, BEGIN, END, SEPARATOR = range(4)
SPECIALS = 4
"""The number of special tokens; a model numbers the codec's tokens from here."""

Sequences = list[list[int]]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sources and their targets, as the codec numbers them."""

    sources: Sequences
    targets: Sequences

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: slice) -> "Pairs":
        return Pairs(self.sources[rows], self.targets[rows])

    def picked(self, rows: NDArray[np.int64]) -> "Pairs":
        """Return the pairs of these rows, in their order."""
        return Pairs([self.sources[row] for row in rows], [self.targets[row] for row in rows])

    def longest(self) -> tuple[int, int]:
        """Return the number of tokens of the longest source and of the longest target."""
        return max(map(len, self.sources)), max(map(len, self.targets))
