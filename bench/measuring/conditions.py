"""What a machine was like while rounds were measured: what others did on it, load, clocks, temperature, throttling."""

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
"""What nvidia-smi calls the reasons, now and before driver 535."""
_SAMPLE_MILLISECONDS = 100


@dataclass(frozen=True)
class Conditions:
    """A stretch of time on a machine. None for what the system doesn't tell."""

    others_share: float | None
    """The share of processor time that went to others."""
    load: float | None
    """The load average at its end."""
    clock: float | None
    """MHz: the GPU's streaming multiprocessors', else the mean of the processor's cores; averaged over the time."""
    temperature: float | None
    """°C, the highest: the GPU's, else the processor's."""
    throttled: str
    """Why the GPU ran below its clocks, in NVML's words; empty where it didn't."""


@dataclass(frozen=True)
class GpuSample:
    """A line of nvidia-smi."""

    clock: float | None
    temperature: float | None
    reasons: tuple[str, ...]


def read_sample(line: str) -> GpuSample | None:
    """A line of clock in MHz, temperature in °C and the reasons, separated by commas; None for any other line."""
    clock, temperature, *reasons = [field.strip() for field in line.split(",")] if "," in line else ("", "")
    if len(reasons) != len(_REASONS):
        return None
    active = tuple(name for name, said in zip(_REASONS, reasons, strict=True) if said == "Active")
    return GpuSample(_number(clock), _number(temperature), active)


class GpuSampler:
    """nvidia-smi beside the measurement, asked ten times a second: what the GPU says after work is over is too late.

    Without nvidia-smi, or where it refuses, there are no samples.
    """

    def __init__(self, gpu: str) -> None:
        """gpu: as nvidia-smi names it, by number or by `GPU-` and its UUID."""
        self._lock, self._samples = threading.Lock(), list[GpuSample]()
        self._process = _start(gpu)
        if self._process is not None:
            threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> list[GpuSample]:
        """What was seen since it was asked last."""
        with self._lock:
            found, self._samples = self._samples, []
        return found

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
    """Sees what a machine is like, one stretch of time after the other, until it is left."""

    def __init__(self, gpu: str = "") -> None:
        """gpu: the one that is measured, as nvidia-smi names it; empty where none is."""
        self._sampler = GpuSampler(gpu) if gpu else None
        self._begin()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler is not None:
            self._sampler.stop()

    def seconds(self) -> float:
        """How long the stretch is already."""
        return time.monotonic() - self._began

    def close(self) -> Conditions:
        """What it was like since the last time; the next stretch begins."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        share = self._contention.others_share()
        if self._sampler is None:
            clocks, temperatures = [self._clock, clock_mhz()], [_processor_temperature()]
            reasons = set[str]()
        else:
            samples = self._sampler.take()
            clocks, temperatures = [one.clock for one in samples], [one.temperature for one in samples]
            reasons = {reason for one in samples for reason in one.reasons}
        self._begin()
        clock = [one for one in clocks if one is not None]
        return Conditions(
            share,
            load,
            statistics.fmean(clock) if clock else None,
            _highest(temperatures),
            ", ".join(reason for reason in _REASONS if reason in reasons),
        )

    def _begin(self) -> None:
        self._contention, self._began = Contention(), time.monotonic()
        self._clock = clock_mhz() if self._sampler is None else None


def _start(gpu: str) -> subprocess.Popen[str] | None:
    """nvidia-smi that repeats itself, in the words that the driver knows; None where there is none that answers."""
    program = shutil.which("nvidia-smi")
    for prefix in _PREFIXES if program else ():
        fields = ("clocks.sm", "temperature.gpu", *(f"{prefix}.{reason}" for reason in _REASONS))
        words = [str(program), f"--id={gpu}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            known = subprocess.run(words, capture_output=True, timeout=20, check=False).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return None
        if known:
            repeat = [*words, f"--loop-ms={_SAMPLE_MILLISECONDS}"]
            return subprocess.Popen(repeat, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return None


def _number(text: str) -> float | None:
    """A number; None for `[N/A]` and its like."""
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
