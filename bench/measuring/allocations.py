"""Count the memory that PyTorch allocates in a block of code: the bytes kept at its end, and the peak."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

__all__ = ["Allocations", "allocations"]


@dataclass
class Allocations:
    """Bytes above those that were allocated before the block; filled in when the block ends."""

    kept: float = 0.0
    peak: float = 0.0


@contextmanager
def allocations() -> Iterator[Allocations]:
    """Count what is allocated inside the block: on a GPU by its allocator, on a CPU by the profiler's memory events."""
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
