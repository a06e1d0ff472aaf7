"""Record a machine's state while rounds are measured: other processes' share, load, clock, temperature, throttling."""

import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trans4init.reports.machine import Contention, clock_mhz

__all__ = ["Conditions", "GpuSample", "GpuSampler", "Observer", "read_sample"]

_REASONS = ("sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
_PREFIXES = ("clocks_event_reasons", "clocks_throttle_reasons")
"""Prefixes of the reasons' field names in nvidia-smi: from driver 535 on, and before."""
_SAMPLE_MILLISECONDS = 100
"""How often nvidia-smi is asked for a sample; more often than this it would use a noticeable share of a core."""


@dataclass(frozen=True)
class Conditions:
    """Holds the state of a machine over a stretch of time. A field is None if the system doesn't report it."""

    others_share: float | None
    """The share of the machine's processor time that other processes used."""
    load: float | None
    """The load average at the end of the stretch."""
    clock: float | None
    """The mean clock in MHz: of the GPU's multiprocessors if a GPU is measured, else of the processor's cores."""
    temperature: float | None
    """The highest temperature in °C: of the GPU if one is measured, else of the processor."""
    throttled: str
    """The reasons for which the GPU was slowed down, as NVML names them; empty if it wasn't."""


@dataclass(frozen=True)
class GpuSample:
    """Holds the state of a GPU at one moment, from a line of nvidia-smi's output."""

    clock: float | None
    temperature: float | None
    reasons: tuple[str, ...]


def read_sample(line: str) -> GpuSample | None:
    """Parse a line of clock in MHz, temperature in °C and reasons, separated by commas; None for any other line."""
    clock, temperature, *reasons = [field.strip() for field in line.split(",")] if "," in line else ("", "")
    if len(reasons) != len(_REASONS):
        return None
    active = tuple(name for name, state in zip(_REASONS, reasons, strict=True) if state == "Active")
    return GpuSample(_number(clock), _number(temperature), active)


class GpuSampler:
    """Runs nvidia-smi beside the measurement, ten samples a second: asked after the work, the GPU would be idle again.

    Without nvidia-smi, or if it reports an error, there are no samples.
    """

    def __init__(self, gpu: str) -> None:
        """gpu: the GPU as nvidia-smi names it, by number or by `GPU-` and its UUID."""
        self._lock, self._samples = threading.Lock(), list[GpuSample]()
        self._process = _start(gpu)
        if self._process is not None:
            threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> list[GpuSample]:
        """Return the samples since the last call."""
        with self._lock:
            samples, self._samples = self._samples, []
        return samples

    def stop(self) -> None:
        """End nvidia-smi."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if sample := read_sample(line):
                with self._lock:
                    self._samples.append(sample)


class Observer:
    """Records the state of the machine, one stretch of time after the other, until the `with` block ends."""

    def __init__(self, gpu: str = "") -> None:
        """gpu: the GPU that is measured, as nvidia-smi names it; empty if the processor is measured."""
        self._sampler = GpuSampler(gpu) if gpu else None
        self._begin()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler is not None:
            self._sampler.stop()

    def seconds(self) -> float:
        """Return the length of the current stretch so far."""
        return time.monotonic() - self._began

    def close(self) -> Conditions:
        """End the current stretch, return its conditions, and begin the next."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        share = self._contention.others_share()
        if self._sampler is None:
            clocks, temperatures = [self._clock, clock_mhz()], [_processor_temperature()]
            reasons = set[str]()
        else:
            samples = self._sampler.take()
            clocks, temperatures = [sample.clock for sample in samples], [sample.temperature for sample in samples]
            reasons = {reason for sample in samples for reason in sample.reasons}
        self._begin()
        known_clocks = [clock for clock in clocks if clock is not None]
        return Conditions(
            share,
            load,
            statistics.fmean(known_clocks) if known_clocks else None,
            _highest(temperatures),
            ", ".join(reason for reason in _REASONS if reason in reasons),
        )

    def _begin(self) -> None:
        self._contention, self._began = Contention(), time.monotonic()
        self._clock = clock_mhz() if self._sampler is None else None


def _start(gpu: str) -> subprocess.Popen[str] | None:
    """Start nvidia-smi in a loop with the field names that its driver knows; return None if it doesn't work here."""
    program = shutil.which("nvidia-smi")
    for prefix in _PREFIXES if program else ():
        fields = ("clocks.sm", "temperature.gpu", *(f"{prefix}.{reason}" for reason in _REASONS))
        command = [str(program), f"--id={gpu}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            known = subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return None
        if known:
            command.append(f"--loop-ms={_SAMPLE_MILLISECONDS}")
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return None


def _number(text: str) -> float | None:
    """Return the number; None for `[N/A]` and the like."""
    try:
        return float(text)
    except ValueError:
        return None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _processor_temperature() -> float | None:
    return _highest(_thousandths(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp"))


def _thousandths(path: Path) -> float | None:
    try:
        return int(path.read_text()) / 1000
    except (OSError, ValueError):
        return None
