"""Task `images`: tell which digit an image shows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trans4init.ablations.data.buckets import epochs
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.images import ImagesConfig
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.tasks.base import TASKS, Batch, Task
from trans4init.ablations.tasks.labels import label_scores
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records.metrics import ACCURACY, MAJORITY_ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement

__all__ = ["Images"]

_TESTED, _VALIDATED = 360, 180
"""Number of images that are tested and validated on; the rest is trained on."""
_SHADES = 16
"""The largest value of a pixel."""


@TASKS.register
class Images(Task):
    """Tell which digit a small image shows."""

    name = "images"
    judged = ACCURACY

    def __init__(self, config: ImagesConfig, context: int, device: torch.device, kind: Kind = "image") -> None:
        self.check_kind(config, kind)
        self.config, self.device = config, device
        self.fingerprint = config.fingerprint()
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = (images.reshape(-1, 1, 8, 8) / _SHADES - 0.5).astype(np.float32)
        rest, tested, rest_labels, tested_labels = _stratified(pixels, labels, _TESTED)
        trained, validated, trained_labels, validated_labels = _stratified(rest, rest_labels, _VALIDATED)
        self._images = {"training": trained, "tune": validated, "evaluate": tested}
        self._labels = {"training": trained_labels, "tune": validated_labels, "evaluate": tested_labels}

    @property
    def model_fields(self) -> dict[str, Any]:
        """The size of the images and the number of classes: 8 × 8 pixels of one channel, ten digits."""
        return {"image_size": 8, "channels": 1, "classes": 10}

    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield rows of the training split, each once an epoch, with the seed of their shifts."""
        order = epochs(seed, np.ones(len(self._labels["training"]), dtype=np.int64), size, tokens=False)
        for number, rows in enumerate(order):
            yield rows, derived_seed(seed, "shifts", number)

    def collate(self, key: tuple[NDArray[np.int64], int]) -> Batch:
        """Return the batch of those images, each moved by up to one pixel in each direction over background."""
        rows, seed = key
        images = self._images["training"][rows]
        if self.config.shift:
            bordered = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-0.5)
            moved = np.random.default_rng(seed).integers(3, size=(len(rows), 2))
            images = np.stack(
                [
                    image[:, down : down + 8, right : right + 8]
                    for image, (down, right) in zip(bordered, moved, strict=True)
                ]
            )
        return Batch(torch.from_numpy(images), torch.from_numpy(self._labels["training"][rows]))

    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure loss and accuracy; finally also the accuracy of always naming the commonest digit."""
        batch = Batch(torch.from_numpy(self._images[split]), torch.from_numpy(self._labels[split]))
        scores = label_scores(self, model, [batch], self._labels["training"])
        wanted = (VALIDATION_LOSS, ACCURACY, *((MAJORITY_ACCURACY,) if final else ()))
        return [Measurement(metric, scores[metric], step) for metric in wanted]


def _stratified(images: Any, labels: Any, count: int) -> list[Any]:
    """Split off `count` images with every digit's share kept; return [rest, split off, and the labels of each]."""
    from sklearn.model_selection import train_test_split

    parts: list[Any] = train_test_split(images, labels, test_size=count, stratify=labels, random_state=0)
    return parts
