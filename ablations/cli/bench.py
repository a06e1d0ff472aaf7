"""`trans4init bench`: a name for `--help` to list; `main` starts `trans4init.bench.cli` instead of this class."""

from dataclasses import dataclass

__all__ = ["Bench"]


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory beside peers; compare two sets of measurements; estimate a study."""
