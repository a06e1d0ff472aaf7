"""What models run on: GPU or CPU, threads, and the memory that the C library keeps."""

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trans4init.reports.machine import usable_cores

__all__ = ["accelerator_name", "choose_device", "keep_freed_memory", "parallel_runs", "threads"]


def choose_device() -> torch.device:
    """Return the first GPU that torch can use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_name() -> str:
    """Return the GPU's name, or an empty string where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def parallel_runs(threads: int) -> int:
    """Return how many runs of so many threads go side by side: as many as cores allow, on a GPU one."""
    return 1 if torch.cuda.is_available() else max(1, usable_cores() // threads)


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
