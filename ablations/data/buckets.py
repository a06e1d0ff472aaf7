"""Divide examples into batches, by number or by tokens, in an order drawn from a seed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.seeding import derived_seed

__all__ = ["epochs", "token_buckets"]


def token_buckets(lengths: NDArray[np.int64], budget: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Put every example into one batch of at most `budget` tokens, padding included; return the batches.

    Examples of similar length share a batch; a longer example than the budget is a batch of its own. Which examples of
    the same length meet, and the order of the batches, are random.
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
    """Yield batches of example numbers without end, every example once an epoch.

    tokens: whether `size` counts tokens, padding included, instead of examples. With examples, an epoch's last batch
    is filled up from the next epoch.
    """
    rest = np.empty(0, dtype=np.int64)
    number = 0
    while True:
        generator = np.random.default_rng(derived_seed(seed, "batches", number))
        number += 1
        if tokens:
            yield from token_buckets(lengths, size, generator)
            continue
        rest = np.concatenate([rest, generator.permutation(len(lengths))])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
