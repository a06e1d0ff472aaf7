"""Training speed against a plain nanoGPT-style loop of the same model: `python -m trans4init.bench.training`.

Both take the same windows; they are timed in turn, round by round, so that whatever else the machine does slows both.
The yardstick is the baseline of this benchmark alone.
"""

import argparse
import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.recipe import load_recipe
from trans4init.ablations.threads import threads
from trans4init.ablations.trained import build
from trans4init.ablations.training import TrainingStep
from trans4init.reports.environment import usable_cores

__all__ = ["POSITIONS", "SIZES", "Yardstick", "YardstickStep", "main"]

SIZES = {"layers": 4, "heads": 4, "width": 128, "context": 64}
BATCH = 12
POSITIONS = "learned-table"


class YardstickBlock(nn.Module):
    """nanoGPT's block (model.py): pre-norm, causal attention by PyTorch's own kernel, GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        batch, length, width = state.shape
        split = self.attention(self.norm1(state)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in split)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        state = state + self.project(mixed.transpose(1, 2).contiguous().view(batch, length, width))
        result: Tensor = state + self.down(F.gelu(self.up(self.norm2(state))))
        return result


class Yardstick(nn.Module):
    """nanoGPT's model with the sizes of the character recipe, learned positions, tied output."""

    def __init__(self, vocabulary: int, layers: int, heads: int, width: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(YardstickBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of windows [B, L]."""
        state = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1], device=inputs.device))
        for block in self.blocks:
            state = block(state)
        logits = F.linear(self.norm(state), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


class YardstickStep:
    """nanoGPT's training step (train.py): draw windows, forward, backward, clip, AdamW, cosine."""

    def __init__(self, vocabulary: int, data: Tensor) -> None:
        self.model, self.data, self.number = Yardstick(vocabulary, **SIZES), data, 0
        matrices = [parameter for parameter in self.model.parameters() if parameter.dim() >= 2]
        vectors = [parameter for parameter in self.model.parameters() if parameter.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def __call__(self) -> None:
        """One step."""
        rate = 1e-4 + 0.5 * (1 + math.cos(math.pi * self.number / 2000)) * 9e-4
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        context = SIZES["context"]
        starts = torch.randint(len(self.data) - context, (BATCH,)).tolist()
        inputs = torch.stack([self.data[start : start + context] for start in starts]).long()
        targets = torch.stack([self.data[start + 1 : start + 1 + context] for start in starts]).long()
        loss: Tensor = self.model(inputs, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.number += 1


def own_step(recipe_name: str) -> tuple[Callable[[], None], int, Tensor]:
    """The project's step on the same sizes; the vocabulary, and the text that both learn from."""
    changes = {f"model.{name}": value for name, value in SIZES.items()} | {"model.position": POSITIONS}
    recipe = load_recipe(recipe_name, changes | {"training.batch": BATCH})
    task, model = build(recipe)
    step = TrainingStep(model, task, recipe.training)
    batches = task.batches(0, BATCH, "evaluate")
    text = task.collate(("evaluate", torch.arange(0, 400_000, SIZES["context"])[:, None])).inputs.flatten()

    def once() -> None:
        step(next(batches))

    return once, task.model_fields["vocabulary"], text


def main() -> None:
    """Time both in turn, and print tokens per second of each and the ratio's median with its interval."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="rounds that count")
    parser.add_argument("--steps", type=int, default=10, help="steps of each in a round")
    parser.add_argument("--recipe", default="text", help="text needs no download; shakespeare is the public recipe")
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    own, vocabulary, text = own_step(options.recipe)
    steps: dict[str, Callable[[], None]] = {"trans4init": own, "yardstick": YardstickStep(vocabulary, text)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    with threads(options.threads):
        for round_ in range(-3, options.rounds):
            for name in order.sample(sorted(steps), 2):
                start = time.perf_counter()
                for _ in range(options.steps):
                    steps[name]()
                if round_ >= 0:
                    seconds[name].append((time.perf_counter() - start) / options.steps)
    tokens = BATCH * SIZES["context"]
    for name, held in seconds.items():
        print(f"{name}: {tokens / np.median(held):,.0f} tokens/s (median of {options.rounds} rounds)")
    ratios = np.array(seconds["yardstick"]) / np.array(seconds["trans4init"])
    draws = np.random.default_rng(0).choice(ratios, size=(2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    print(f"speed against the yardstick: ×{np.median(ratios):.3f} [{low:.3f}, {high:.3f}] on {options.threads} threads")


if __name__ == "__main__":
    main()
