"""Freed memory kept for the next training step, where the C library would return it to the system each time."""

import ctypes
import functools
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>
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
