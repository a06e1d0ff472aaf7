"""What else a machine does while something is timed on it."""

import os
import resource
from pathlib import Path

__all__ = ["Contention"]


class Contention:
    """Processor time since it was made: the machine's, and that of this process and its finished children."""

    def __init__(self) -> None:
        self._machine, self._own = _machine_seconds(), _own_seconds()

    def others_share(self) -> float | None:
        """The share of the machine's processor time that went to others; None where the system doesn't say."""
        if self._machine is None or (now := _machine_seconds()) is None:
            return None
        busy, total = now[0] - self._machine[0], now[1] - self._machine[1]
        return max(0.0, busy - (_own_seconds() - self._own)) / total if total else None


def _own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _machine_seconds() -> tuple[float, float] | None:
    """Busy and total seconds of all cores since boot, from Linux's /proc/stat; None elsewhere."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, idle, waiting, *rest = (int(field) for field in path.read_text().split("\n")[0].split()[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + sum(rest)
    return busy / ticks, (busy + idle + waiting) / ticks
