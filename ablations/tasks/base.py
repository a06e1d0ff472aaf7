"""What a task is: data, a loss, and the metrics of a model on held-out data."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from trans4init.ablations.data.codec import Codec
from trans4init.ablations.data.config import Kind, Split, TaskConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.registry import Registry
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.settings.model import ModelSize, TransformerConfig
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records.schema import Measurement, Metric

__all__ = ["IGNORED", "TASKS", "Batch", "Task", "evaluating", "model_config"]

IGNORED = -100
"""A target that no loss and no metric counts: padding, and what is given rather than predicted."""

Key = Any
"""Which examples make a batch, in the task's own words: small, and enough to build it in another process."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples [B, ...] that are worked on together.

    inputs: tokens [B, L], or images [B, C, H, W]. targets: classes [B], or a token for each input token [B, L],
    `IGNORED` where none is predicted. lengths, source_lengths: tokens of each row that are no padding,
    [B]. source: [B, S].
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
    source: Tensor | None = None
    source_lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def map(self, change: Any) -> "Batch":
        """The same with every tensor changed alike."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: change(value) for name, value in held.items() if value is not None})

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def pin_memory(self) -> "Batch":
        """The same in memory that a GPU can fetch from while it computes."""
        return self.map(lambda tensor: tensor.pin_memory())

    def predictions(self) -> int:
        """How many targets count."""
        return int((self.targets != IGNORED).sum())

    def piece(self, number: int, count: int) -> tuple["Batch", float]:
        """Every `count`-th row from `number` on, and the share of the batch's predictions that they make.

        A batch of fewer rows leaves pieces empty: those are one row that counts for nothing.
        """
        rows = slice(number, None, count) if number < len(self) else slice(0, 1)
        piece = self.map(lambda tensor: tensor[rows])
        return piece, piece.predictions() / self.predictions() if number < len(self) else 0.0


class _Batches(Dataset[Batch]):
    """Batches by key, for worker processes."""

    def __init__(self, task: "Task") -> None:
        self.task = task

    def __getitem__(self, key: Key) -> Batch:
        return self.task.collate(key)


class _Keys:
    """An iterator of keys in the shape that a loader wants to sample from."""

    def __init__(self, keys: Iterator[Key]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[Key]:
        return self.keys


class Task(ABC):
    """Data + loss + metrics. Subclasses register themselves in `TASKS`."""

    name: ClassVar[str]
    Config: ClassVar[type[TaskConfig]]
    """The settings of a task in a user's file; those of this package are in `data`, where there is no torch."""
    judged: ClassVar[Metric]
    """The metric that says which of a run's models is the best; measured at every evaluation."""
    counts_tokens: ClassVar[bool] = False
    """Whether batches can be made by their number of tokens."""
    fingerprint: str
    """SHA-256 of the data."""
    device: torch.device

    @abstractmethod
    def __init__(self, config: Any, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        """Read the data, for a model of that kind; raises InputError where it isn't there or longer than the context.

        config: the TaskConfig of this task.
        """

    @property
    @abstractmethod
    def model_fields(self) -> dict[str, Any]:
        """What the data decide of a TransformerConfig: number of tokens, of classes, size of images."""

    @property
    def codec(self) -> Codec | None:
        """How text becomes the task's tokens and back; None where there is no text."""
        return None

    @property
    def notes(self) -> dict[str, str]:
        """How the metrics were computed, where a number means little without it."""
        return {}

    @abstractmethod
    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[Key]:
        """Which examples make each batch, without end; decided by the seed alone and cheap to run through."""

    @abstractmethod
    def collate(self, key: Key) -> Batch:
        """The batch of a key, on the CPU."""

    def check_kind(self, config: TaskConfig, kind: Kind) -> None:
        """Raise InputError where a model of that kind can't do the task."""
        if kind not in config.kinds:
            raise InputError(f"task {self.name} needs a model of kind {' or '.join(config.kinds)}, not {kind}.")

    def batches(
        self, seed: int, size: int, split: Split, *, start: int = 0, unit: BatchUnit = "examples", workers: int = 0
    ) -> Iterator[Batch]:
        """Batches without end to train a model that is measured on `split`; the same seed gives every arm the same.

        Begins after the first `start` of them. They are the same for every number of worker processes.
        """
        if unit == "tokens" and not self.counts_tokens:
            raise InputError(f'task {self.name} makes batches of examples: batch_unit = "tokens" doesn\'t apply.')
        keys = self.plan(seed, size, split, unit)
        for _ in range(start):
            next(keys)
        if not workers:
            return (self.collate(key).to(self.device) for key in keys)
        loader = DataLoader(
            _Batches(self),
            batch_size=None,
            sampler=_Keys(keys),
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws a number that the model's dropout would have had
        )
        return (batch.to(self.device) for batch in loader)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy of a batch, in nats per target that counts."""
        logits = self.logits(model, batch)
        return F.cross_entropy(
            logits.flatten(0, -2), batch.targets.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """[..., V]: a prediction for every target."""
        result: Tensor = model(batch.inputs)
        return result

    def tokens_in(self, batch: Batch) -> int:
        """How many tokens a batch predicts."""
        return batch.predictions()

    @abstractmethod
    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """The metrics on a split; the dear ones only in the final evaluation."""

    def summary(self, found: list[Measurement], step: int) -> list[Measurement]:
        """What a whole run's measurements say together, at its end."""
        return []


def model_config(size: ModelSize, task: Task, **changes: Any) -> TransformerConfig:
    """The Transformer of that size for the task's data; raises InputError where a size says something else."""
    for name, value in task.model_fields.items():
        if name in size.model_fields_set and getattr(size, name) != value:
            raise InputError(f"[model] {name} is {value} by the data of task {task.name}, not {getattr(size, name)}.")
    try:
        return TransformerConfig(**size.model_dump() | task.model_fields | changes)
    except ValidationError as error:
        raise InputError(sentence(error, TransformerConfig, "[model]")) from None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout and without gradients, then as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


TASKS: Registry[Task] = Registry("task")
