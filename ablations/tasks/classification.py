"""Task `classification`: tell the label of a text."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trans4init.ablations.data.bpe import learn_bpe
from trans4init.ablations.data.buckets import epochs
from trans4init.ablations.data.classification import ClassificationConfig, Labelled, labelled_texts
from trans4init.ablations.data.codec import BpeCodec
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.tasks.base import TASKS, Batch, Task
from trans4init.ablations.tasks.labels import label_scores
from trans4init.ablations.tasks.pairs import padded
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records.metrics import ACCURACY, MACRO_F1, MAJORITY_ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement

__all__ = ["Classification"]

_AT_ONCE = 64
"""Texts of one batch of an evaluation: more take more memory."""


@TASKS.register
class Classification(Task):
    """Tell the label of a text: of SST-2, of a table of yours, or the language of number words."""

    name = "classification"
    judged = ACCURACY
    counts_tokens = True

    def __init__(
        self, config: ClassificationConfig, context: int, device: torch.device, kind: Kind = "encoder"
    ) -> None:
        self.check_kind(config, kind)
        self.config, self.context, self.device = config, context, device
        self.fingerprint = config.fingerprint()
        parts = labelled_texts(config)
        self.labels = sorted({label for _, label in parts["training"]})
        self._codec = learn_bpe([text for text, _ in parts["training"]], config.tokens)
        self._rows = {part: self._encoded(rows) for part, rows in parts.items()}

    @property
    def model_fields(self) -> dict[str, Any]:
        """The number of byte pairs and of labels in the training split."""
        return {"vocabulary": self._codec.size, "classes": len(self.labels)}

    @property
    def codec(self) -> BpeCodec:
        """The byte pairs, learned from the training split."""
        return self._codec

    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[NDArray[np.int64]]:
        """Yield rows of the training split, each once an epoch."""
        lengths = np.array([len(tokens) for tokens, _ in self._rows["training"]])
        return epochs(seed, lengths, size, tokens=unit == "tokens")

    def collate(self, key: NDArray[np.int64]) -> Batch:
        """Return the batch of those rows, padded."""
        return self._batch([self._rows["training"][row] for row in key])

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return a logit for every class, [B, C]."""
        result: Tensor = model(batch.inputs, lengths=batch.lengths)
        return result

    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure loss, accuracy and macro-F1; finally also the accuracy of always naming the commonest label."""
        rows = sorted(self._rows[split], key=lambda row: len(row[0]))
        batches = (self._batch(rows[first : first + _AT_ONCE]) for first in range(0, len(rows), _AT_ONCE))
        trained = np.array([label for _, label in self._rows["training"]])
        wanted = (VALIDATION_LOSS, ACCURACY, MACRO_F1, *((MAJORITY_ACCURACY,) if final else ()))
        scores = label_scores(self, model, batches, trained)
        return [Measurement(metric, scores[metric], step) for metric in wanted]

    def _encoded(self, rows: Labelled) -> list[tuple[list[int], int]]:
        """Return the tokens of each text, cut to the context, and the label's number."""
        return [(self._codec.encode(text)[: self.context], self.labels.index(label)) for text, label in rows]

    def _batch(self, rows: list[tuple[list[int], int]]) -> Batch:
        inputs, lengths = padded([tokens for tokens, _ in rows])
        return Batch(inputs, torch.tensor([label for _, label in rows]), lengths)
