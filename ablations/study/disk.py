"""Estimate the disk that a study takes, and refuse to begin one that doesn't fit. Imports no torch."""

import shutil
from pathlib import Path

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.study.grid_agenda import GridAgenda
from trans4init.ablations.study.spec import StudySpec

__all__ = ["BYTES_PER_STUDY", "bytes_per_run", "check_disk"]

BYTES_PER_STUDY, _BYTES_PER_RUN, _BYTES_PER_LOGGED_STEP = 10_500_000, 46_000, 1_300
"""Disk in Parquet and MLflow: of a study's databases, checkpoints and report (twice, since MLflow keeps it too), of a
run, and of each loss that a run logs; measured on positional-text and positional-text-full."""


def bytes_per_run(spec: StudySpec) -> float:
    """Return the bytes that one run, or one fit, takes."""
    return _BYTES_PER_RUN + _BYTES_PER_LOGGED_STEP * (spec.training.steps // spec.training.log_every)


def check_disk(agenda: GridAgenda, folder: Path) -> None:
    """Raise FaultError where what is left of a study takes more disk than is free."""
    needed = sum((block.total() - block.done()) * bytes_per_run(block.study.spec) for block in agenda.blocks)
    if not agenda.finished:
        needed += BYTES_PER_STUDY
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise FaultError(
            f"the study takes about {needed / 1e6:.0f} MB of disk, and {free / 1e6:.0f} MB are free in {shown(there)}."
        )
