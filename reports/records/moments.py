"""Tell when a run began, and when each of its steps was measured, from the seconds that it recorded."""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np

from trans4init.reports.records.metrics import WALL_TIME
from trans4init.reports.records.schema import RunRecord

__all__ = ["began_at", "measured_at"]


def began_at(record: RunRecord) -> datetime:
    """Return when the run began: when its record was made, at its end, less the seconds that it took."""
    return record.created_at - timedelta(seconds=max(record.by_step(WALL_TIME.name).values(), default=0.0))


def measured_at(record: RunRecord) -> Callable[[int], datetime]:
    """Return a function from a step of the run to the time at which it was measured.

    A step without recorded seconds lies between its neighbours; of a run that recorded none by step, at the end.
    """
    began, seconds = began_at(record), {0: 0.0} | record.by_step(WALL_TIME.name)
    steps = sorted(seconds)
    return lambda step: began + timedelta(seconds=float(np.interp(step, steps, [seconds[known] for known in steps])))
