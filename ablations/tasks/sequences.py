"""Tasks `copy`, `reverse`, `sort` and `addition`: generated sequences, tested at each length and beyond."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from trans4init.ablations.data.codec import WordCodec
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.pairs import Pairs
from trans4init.ablations.data.sequences import SequenceConfig
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.tasks.base import TASKS, Batch
from trans4init.ablations.tasks.pairs import PairTask, pairs_as_batch, vocabulary

__all__ = ["Addition", "Copy", "Reverse", "Sort"]


class SequenceTask(PairTask):
    """Serves as the base of tasks whose inputs are drawn anew for every batch; tested inputs are never among them."""

    counts_tokens = False

    def __init__(self, config: SequenceConfig, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        self.check_kind(config, kind)
        self.config, self.context, self.device, self.kind = config, context, device, kind
        self.fingerprint = config.fingerprint()
        self._drawn: dict[tuple[Split, int], Pairs] = {}
        self.check_lengths(self._of_length("tune", config.longest))

    @property
    def model_fields(self) -> dict[str, Any]:
        """The number of tokens: one per symbol, and the special ones."""
        return vocabulary(self.codec.size)

    @property
    def codec(self) -> WordCodec:
        """The codec of symbols between blanks."""
        return WordCodec(self.config.alphabet())

    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[tuple[int, int]]:
        """Yield the seed of each batch, and its size."""
        number = 0
        while True:
            yield derived_seed(seed, "batches", number), size
            number += 1

    def collate(self, key: tuple[int, int]) -> Batch:
        """Return examples whose lengths are drawn uniformly from the trained ones."""
        seed, size = key
        generator = np.random.default_rng(seed)
        lengths = generator.integers(self.config.shortest, self.config.longest + 1, size=size)
        return pairs_as_batch(self.config.examples(lengths, generator, None), self.kind)

    def held_out(self, split: Split) -> Pairs:
        """Return the same number of pairs of every trained length."""
        lengths = range(self.config.shortest, self.config.longest + 1)
        groups = [self._of_length(split, length) for length in lengths]
        sources = [source for pairs in groups for source in pairs.sources]
        return Pairs(sources, [target for pairs in groups for target in pairs.targets])

    def groups(self, split: Split) -> Iterator[tuple[tuple[str, ...], Pairs]]:
        """Yield each tested length; those beyond the trained lengths also count in group `beyond`."""
        for length in self.config.lengths:
            beyond = ("beyond",) if length > self.config.longest else ()
            yield (f"length_{length}", *beyond), self._of_length(split, length)

    def _of_length(self, split: Split, length: int) -> Pairs:
        if (split, length) not in self._drawn:
            self._drawn[split, length] = self.config.held_out(split, length)
        return self._drawn[split, length]


@TASKS.register
class Copy(SequenceTask):
    """Repeat a sequence of symbols."""

    name = "copy"


@TASKS.register
class Reverse(SequenceTask):
    """Repeat a sequence of symbols backwards."""

    name = "reverse"


@TASKS.register
class Sort(SequenceTask):
    """Put a sequence of symbols in order."""

    name = "sort"


@TASKS.register
class Addition(SequenceTask):
    """Add two numbers, digit by digit."""

    name = "addition"
