"""Ask for what an implementation needs; raise MissingError if this machine lacks it."""

import importlib.util

import torch

from trans4init.bench.suite import MissingError

__all__ = ["needs_gpu", "needs_package"]


def needs_gpu() -> None:
    """Raise MissingError on a machine without a GPU."""
    if not torch.cuda.is_available():
        raise MissingError("needs a GPU")


def needs_package(name: str) -> None:
    """Raise MissingError if a package isn't installed."""
    if importlib.util.find_spec(name) is None:
        raise MissingError("is not installed")
