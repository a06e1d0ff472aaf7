"""How much memory PyTorch allocates while something is done: what is kept of it, and the most there was at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

__all__ = ["Allocations", "allocations"]


@dataclass
class Allocations:
    """Bytes above what was there before; known when the work is over."""

    kept: float = 0.0
    peak: float = 0.0


@contextmanager
def allocations() -> Iterator[Allocations]:
    """Counts what is allocated inside: on the GPU by its allocator, on a CPU by the profiler's record of each block."""
    counted = Allocations()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield counted
        torch.cuda.synchronize()
        counted.kept = float(torch.cuda.memory_allocated() - before)
        counted.peak = float(torch.cuda.max_memory_allocated() - before)
        return
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield counted
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            counted.kept += event.nbytes()
            counted.peak = max(counted.peak, counted.kept)
