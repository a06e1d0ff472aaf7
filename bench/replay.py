"""Replay measured times to pytest-benchmark: each implementation of a case is a test that hands over its samples.

A suite file says `from trans4init.bench.replay import test_implementation`; `plugin.py` has the hooks that measure.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trans4init.bench.measuring.worker import Measured

__all__ = ["ReplayClock", "test_implementation"]


class ReplayClock:
    """Keeps a time that advances by calls of `tick` alone: pytest-benchmark times these and gets the samples back."""

    def __init__(self) -> None:
        self.now = 0.0
        self._durations: Iterator[float] = iter(())

    def load(self, seconds: list[float]) -> None:
        """Set the durations of the next calls of `tick`."""
        self.now, self._durations = 0.0, iter(seconds)

    def tick(self) -> None:
        """Advance by the next duration; by 0 after the last."""
        self.now += next(self._durations, 0.0)

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


CLOCK = ReplayClock()


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # if the implementation has no time
def test_implementation(
    case: str, implementation: str, measure_once: Callable[[], tuple[Measured, dict[str, Any]]], benchmark: Any
) -> None:
    """An implementation of a case is right and has a time; it is measured in turn with the case's others."""
    measured, extra_info = measure_once()
    timing = measured.timings[implementation]
    if timing.status in ("missing", "oom"):
        pytest.skip(timing.error)
    if timing.status != "ok":
        pytest.fail(timing.error, pytrace=False)
    seconds = [timing.samples[number] for number in sorted(timing.samples)]
    CLOCK.load(seconds)
    benchmark.group = f"{extra_info['suite']}: {case}"
    benchmark.extra_info |= extra_info
    benchmark.pedantic(CLOCK.tick, rounds=len(seconds))
