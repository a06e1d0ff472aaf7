"""Task `modular-addition`: learn an operation modulo a prime from part of its table."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.modular import GROKKED, GROKKING_STEP, ModularConfig, split_table
from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.tasks.base import TASKS, Batch, Task, evaluating
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS, of_group
from trans4init.reports.records.schema import Measurement

__all__ = ["ModularAddition"]


@TASKS.register
class ModularAddition(Task):
    """Predict a ∘ b modulo p from part of the table; measures trained and held-out loss, and when it groks."""

    name = "modular-addition"
    judged = VALIDATION_LOSS

    def __init__(self, config: ModularConfig, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        self.check_kind(config, kind)
        if context < 3:
            raise InputError(f"task {self.name} reads a, b and =: [model] context must be 3 or more, not {context}.")
        self.config, self.device = config, device
        self.fingerprint = config.fingerprint()
        self._parts = {part: torch.from_numpy(rows) for part, rows in split_table(config, 0).items()}

    @property
    def model_fields(self) -> dict[str, Any]:
        """The number of tokens: one per number, and the equals sign."""
        return {"vocabulary": self.config.modulus + 1}

    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[Tensor | None]:
        """Yield rows drawn anew for each batch; None stands for all rows, if a batch holds so many."""
        count, generator = len(self._parts["training"]), keyed_generator(seed, "batches")
        while True:
            yield None if size >= count else torch.randperm(count, generator=generator)[:size]

    def collate(self, key: Tensor | None) -> Batch:
        """Return the batch of those rows."""
        rows = self._parts["training"]
        return self._batch(rows if key is None else rows[key])

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B, 1, V]: what the equals sign is followed by; keys and values are computed once per number and place."""
        result: Tensor = model(batch.inputs, last_only=True, once_per_token=True)
        return result

    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure loss and accuracy of the split, and of the training rows."""
        measurements = []
        for part, name in ((split, ""), ("training", "training")):
            batch = self._batch(self._parts[part]).to(self.device)
            with evaluating(model):
                logits = self.logits(model, batch)[:, 0].double()
            loss = F.cross_entropy(logits, batch.targets[:, 0]).item()
            accuracy = (logits.argmax(-1) == batch.targets[:, 0]).double().mean().item()
            for metric, value in ((VALIDATION_LOSS, loss), (ACCURACY, accuracy)):
                measurements.append(Measurement(of_group(metric, name) if name else metric, value, step))
        return measurements

    def summary(self, measurements: list[Measurement], step: int) -> list[Measurement]:
        """Return the step at which it grokked, and whether it did; the last step if it didn't."""
        losses = [m for m in measurements if m.metric == VALIDATION_LOSS and m.value is not None]
        below = [m.step for m in losses if m.value is not None and m.value < self.config.grokked_below]
        when = min(below) if below else step
        return [Measurement(GROKKING_STEP, when, step), Measurement(GROKKED, float(bool(below)), step)]

    def _batch(self, rows: Tensor) -> Batch:
        """Return the inputs a, b, = and their target, from rows [B, 3]."""
        inputs = torch.cat([rows[:, :2], torch.full_like(rows[:, :1], self.config.modulus)], dim=1)
        return Batch(inputs, rows[:, 2:])
