"""Batches by tokens: within the budget, everything once an epoch, the same for a seed and for any number of workers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.data.buckets import epochs, token_buckets
from trans4init.ablations.data.scan import ScanConfig
from trans4init.ablations.data.sequences import CopyConfig
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.tasks.scan import Scan
from trans4init.ablations.tasks.sequences import Copy
from trans4init.ablations.tasks.text import TextTask

CPU = torch.device("cpu")


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 200), st.integers(0, 5))
def test_every_example_comes_once_within_the_budget(lengths, budget, seed):
    sizes = np.array(lengths)
    batches = token_buckets(sizes, budget, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or sizes[batch].max() * len(batch) <= budget for batch in batches)


def test_buckets_waste_little_on_padding():
    sizes = np.random.default_rng(0).integers(1, 60, size=3000)
    batches = token_buckets(sizes, 1000, np.random.default_rng(0))
    padded = sum(sizes[batch].max() * len(batch) for batch in batches)
    assert padded < 1.05 * sizes.sum()


def test_epochs_come_in_another_order_each_and_lose_nothing():
    sizes = np.arange(1, 24)
    for tokens, size in ((True, 60), (False, 5)):
        batches = list(itertools.islice(epochs(0, sizes, size, tokens=tokens), 60))
        order = np.concatenate(batches)[: 2 * len(sizes)].tolist()
        first, second = order[: len(sizes)], order[len(sizes) :]
        assert sorted(first) == sorted(second) == list(range(len(sizes)))
        assert first != second
        again = np.concatenate(list(itertools.islice(epochs(0, sizes, size, tokens=tokens), 60)))
        assert again.tolist() == np.concatenate(batches).tolist()


def held(task, **options):
    found = list(itertools.islice(task.batches(3, 64, "tune", **options), 6))
    return [[tensor for tensor in vars(batch).values() if tensor is not None] for batch in found]


@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_batches_are_the_same_whatever_the_number_of_workers(unit):
    task = Scan(ScanConfig(), 64, CPU, "encoder-decoder")
    alone = held(task, unit=unit)
    state = torch.get_rng_state()
    for workers in (1, 2):
        for one, other in zip(alone, held(task, unit=unit, workers=workers), strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws the same numbers


def test_batches_go_on_from_any_place(text_file):
    for task in (Copy(CopyConfig(), 48, CPU), TextTask(TextConfig(source=str(text_file)), 8, CPU)):
        for one, other in zip(held(task)[4:], held(task, start=4), strict=False):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_task_that_makes_batches_of_examples_says_so(text_file):
    task = TextTask(TextConfig(source=str(text_file)), 8, CPU)
    with pytest.raises(InputError, match="task text makes batches of examples"):
        next(task.batches(0, 4, "tune", unit="tokens"))
