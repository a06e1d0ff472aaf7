"""The scores of a classifier, and the accuracy of always naming the commonest label."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from trans4init.ablations.tasks.base import Batch, Task, evaluating
from trans4init.reports.records.metrics import ACCURACY, MACRO_F1, MAJORITY_ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import Metric

__all__ = ["label_scores"]


def label_scores(
    task: Task, model: nn.Module, batches: Iterable[Batch], trained: NDArray[np.int64]
) -> dict[Metric, float]:
    """Return loss, accuracy, macro-F1 over all classes, and the accuracy of the commonest of the `trained` labels."""
    from sklearn.metrics import accuracy_score, f1_score  # takes a second to import

    losses: list[float] = []
    named: list[int] = []
    right: list[int] = []
    with evaluating(model):
        for batch in batches:
            logits = task.logits(model, batch.to(task.device)).float().cpu()
            losses += F.cross_entropy(logits, batch.targets, reduction="none").tolist()
            named += torch.argmax(logits, dim=-1).tolist()
            right += batch.targets.tolist()
    majority = int(np.bincount(trained).argmax())
    return {
        VALIDATION_LOSS: float(np.mean(losses)),
        ACCURACY: float(accuracy_score(right, named)),
        MACRO_F1: float(f1_score(right, named, labels=np.unique(trained), average="macro", zero_division=0.0)),
        MAJORITY_ACCURACY: float(np.mean(np.array(right) == majority)),
    }
