"""What a decoder's training step and its decoding need at least: floating-point operations, and bytes that move.

Operations are those of the matrices and of attention, as DESIGN counts them: 4·B·H·Lq·Lk·D forward, half where causal,
2.5 times that backward. Bytes: every input read once, every output written once, in float32.
"""

from dataclasses import dataclass

from trans4init.ablations.settings.model import ModelSize

__all__ = ["Floor", "decoding_floor", "training_floor"]

_FLOAT, _TOKEN = 4, 8
"""Bytes of a parameter, and of a token's number."""


@dataclass(frozen=True)
class Floor:
    """The least that an operator needs."""

    flop: float
    bytes: float


def training_floor(model: ModelSize, vocabulary: int, batch: int) -> Floor:
    """A step on `batch` windows of the model's context: both passes, and AdamW's update.

    In: tokens, parameters and two moments of each; out: parameters and moments.
    """
    tokens = batch * model.context
    blocks, output = _matrices(model, vocabulary)
    attention = model.layers * batch * 4 * model.context**2 * model.width / 2
    flop = 6 * (blocks + output) * tokens + 3.5 * attention
    return Floor(flop, _FLOAT * 6 * (blocks + output) + _TOKEN * batch * (model.context + 1))


def decoding_floor(model: ModelSize, vocabulary: int, batch: int, prompt: int, new: int) -> Floor:
    """`new` tokens after each of `batch` prompts of `prompt`, each token computed once, none computed again."""
    read = prompt + new - 1  # nothing follows the last
    blocks, output = _matrices(model, vocabulary)
    attention = model.layers * 4 * model.width * read * (read + 1) / 2
    flop = batch * (2 * blocks * read + 2 * output * new + attention)
    return Floor(flop, _FLOAT * (blocks + output) + _TOKEN * batch * (prompt + new))


def _matrices(model: ModelSize, vocabulary: int) -> tuple[int, int]:
    """Values in the blocks' matrices, and in the output's, which is the embedding's where they are tied."""
    if model.kind != "decoder":
        raise ValueError(f"a floor is known of a decoder, not of kind {model.kind}")
    width, inner = model.width, model.feed_forward or 4 * model.width
    shared = width * (model.key_value_heads or model.heads) // model.heads
    each = 2 * width * width + 2 * width * shared + (3 if model.gated else 2) * width * inner
    return model.layers * each, vocabulary * width
