"""Which device models run on."""

import torch

__all__ = ["accelerator_name", "choose_device"]


def choose_device() -> torch.device:
    """The first GPU that torch can use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_name() -> str:
    """The GPU's name, empty on a CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
