"""The suites as tests of pytest-benchmark: one per implementation of a case, timed by our clock, in its ledger.

A suite file says `from trans4init.bench.replay import test_implementation`; the hooks that feed it are in `plugin.py`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trans4init.bench.measuring.worker import Measured

__all__ = ["ReplayClock", "test_implementation"]


class ReplayClock:
    """A clock that stands still but for what it is told: pytest-benchmark measures with it what was measured before."""

    def __init__(self) -> None:
        self.now = 0.0
        self._left: Iterator[float] = iter(())

    def load(self, seconds: list[float]) -> None:
        """The durations that the next calls of `tick` take."""
        self.now, self._left = 0.0, iter(seconds)

    def tick(self) -> None:
        """Take as long as the next duration."""
        self.now += next(self._left, 0.0)

    def __call__(self) -> float:
        """The time."""
        return self.now


CLOCK = ReplayClock()


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # where there is no time
def test_implementation(
    case: Any, implementation: str, measure: Callable[[], tuple[Measured, dict[str, Any]]], benchmark: Any
) -> None:
    """An implementation of a case, measured in turn with the others of the same case."""
    measured, information = measure()
    timing = measured.timings[implementation]
    if timing.status in ("missing", "oom"):
        pytest.skip(timing.error)
    if timing.status != "ok":
        pytest.fail(timing.error, pytrace=False)
    seconds = [timing.samples[number] for number in sorted(timing.samples)]
    CLOCK.load(seconds)
    benchmark.group = f"{information['suite']}: {case}"
    benchmark.extra_info |= information
    benchmark.pedantic(CLOCK.tick, rounds=len(seconds))
