"""Pairs of a source and a target sequence by split, and the tokens that every such task has. Imports no torch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.data.config import Split

__all__ = ["BEGIN", "END", "PADDING", "SEPARATOR", "SPECIALS", "PairSplits", "Pairs"]

PADDING, BEGIN, END, SEPARATOR = range(4)
SPECIALS = 4
"""The codec's own tokens are numbered from here."""

Sequences = list[list[int]]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sources and their targets, as a codec numbers them."""

    sources: Sequences
    targets: Sequences

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: slice) -> "Pairs":
        return Pairs(self.sources[rows], self.targets[rows])

    def picked(self, rows: NDArray[np.int64]) -> "Pairs":
        """Some of them, in that order."""
        return Pairs([self.sources[row] for row in rows], [self.targets[row] for row in rows])

    def longest(self) -> tuple[int, int]:
        """Tokens of the longest source and of the longest target."""
        return max(map(len, self.sources)), max(map(len, self.targets))


@dataclass(frozen=True, eq=False)
class PairSplits:
    """What is trained on, and what is measured on: inside what was trained, and by name beyond or apart."""

    training: Pairs
    held_out: dict[Split, Pairs]
    groups: dict[Split, dict[str, Pairs]] = field(default_factory=dict)
    """Further sets that the final evaluation measures one by one, such as `length_12` or `beyond`."""
