"""How often a fault is tried: a few times in `nox -s tests`, as often as counts say in `nox -s faults`."""

import os
import random

import pytest

FULL = os.environ.get("TRANS4INIT_FAULTS") == "full"


@pytest.fixture
def tries():
    """`tries(5, 200)` is how often to try: the first number, or the second by `nox -s faults`."""
    return lambda few, many: many if FULL else few


@pytest.fixture
def damage():
    """Damages bytes: flips one bit, or cuts the end off; the same number does the same."""

    def damaged(content, number):
        chance = random.Random(number)
        if number % 10 == 0:
            return content[: chance.randrange(len(content))]
        changed = bytearray(content)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    return damaged
