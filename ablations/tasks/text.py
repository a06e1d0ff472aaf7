"""Task `text`: language modelling of one text, by byte or by character."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.data.text import BITS_PER_BYTE, MULTIPLES, SPLITS, Split, Text, TextConfig, read_text
from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots import OutsideDomainError
from trans4init.ablations.tasks.base import TASKS, Task
from trans4init.reports.metrics import VALIDATION_LOSS, at_context
from trans4init.reports.schema import Measurement

_TOKENS_AT_ONCE = 4096


@TASKS.register
class TextTask(Task):
    """Predict each token of a text from up to `context` tokens before it."""

    name = "text"

    def __init__(self, config: TextConfig, context: int, device: torch.device) -> None:
        self.config, self.context, self.device = config, context, device
        self.text: Text = read_text(config)
        self.vocabulary, self.fingerprint = self.text.vocabulary, self.text.fingerprint
        _check_length(self.text, context)
        self._training = {split: torch.from_numpy(self.text.training(split).copy()) for split in SPLITS}
        self._held_out = {split: torch.from_numpy(self.text.held_out(split).copy()) for split in SPLITS}

    def batches(self, seed: int, size: int, split: Split) -> Iterator[Tensor]:
        """Windows [size, context + 1] that start anywhere in the text before `split`."""
        tokens, generator = self._training[split], keyed_generator(seed, "batches")
        offsets = torch.arange(self.context + 1)
        while True:
            starts = torch.randint(len(tokens) - self.context, (size, 1), generator=generator)
            yield tokens[starts + offsets].long().to(self.device)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Cross-entropy of each token given those before it in its window."""
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def tokens_in(self, batch: Tensor) -> int:
        """One less per window than it is long."""
        return batch.shape[0] * (batch.shape[1] - 1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Loss at the trained context; in the final evaluation also bits per byte, and the loss at 2 and 4 times.

        A context for which the model has no positions is left out.
        """
        loss = self._mean_loss(model, split, 1)
        found = [Measurement(VALIDATION_LOSS, loss, step)]
        if not final:
            return found
        found.append(Measurement(BITS_PER_BYTE, loss / math.log(2) / self.text.bytes_per_token, step))
        for multiple in MULTIPLES[1:]:
            try:
                longer = self._mean_loss(model, split, multiple)
            except OutsideDomainError:
                continue
            found.append(Measurement(at_context(VALIDATION_LOSS, multiple), longer, step))
        return found

    def _mean_loss(self, model: nn.Module, split: Split, multiple: int) -> float:
        windows = self._windows(split, multiple)
        at_once = max(1, _TOKENS_AT_ONCE // (multiple * self.context))
        was_training = model.training
        model.eval()
        try:
            parts = torch.split(windows, at_once)
            total = sum(len(part) * float(self.loss(model, part.to(self.device))) for part in parts)
        finally:
            model.train(was_training)
        return total / len(windows)

    def _windows(self, split: Split, multiple: int) -> Tensor:
        """Windows [n, multiple · context + 1]; the tokens that they predict are the same for every multiple."""
        tokens, longest = self._held_out[split], MULTIPLES[-1] * self.context
        stretches = max(1, min(self.config.evaluation_tokens // longest, (len(tokens) - 1) // longest))
        starts = torch.linspace(0, len(tokens) - longest - 1, stretches, dtype=torch.float64).long()
        length = multiple * self.context
        within = torch.arange(0, longest, length)
        return tokens[(starts[:, None] + within).reshape(-1, 1) + torch.arange(length + 1)].long()


def _check_length(text: Text, context: int) -> None:
    """Raise InputError where a split can't hold one window of the longest test."""
    longest = MULTIPLES[-1] * context + 1
    short = [split for split in SPLITS if len(text.held_out(split)) < longest]
    if short:
        smallest = min(last - first for first, last in SPLITS.values())
        raise InputError(
            f"{text.source} has {len(text.tokens)} tokens, too few for context {context}: each split must hold "
            f"{longest} (the {short[0]} split doesn't), so at least {math.ceil((longest + 1) / smallest)} in all."
        )
