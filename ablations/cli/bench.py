"""`trans4init bench`: known here by name, so that `--help` lists it; it lives in `trans4init.bench.cli`."""

from dataclasses import dataclass

__all__ = ["Bench"]


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory beside peers; compare two sets of measurements; estimate a study."""
