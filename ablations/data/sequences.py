"""Generated sequence tasks: copy, reverse, sort, addition. Imports no torch."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.data.config import Kind, Split, TaskConfig
from trans4init.ablations.data.pairs import Pairs, Sequences
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.base import Field, model_validator
from trans4init.ablations.settings.numbers import Count
from trans4init.reports.records.metrics import EXACT_MATCH, GENERATED_EXACT_MATCH, VALIDATION_LOSS, of_group
from trans4init.reports.records.schema import Metric

__all__ = ["AdditionConfig", "CopyConfig", "ReverseConfig", "SequenceConfig", "SortConfig"]


_SHARES: dict[Split | None, tuple[int, int]] = {"tune": (0, 10), "evaluate": (10, 20), None: (20, 100)}
"""Percent ranges of the input's hash: 0 to 10 validation, 10 to 20 test, the rest (None) training; for every length."""


class SequenceConfig(TaskConfig):
    """Inputs of random symbols. A hash of the input decides which are tested, so that none of them is trained on."""

    kinds: ClassVar[tuple[Kind, ...]] = ("decoder", "encoder-decoder")

    symbols: Annotated[int, Field(ge=2, le=1000)] = 10
    """Number of different symbols."""
    shortest: Count = 3
    """Length of the shortest input, in symbols."""
    longest: Count = 10
    """Length of the longest input that is trained on, in symbols."""
    tested_longest: Count = 20
    """Length of the longest input that is tested, in symbols."""
    evaluation_examples: Count = 50
    """Number of tested examples of each length."""

    @model_validator(mode="after")
    def _lengths_in_order(self) -> "SequenceConfig":
        if not self.shortest <= self.longest <= self.tested_longest:
            raise ValueError(
                f"lengths must be in order: shortest {self.shortest}, longest {self.longest}, "
                f"tested_longest {self.tested_longest}"
            )
        if self.inputs_of_length(self.shortest) < 200:
            raise ValueError(
                f"{self.inputs_of_length(self.shortest)} inputs of length {self.shortest} are too few to hold "
                f"some out; raise symbols or shortest"
            )
        return self

    def inputs_of_length(self, length: int) -> int:
        """Return the number of different inputs of a length."""
        return int(self.symbols**length)

    def alphabet(self) -> list[str]:
        """Return the symbols as words."""
        return [str(number) for number in range(self.symbols)]

    @property
    def lengths(self) -> range:
        """The tested lengths."""
        return range(self.shortest, self.tested_longest + 1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation: over the trained lengths, beyond them, and at each length."""
        both = (EXACT_MATCH, GENERATED_EXACT_MATCH)
        groups = ["beyond"] if self.tested_longest > self.longest else []
        groups += [f"length_{length}" for length in self.lengths]
        return (VALIDATION_LOSS, *both, *(of_group(metric, group) for group in groups for metric in both))

    def target(self, source: list[int]) -> list[int]:
        """Return the target of an input."""
        raise NotImplementedError

    def drawn(self, length: int, count: int, generator: np.random.Generator) -> Sequences:
        """Draw `count` random inputs of a length."""
        rows: Sequences = generator.integers(self.symbols, size=(count, length)).tolist()
        return rows

    def examples(self, lengths: NDArray[np.int64], generator: np.random.Generator, split: Split | None) -> Pairs:
        """Draw an example of each length from the inputs that belong to the split (None: those that are trained on)."""
        sources: Sequences = [[] for _ in lengths]
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            inputs: Sequences = []
            while len(inputs) < len(places):
                drawn = self.drawn(int(length), 2 * len(places), generator)
                inputs += [source for source in drawn if _belongs(source, split)]
            for place, source in zip(places, inputs, strict=False):
                sources[place] = source
        return Pairs(sources, [self.target(source) for source in sources])

    def held_out(self, split: Split, length: int) -> Pairs:
        """Return the examples of a length that models are measured on."""
        generator = np.random.default_rng(derived_seed(0, self.name, split, length))
        return self.examples(np.full(self.evaluation_examples, length), generator, split)

    def __str__(self) -> str:
        return f"{self.name} of {self.shortest} to {self.longest} symbols, tested to {self.tested_longest}"


class CopyConfig(SequenceConfig):
    """Names the data of task `copy`."""

    name: Literal["copy"] = "copy"

    def target(self, source: list[int]) -> list[int]:
        """Return the source."""
        return source


class ReverseConfig(SequenceConfig):
    """Names the data of task `reverse`."""

    name: Literal["reverse"] = "reverse"

    def target(self, source: list[int]) -> list[int]:
        """Return the source backwards."""
        return source[::-1]


class SortConfig(SequenceConfig):
    """Names the data of task `sort`."""

    name: Literal["sort"] = "sort"

    def target(self, source: list[int]) -> list[int]:
        """Return the symbols in rising order."""
        return sorted(source)


class AdditionConfig(SequenceConfig):
    """Names the data of task `addition`: two numbers of the same number of digits; the length is that number."""

    name: Literal["addition"] = "addition"
    symbols: Literal[10] = 10
    """The ten digits."""
    shortest: Count = 2
    """Digits of the shortest numbers that are added."""
    longest: Count = 4
    """Digits of the longest numbers that are trained on."""
    tested_longest: Count = 6
    """Digits of the longest numbers that are tested."""
    reversed: bool = False
    """Whether the sum is written from its last digit on, in the order in which carries arise."""

    def inputs_of_length(self, length: int) -> int:
        """Return the number of pairs of numbers."""
        return int(100**length)

    def alphabet(self) -> list[str]:
        """Return the digits and the plus sign."""
        return [*"0123456789+"]

    def drawn(self, length: int, count: int, generator: np.random.Generator) -> Sequences:
        """Draw two numbers with a plus sign between them; they keep leading zeros."""
        digits = generator.integers(10, size=(count, 2 * length + 1))
        digits[:, length] = 10
        rows: Sequences = digits.tolist()
        return rows

    def target(self, source: list[int]) -> list[int]:
        """Return the digits of the sum, one more than the numbers have."""
        length = len(source) // 2
        first, second = ("".join(map(str, part)) for part in (source[:length], source[length + 1 :]))
        digits = [int(digit) for digit in f"{int(first) + int(second):0{length + 1}d}"]
        return digits[::-1] if self.reversed else digits

    def __str__(self) -> str:
        return f"addition of {self.shortest} to {self.longest} digits, tested to {self.tested_longest}"


def _belongs(source: list[int], split: Split | None) -> bool:
    """Return whether the input belongs to the split, by a hash that is the same on every machine."""
    first, last = _SHARES[split]
    value = 0
    for symbol in source:
        value = (value * 1_000_003 + symbol + 1) % 2_147_483_647
    return first <= (value * 48_271 % 2_147_483_647) % 100 < last
