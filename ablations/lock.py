"""Locks a folder, so that one process at a time works in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from trans4init.ablations.errors import FaultError, InputError, shown

__all__ = ["held"]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and lock it.

    The system releases the lock when the process ends, however it ends.

    Raises FaultError where another process holds it, and InputError where nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise FaultError(
            f"another trans4init is at work on {shown(folder)}; wait for it, or name another folder with --out."
        ) from None
    except OSError as error:
        raise InputError(f"{shown(folder)} can't be written: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()
