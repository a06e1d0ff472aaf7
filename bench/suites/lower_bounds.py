"""Count the fewest floating-point operations and bytes that a decoder's training step and its decoding need.

Operations are those of the matrices, and of attention 4·B·H·Lq·Lk·D forward, half of it for a causal model, 2.5 times
that backward. Bytes: every input is read once, every output written once, in float32.
"""

from dataclasses import dataclass

from trans4init.ablations.settings.model import ModelSize

__all__ = ["LowerBound", "decoding_lower_bound", "training_lower_bound"]

_FLOAT, _TOKEN = 4, 8
"""Bytes of a float32 value, and of a token's number (int64)."""


@dataclass(frozen=True)
class LowerBound:
    """Counts the fewest operations and bytes that an operator needs."""

    flop: float
    bytes: float


def training_lower_bound(model: ModelSize, vocabulary: int, batch: int) -> LowerBound:
    """Count a step on `batch` windows of the model's context: both passes, and AdamW's update.

    Tokens, parameters and two moments of each are read; parameters and moments are written. Raises ValueError for a
    model that isn't a decoder.
    """
    tokens = batch * model.context
    blocks, output = _matrices(model, vocabulary)
    attention = model.layers * batch * 4 * model.context**2 * model.width / 2
    flop = 6 * (blocks + output) * tokens + 3.5 * attention
    return LowerBound(flop, _FLOAT * 6 * (blocks + output) + _TOKEN * batch * (model.context + 1))


def decoding_lower_bound(model: ModelSize, vocabulary: int, batch: int, prompt: int, new: int) -> LowerBound:
    """Count `new` tokens after each of `batch` prompts of `prompt` tokens, every token computed once.

    Raises ValueError for a model that isn't a decoder.
    """
    read = prompt + new - 1  # the last token is never an input
    blocks, output = _matrices(model, vocabulary)
    attention = model.layers * 4 * model.width * read * (read + 1) / 2
    flop = batch * (2 * blocks * read + 2 * output * new + attention)
    return LowerBound(flop, _FLOAT * (blocks + output) + _TOKEN * batch * (prompt + new))


def _matrices(model: ModelSize, vocabulary: int) -> tuple[int, int]:
    """Return how many values the blocks' matrices have, and the output matrix, which may be tied to the embedding."""
    if model.kind != "decoder":
        raise ValueError(f"lower bounds are counted for decoders, not for a model of kind {model.kind}")
    width, inner = model.width, model.feed_forward or 4 * model.width
    shared = width * (model.key_value_heads or model.heads) // model.heads
    each = 2 * width * width + 2 * width * shared + (3 if model.gated else 2) * width * inner
    return model.layers * each, vocabulary * width
