"""The bounds of numbers in settings, so that none fails after hours of work. Imports no torch."""

from typing import Annotated

from trans4init.ablations.settings.base import Field

__all__ = ["LARGEST_SEED", "Count", "Seed"]

LARGEST_SEED = 2**63 - 1
"""Results keep a seed in 64 bits."""

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A number of things: PyTorch and Parquet count most of theirs in 32 bits."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
