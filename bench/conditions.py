"""What a machine was like while a round was measured: what others did on it, its load, a GPU that slowed down."""

import functools
import os
import shutil
import subprocess
import time

from trans4init.reports.contention import Contention

__all__ = ["Window"]

_REASONS = ("sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")


class Window:
    """A stretch of time, from when it is made to when it is closed."""

    def __init__(self) -> None:
        self._contention, self._began = Contention(), time.monotonic()

    def seconds(self) -> float:
        """How long it is open."""
        return time.monotonic() - self._began

    def close(self) -> tuple[float | None, float | None, str]:
        """Others' share of processor time meanwhile, the load average, why the GPU is slowed down."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return self._contention.others_share(), load, throttling()


def throttling() -> str:
    """Why the GPU runs below its clocks, in NVML's words; empty where it doesn't, or where nothing says so."""
    if not _nvidia_smi():
        return ""
    fields = ",".join(f"clocks_event_reasons.{reason}" for reason in _REASONS)
    words = [_nvidia_smi(), f"--query-gpu={fields}", "--format=csv,noheader", f"--id={_gpu()}"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    active = [reason for reason, answer in zip(_REASONS, said.split(","), strict=False) if answer.strip() == "Active"]
    return ", ".join(active)


@functools.cache
def _gpu() -> str:
    """The GPU that this process sees first, as nvidia-smi names it."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(0).uuid}" if torch.cuda.is_available() else "0"


@functools.cache
def _nvidia_smi() -> str:
    return shutil.which("nvidia-smi") or ""
