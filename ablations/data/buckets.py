"""Batches of examples of similar length: as many as fit into a number of tokens, in an order drawn from a seed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.seeding import derived_seed

__all__ = ["epochs", "token_buckets"]


def token_buckets(lengths: NDArray[np.int64], budget: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Every example once, in batches of at most `budget` tokens with their padding (or of one example that is longer).

    Examples of one length meet others of it anew each time; the batches come in random order.
    """
    shuffled = generator.permutation(len(lengths))
    order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    batches, first = [], 0
    for place in range(1, len(order) + 1):
        full = place == len(order) or lengths[order[place]] * (place + 1 - first) > budget
        if full:
            batches.append(order[first:place])
            first = place
    return [batches[number] for number in generator.permutation(len(batches))]


def epochs(seed: int, lengths: NDArray[np.int64], size: int, *, tokens: bool) -> Iterator[NDArray[np.int64]]:
    """Batches of examples without end, every example once an epoch.

    tokens: `size` is tokens with padding, else examples; then an epoch's last batch is filled up from the next epoch.
    """
    kept = np.empty(0, dtype=np.int64)
    number = 0
    while True:
        generator = np.random.default_rng(derived_seed(seed, "batches", number))
        number += 1
        if tokens:
            yield from token_buckets(lengths, size, generator)
            continue
        kept = np.concatenate([kept, generator.permutation(len(lengths))])
        while len(kept) >= size:
            yield kept[:size]
            kept = kept[size:]
