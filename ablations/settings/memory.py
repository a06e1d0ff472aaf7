"""Estimate the memory that a model takes at least, and refuse what this machine can't hold. Imports no torch."""

import os

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig

__all__ = ["check_memory", "least_bytes"]


def least_bytes(size: ModelSize, training: TrainingConfig | None = None) -> int:
    """Return how many bytes the model's blocks take in float32; in training with gradients, AdamW's state and inputs.

    What is left out makes it more: the vocabulary, caches, and what layers keep for the backward pass beside their
    inputs.
    """
    layers = size.layers + ((size.encoder_layers or size.layers) if size.kind == "encoder-decoder" else 0)
    keys_values = 2 * (size.key_value_heads or size.heads) * (size.width // size.heads)
    inner = size.feed_forward or 4 * size.width
    block = size.width * (2 * size.width + keys_values + (3 if size.gated else 2) * inner)
    weights = 4 * layers * block
    if training is None:
        return weights
    rows = training.batch * (size.positions if training.batch_unit == "examples" else 1) // training.accumulate
    return 4 * weights + 4 * rows * size.width * layers


def check_memory(size: ModelSize, training: TrainingConfig | None = None) -> None:
    """Raise InputError where that is more memory than this machine has."""
    needed, there = least_bytes(size, training), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        doing = "training" if training else "making"
        raise InputError(
            f"{doing} this model ({size}) takes at least {needed / 2**30:,.0f} GiB, and this machine has "
            f"{there / 2**30:,.0f}: choose fewer layers or a smaller width{', batch or context' if training else ''}."
        )
