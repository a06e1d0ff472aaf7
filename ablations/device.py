"""Which device models run on."""

import torch

from trans4init.reports.environment import usable_cores

__all__ = ["accelerator_name", "choose_device", "parallel_runs"]


def choose_device() -> torch.device:
    """The first GPU that torch can use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_name() -> str:
    """The GPU's name, empty on a CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def parallel_runs(threads: int) -> int:
    """How many runs of so many threads go side by side: one for every free core, one alone on a GPU."""
    return 1 if torch.cuda.is_available() else max(1, usable_cores() // threads)
