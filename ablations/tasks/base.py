"""The base of all tasks: batches to train on, a loss, and the metrics of a model on held-out data."""

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

__all__ = ["IGNORED", "TASKS", "Batch", "Task", "evaluating", "mean_cross_entropy", "model_config"]

IGNORED = -100
"""A target that no loss and no metric counts: padding, and tokens that are given rather than predicted."""

Key = Any
"""Says which examples make a batch; its type is the task's. Small, and enough to build the batch in another process."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that a model processes together.

    inputs: tokens [B, L], or images [B, C, H, W]. targets: classes [B], or a token for each input token [B, L],
    `IGNORED` where no token is predicted. source: tokens [B, S] for the encoder. lengths, source_lengths: the number of
    tokens of each row without padding, [B].
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
    source: Tensor | None = None
    source_lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def map(self, change: Any) -> "Batch":
        """Return the batch with `change` applied to every tensor."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in tensors.items() if value is not None})

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory, which a GPU copies from while it computes."""
        return self.map(lambda tensor: tensor.pin_memory())

    def predictions(self) -> int:
        """Return the number of targets that count."""
        return int((self.targets != IGNORED).sum())

    def piece(self, number: int, count: int) -> tuple["Batch", float]:
        """Return every `count`-th row from `number` on, and their share of the batch's predictions.

        If the batch has too few rows for a piece, the piece is the first row with a share of 0.
        """
        rows = slice(number, None, count) if number < len(self) else slice(0, 1)
        piece = self.map(lambda tensor: tensor[rows])
        return piece, piece.predictions() / self.predictions() if number < len(self) else 0.0


class _Batches(Dataset[Batch]):
    """Builds batches by key in worker processes."""

    def __init__(self, task: "Task") -> None:
        self.task = task

    def __getitem__(self, key: Key) -> Batch:
        return self.task.collate(key)


class _Keys:
    """Adapts an iterator of keys to the sampler that a DataLoader asks for."""

    def __init__(self, keys: Iterator[Key]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[Key]:
        return self.keys


class Task(ABC):
    """Data, loss and metrics. Subclasses register themselves in `TASKS`."""

    name: ClassVar[str]
    Config: ClassVar[type[TaskConfig]]
    """The settings of a task in a user's file; those of this package are in `data`, where there is no torch."""
    judged: ClassVar[Metric]
    """The metric that decides which model of a run is the best; measured at every evaluation."""
    counts_tokens: ClassVar[bool] = False
    """Whether batches can be made by their number of tokens, as `batch_unit = "tokens"` asks."""
    fingerprint: str
    """SHA-256 of the data."""
    device: torch.device

    @abstractmethod
    def __init__(self, config: Any, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        """Read the data for a model of that kind; raises InputError if it is missing, or longer than the context.

        config: the TaskConfig of this task.
        """

    @property
    @abstractmethod
    def model_fields(self) -> dict[str, Any]:
        """The fields of a TransformerConfig that the data decide: number of tokens or classes, size of images."""

    @property
    def codec(self) -> Codec | None:
        """The codec between text and the task's tokens; None if the task has no text."""
        return None

    @property
    def notes(self) -> dict[str, str]:
        """What a reader must know about how the metrics were computed, such as BLEU's signature."""
        return {}

    @abstractmethod
    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[Key]:
        """Yield the key of each batch, without end. Depends on the seed alone, and is cheap to skip through."""

    @abstractmethod
    def collate(self, key: Key) -> Batch:
        """Return the batch of a key, on the CPU."""

    def check_kind(self, config: TaskConfig, kind: Kind) -> None:
        """Raise InputError if a model of that kind can't do the task."""
        if kind not in config.kinds:
            raise InputError(f"task {self.name} needs a model of kind {' or '.join(config.kinds)}, not {kind}.")

    def batches(
        self, seed: int, size: int, split: Split, *, start: int = 0, unit: BatchUnit = "examples", workers: int = 0
    ) -> Iterator[Batch]:
        """Return batches without end to train a model that is measured on `split`, after skipping the first `start`.

        The same seed gives the same batches, for every arm and for every number of worker processes. Raises InputError
        for tokens as unit if the task has no such batches.
        """
        if unit == "tokens" and not self.counts_tokens:
            raise InputError(f'task {self.name} makes batches of examples only: leave out batch_unit = "tokens".')
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
            generator=torch.Generator(),  # without it, the loader draws from the generator that dropout uses
        )
        return (batch.to(self.device) for batch in loader)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of a batch, in nats per target that counts."""
        return mean_cross_entropy(self.logits(model, batch), batch.targets, label_smoothing)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of a prediction for every target, [..., V]."""
        result: Tensor = model(batch.inputs)
        return result

    def tokens_in(self, batch: Batch) -> int:
        """Return how many tokens a batch predicts."""
        return batch.predictions()

    @abstractmethod
    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure the metrics on a split; the expensive ones only in the final evaluation."""

    def summary(self, measurements: list[Measurement], step: int) -> list[Measurement]:
        """Return further measurements, made at the end of a run from all those before."""
        return []


def mean_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of logits [..., V] and targets [...], in nats per target that counts."""
    return F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
    )


def model_config(size: ModelSize, task: Task, **changes: Any) -> TransformerConfig:
    """Return the config of a Transformer of that size for the task's data; raises InputError if they disagree."""
    for name, value in task.model_fields.items():
        if name in size.model_fields_set and getattr(size, name) != value:
            raise InputError(
                f"[model] {name} must be {value} for the data of task {task.name}, not {getattr(size, name)}."
            )
    try:
        return TransformerConfig(**size.model_dump() | task.model_fields | changes)
    except ValidationError as error:
        raise InputError(sentence(error, TransformerConfig, "[model]")) from None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn off dropout and gradients within; afterwards the model is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


TASKS: Registry[Task] = Registry("task")
