"""Task `text`: predict the next byte or character of a text."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trans4init.ablations.data.codec import ByteCodec, CharacterCodec, Codec
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.text import BITS_PER_BYTE, MULTIPLES, SPLITS, Text, TextConfig, read_text
from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.slots.contents import OutsideDomainError
from trans4init.ablations.tasks.base import TASKS, Batch, Task, evaluating
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records.metrics import PERPLEXITY, VALIDATION_LOSS, at_context
from trans4init.reports.records.schema import Measurement

_TOKENS_AT_ONCE = 4096
"""Tokens of one batch of an evaluation: more take more memory."""


@TASKS.register
class TextTask(Task):
    """Predict each token of a text from up to `context` tokens before it."""

    name = "text"
    judged = VALIDATION_LOSS

    def __init__(self, config: TextConfig, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        self.check_kind(config, kind)
        self.config, self.context, self.device = config, context, device
        self.text: Text = read_text(config)
        self.fingerprint = self.text.fingerprint
        _check_length(self.text, context)
        self._training = {split: torch.from_numpy(self.text.training(split).copy()) for split in SPLITS}
        self._held_out = {split: torch.from_numpy(self.text.held_out(split).copy()) for split in SPLITS}

    @property
    def model_fields(self) -> dict[str, Any]:
        """The number of tokens: one per byte, or per different character."""
        return {"vocabulary": self.text.vocabulary}

    @property
    def codec(self) -> Codec:
        """The codec of bytes or of the text's characters."""
        return CharacterCodec(self.text.alphabet) if self.text.alphabet else ByteCodec()

    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[tuple[Split, Tensor]]:
        """Yield where windows start, [size, 1], anywhere in the text before `split`."""
        highest, generator = len(self._training[split]) - self.context, keyed_generator(seed, "batches")
        while True:
            yield split, torch.randint(highest, (size, 1), generator=generator)

    def collate(self, key: tuple[Split, Tensor]) -> Batch:
        """Return windows of `context` + 1 tokens: each but the last is an input, each but the first a target."""
        split, starts = key
        return _windows_as_batch(self._training[split][starts + torch.arange(self.context + 1)].long())

    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure the loss at the trained context; finally also bits per byte, perplexity, and longer contexts.

        A context for which the model has no positions is left out.
        """
        loss = self._mean_loss(model, split, 1)
        measurements = [Measurement(VALIDATION_LOSS, loss, step)]
        if not final:
            return measurements
        predicted = self._windows(split, 1)[:, 1:].numpy()
        measurements.append(Measurement(BITS_PER_BYTE, loss / math.log(2) / self.text.bytes_per_token(predicted), step))
        measurements.append(Measurement(PERPLEXITY, math.exp(min(loss, 700.0)), step))
        for multiple in MULTIPLES[1:]:
            try:
                longer = self._mean_loss(model, split, multiple)
            except OutsideDomainError:
                continue
            measurements.append(Measurement(at_context(VALIDATION_LOSS, multiple), longer, step))
        return measurements

    def _mean_loss(self, model: nn.Module, split: Split, multiple: int) -> float:
        windows = self._windows(split, multiple)
        at_once = max(1, _TOKENS_AT_ONCE // (multiple * self.context))
        with evaluating(model):
            parts = torch.split(windows, at_once)
            total = sum(len(part) * float(self.loss(model, _windows_as_batch(part).to(self.device))) for part in parts)
        return total / len(windows)

    def _windows(self, split: Split, multiple: int) -> Tensor:
        """Return windows [n, multiple · context + 1]; they predict the same tokens for every multiple."""
        tokens, longest = self._held_out[split], MULTIPLES[-1] * self.context
        stretches = max(1, min(self.config.evaluation_tokens // longest, (len(tokens) - 1) // longest))
        starts = torch.linspace(0, len(tokens) - longest - 1, stretches, dtype=torch.float64).long()
        length = multiple * self.context
        within = torch.arange(0, longest, length)
        return tokens[(starts[:, None] + within).reshape(-1, 1) + torch.arange(length + 1)].long()


def _windows_as_batch(windows: Tensor) -> Batch:
    """Return the batch in which each token but the first is predicted from those before it."""
    return Batch(windows[:, :-1], windows[:, 1:])


def _check_length(text: Text, context: int) -> None:
    """Raise InputError if a split is shorter than one window of the longest test."""
    longest = MULTIPLES[-1] * context + 1
    short = [split for split in SPLITS if len(text.held_out(split)) < longest]
    if short:
        smallest = min(last - first for first, last in SPLITS.values())
        raise InputError(
            f"{text.source} has {len(text.tokens)} tokens, too few for context {context}: each split must hold "
            f"{longest} (the {short[0]} split doesn't), so at least {math.ceil((longest + 1) / smallest)} in all."
        )
