"""Which device models run on."""

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trans4init.reports.machine import usable_cores

__all__ = ["accelerator_name", "choose_device", "keep_freed_memory", "parallel_runs", "threads"]


def choose_device() -> torch.device:
    """The first GPU that torch can use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_name() -> str:
    """The GPU's name, empty on a CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def parallel_runs(threads: int) -> int:
    """How many runs of so many threads go side by side: one for every free core, one alone on a GPU."""
    return 1 if torch.cuda.is_available() else max(1, usable_cores() // threads)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch on `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_TRIM_THRESHOLD = -1  # <malloc.h>


_MMAP_THRESHOLD = -3


_KEPT = 2**30


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of what is freed, for the rest of the process; elsewhere, do nothing.

    By default (mallopt(3)) large blocks are mapped anew and the free end of the heap is returned, so that each step's
    activations are paged in, and cleared, once more: 10,000 pages and a tenth of the time of modular addition's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _KEPT)
