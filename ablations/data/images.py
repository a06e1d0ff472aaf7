"""Labelled images: the digits that come with scikit-learn. Imports no torch."""

from typing import ClassVar, Literal

from trans4init.ablations.data.config import Kind, TaskConfig
from trans4init.reports.records.metrics import ACCURACY, MAJORITY_ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import Metric

__all__ = ["ImagesConfig"]


class ImagesConfig(TaskConfig):
    """Names the data of task `images`."""

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)

    name: Literal["images"] = "images"
    source: Literal["digits"] = "digits"
    """1,797 digits of 8 × 8 pixels, 17 shades (UCI optical recognition of handwritten digits, its test part)."""
    shift: bool = True
    """Whether training images are moved by up to one pixel, differently each time."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation."""
        return (VALIDATION_LOSS, ACCURACY, MAJORITY_ACCURACY)

    def __str__(self) -> str:
        return f"classification of {self.source}"
