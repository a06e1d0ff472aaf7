"""What a machine was like while a round was measured: what others did on it, its load, a GPU that slowed down."""

import functools
import os
import shutil
import subprocess

from trans4init.reports.contention import Contention

__all__ = ["Window"]

_REASONS = ("sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")


class Window:
    """A stretch of time, from when it is made to when it is closed."""

    def __init__(self) -> None:
        self._contention = Contention()

    def close(self) -> tuple[float | None, float | None, str]:
        """Others' share of processor time meanwhile, the load average, why the GPU is slowed down."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return self._contention.others_share(), load, throttling()


def throttling() -> str:
    """Why the GPU runs below its clocks, in NVML's words; empty where it doesn't, or where nothing says so."""
    if not _nvidia_smi():
        return ""
    fields = ",".join(f"clocks_event_reasons.{reason}" for reason in _REASONS)
    words = [_nvidia_smi(), f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
    said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10).stdout
    active = [reason for reason, answer in zip(_REASONS, said.split(","), strict=False) if answer.strip() == "Active"]
    return ", ".join(active)


@functools.cache
def _nvidia_smi() -> str:
    return shutil.which("nvidia-smi") or ""
