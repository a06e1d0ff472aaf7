"""Record what a run ran on: software versions, processor, clocks, commit. Nothing here identifies a person or host."""

import functools
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "CONTENDED_SHARE",
    "MOST_CONTENDED",
    "Contention",
    "Environment",
    "capture",
    "clock_mhz",
    "git_environment",
    "usable_cores",
]

CONTENDED_SHARE = 0.1
"""A stretch of a measurement of speed is contended if other processes used more than this share of the machine's
processor time."""
MOST_CONTENDED = 0.2
"""Where more than this share of a measurement is contended, its speeds can't be published, and nothing is claimed from
them."""

_PACKAGES = ("trans4init", "torch", "triton", "numpy", "pandas", "pyarrow", "optuna", "mlflow", "scipy")


@dataclass(frozen=True)
class Environment:
    """Describes a machine and its software, as far as results can depend on them."""

    python: str
    system: str
    processor: str
    cores: int
    memory_gib: float
    clock_mhz: float | None
    """The mean clock of the processor's cores when the run was recorded; None where the system doesn't tell."""
    accelerator: str
    git_commit: str
    """The commit of the source tree, with `+dirty` if files were changed; empty outside a git checkout."""
    versions: Mapping[str, str] = field(default_factory=dict)

    def machine(self) -> str:
        """Return the name of the GPU; without one, that of the processor and how many of its cores were usable."""
        return self.accelerator or f"{self.processor}, {self.cores} core{'s' if self.cores != 1 else ''}"

    def fingerprint(self) -> tuple[object, ...]:
        """Return what two runs must agree in to count as made in the same environment: all but memory and clock."""
        return (
            self.python,
            self.system,
            self.processor,
            self.cores,
            self.accelerator,
            self.git_commit,
            tuple(sorted(self.versions.items())),
        )


def capture(accelerator: str = "") -> Environment:
    """Return the environment of this process. `accelerator` is the name of the GPU in use; empty on a CPU."""
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        clock_mhz=clock_mhz(),
        accelerator=accelerator,
        git_commit=_git_commit(),
        versions=_versions(),
    )


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        if named:
            return named[1].strip()
    return platform.processor() or platform.machine()


def clock_mhz() -> float | None:
    """Return the mean clock of the processor's cores now; None where the system doesn't tell."""
    cpuinfo = Path("/proc/cpuinfo")
    clocks = re.findall(r"cpu MHz\s*:\s*([\d.]+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return round(sum(map(float, clocks)) / len(clocks), 1) if clocks else None


@functools.cache
def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _git_commit() -> str:
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return ""
    try:
        commit = _git(source, "rev-parse", "HEAD")
        dirty = _git(source, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+dirty" if dirty else "")


def _git(source: Path, *arguments: str) -> str:
    # Optional locks, such as that of `status`, would refuse a commit that is made meanwhile.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(
        command, cwd=source, env=git_environment(), capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def git_environment() -> dict[str, str]:
    """Return the environment in which git asks about a folder: GIT_DIR and its like would name another repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


class Contention:
    """Measures, from its creation on, how much of the machine's processor time other processes use."""

    def __init__(self) -> None:
        self._machine, self._own = _machine_seconds(), _own_seconds()

    def others_share(self) -> float | None:
        """Return what share neither this process nor its finished children used; None where the system doesn't tell."""
        if self._machine is None or (now := _machine_seconds()) is None:
            return None
        busy, total = now[0] - self._machine[0], now[1] - self._machine[1]
        return max(0.0, busy - (_own_seconds() - self._own)) / total if total else None


def _own_seconds() -> float:
    """Return the processor seconds of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _machine_seconds() -> tuple[float, float] | None:
    """Return the busy and total seconds of all cores since boot, from /proc/stat; None where there is no such file."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, idle, waiting, *rest = (int(field) for field in path.read_text().split("\n")[0].split()[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + sum(rest)
    return busy / ticks, (busy + idle + waiting) / ticks
