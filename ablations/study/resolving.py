"""Resolve the blocks of a grid: read their data, and put them into the folder that they share. Imports no torch."""

from pathlib import Path

from trans4init.ablations.data.config import TaskConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.study.grid import Grid
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.machine import capture

__all__ = ["resolve"]


def resolve(grid: Grid, folder: Path, command: str) -> tuple[ResolvedStudy, ...]:
    """Return the blocks of a grid with the fingerprints of their data; each task's data are read once.

    Raises InputError where data can't be read, and for two blocks whose data are the same though their names differ.
    """
    environment, fingerprints = capture(), list[tuple[TaskConfig, str]]()
    studies: dict[str, ResolvedStudy] = {}
    for block in grid.blocks:
        task = block.spec.task
        known = next((fingerprint for other, fingerprint in fingerprints if other == task), None)
        fingerprint = known or task.fingerprint()
        fingerprints.append((task, fingerprint))
        study = ResolvedStudy(block.spec, fingerprint, environment, folder, command, block.label)
        if (other := studies.setdefault(study.spec_hash, study)) is not study:
            raise InputError(
                f"the blocks {other.block!r} and {study.block!r} of {grid.name} are the same, for their data are: "
                "leave one out."
            )
    return tuple(studies.values())
