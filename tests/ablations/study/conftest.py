"""What tests of grids share: a tiny grid of two functions, two tasks and three nets, whose runs take a moment."""

from collections.abc import Callable
from pathlib import Path

import pytest

GRID = """
name = "grid"
question = "Which of them?"
function = ["gelu", "silu"]
arms = ["analytic", "learned-frozen", "none"]

[[nets]]
name = "piecewise-linear"
pieces = [4, 8]

[[nets]]
name = "mlp-relu"
hidden = [8]

[fit]
steps = 20

[[task]]
source = "text.txt"
evaluation_tokens = 64

[[task]]
name = "copy"
longest = 4
tested_longest = 5
evaluation_examples = 5

[model]
layers = 1
width = 8
heads = 2
context = 16

[training]
steps = 6
batch = 2
learning_rate = 1e-2
warmup_steps = 2
evaluations = 2
log_every = 2

[evaluation]
seeds = 2
margin = 0.05

[throughput]
rounds = 2
steps_per_round = 1
"""


@pytest.fixture(scope="session")
def write_grid(write_study) -> Callable[..., Path]:
    """Writes the grid and its text to a folder, with pieces of its text replaced; returns its file."""

    def write(folder: Path, *changes: tuple[str, str]) -> Path:
        write_study(folder)
        content = GRID
        for old, new in changes:
            assert content.count(old) == 1, f"{old!r} is not once in the grid"
            content = content.replace(old, new)
        path = folder / "grid.toml"
        path.write_text(content)
        return path

    return write
