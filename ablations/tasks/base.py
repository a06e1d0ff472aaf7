"""What a task is: data, a loss, and the metrics of a model on held-out data."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from trans4init.ablations.data.text import Split, TextConfig
from trans4init.ablations.registry import Registry
from trans4init.reports.schema import Measurement

__all__ = ["TASKS", "Task"]


class Task(ABC):
    """Data + loss + metrics. Subclasses register themselves in `TASKS`."""

    name: ClassVar[str]
    vocabulary: int
    fingerprint: str
    """SHA-256 of the data."""

    @abstractmethod
    def __init__(self, config: TextConfig, context: int, device: torch.device) -> None:
        """Read the data; raises InputError where it isn't there or too little for the context."""

    @abstractmethod
    def batches(self, seed: int, size: int, split: Split) -> Iterator[Tensor]:
        """Batches without end to train a model that is measured on `split`; the same seed gives every arm the same."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """The mean loss of a batch, in nats per token."""

    @abstractmethod
    def tokens_in(self, batch: Tensor) -> int:
        """How many tokens a batch predicts."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """The metrics on a split; the dear ones only in the final evaluation."""


TASKS: Registry[Task] = Registry("task")
