"""Locks a folder or a file, so that one process at a time works on it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from trans4init.ablations.errors import FaultError, InputError, shown

__all__ = ["held", "locked", "process_name"]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and lock it; raises as `locked` does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{shown(folder)} can't be written: {error.strerror}.") from None
    with locked(folder / ".lock", folder, "name another folder with --out"):
        yield


@contextmanager
def locked(path: Path, what: Path, otherwise: str) -> Iterator[None]:
    """Lock the file at `path`, which stands for the work on `what`; a file beside it names the process that holds it.

    The system releases the lock when the process ends, however it ends.

    otherwise: what can be done instead of waiting. Raises FaultError where another process holds the lock, naming that,
    and InputError where nothing can be written there.
    """
    holder = path.with_suffix(".holder") if path.suffix else path.with_name(".holder")  # asking for a lock empties it
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise FaultError(
            f"another trans4init is at work on {shown(what)} ({_read(holder)}); wait for it, or {otherwise}."
        ) from None
    except OSError as error:
        raise InputError(f"{shown(path.parent)} can't be written: {error.strerror}.") from None
    try:
        with contextlib.suppress(OSError):  # such as a full disk: the lock alone counts
            holder.write_text(process_name(), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def process_name() -> str:
    """Return what this process is called where another one waits for it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _read(holder: Path) -> str:
    """Return who holds a lock; it may be too early to know."""
    try:
        return holder.read_text(encoding="utf-8", errors="replace") or "it has just begun"
    except OSError:
        return "it has just begun"
