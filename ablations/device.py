"""What models run on: GPU or CPU, threads, and the memory that the C library keeps."""

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trans4init.ablations.errors import InputError
from trans4init.reports.machine import usable_cores

__all__ = [
    "DEVICE",
    "accelerator_name",
    "choose_device",
    "keep_freed_memory",
    "parallel_runs",
    "places",
    "threads",
    "use_device",
]

DEVICE = "TRANS4INIT_DEVICE"
"""Environment variable that names the device, for this process and those that it starts."""


def use_device(name: str) -> None:
    """Let this process, and those that it starts, use the device that torch calls `name`: cpu, cuda:1, mps.

    Raises InputError for one that isn't there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"{name!r} is no device that torch knows; there are cpu, cuda, cuda:1, mps.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"torch can't use {name} here: it finds {count or 'no'} GPU{'s' if count > 1 else ''}.")
    elif device.type != "cpu":
        try:
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"torch can't use {name} here: {str(error).splitlines()[0]}") from None
    os.environ[DEVICE] = str(device)


def choose_device() -> torch.device:
    """Return the device that was chosen by `use_device`, else the first GPU that torch can use, else the CPU."""
    named = os.environ.get(DEVICE)
    if not named:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(named)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for what goes to the current one
    return device


def accelerator_name() -> str:
    """Return the name of the device in use, or an empty string for the CPU."""
    device = choose_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "" if device.type == "cpu" else device.type.upper()


def parallel_runs(threads: int) -> int:
    """Return how many runs of so many threads go side by side: as many as cores allow, on each GPU one."""
    if choose_device().type == "cpu":
        return max(1, usable_cores() // threads)
    return len(places()) or 1


def places() -> list[dict[str, str]]:
    """Return the environment variables of a process for each GPU, where there are several and none was chosen."""
    count = torch.cuda.device_count() if torch.cuda.is_available() and not os.environ.get(DEVICE) else 0
    return [{DEVICE: f"cuda:{index}"} for index in range(count)] if count > 1 else []


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch on `count` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names of mallopt(3)'s parameters in <malloc.h>
_FREED_BYTES = 2**30
"""How much freed memory glibc keeps: more than a step's activations; the process may hold as much more."""


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep up to 1 GiB of freed memory, so that each training step reuses it.

    It holds for the rest of the process; without glibc nothing is done. By default (mallopt(3)) large blocks are mapped
    anew and the free end of the heap is returned to the system, so that the pages of each step's activations are mapped
    and cleared again: 10,000 pages, and a tenth of the time, of a step of modular addition.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _FREED_BYTES)
        mallopt(_MMAP_THRESHOLD, _FREED_BYTES)
