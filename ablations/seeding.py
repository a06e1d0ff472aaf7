"""Random numbers by seed and name, so that arms which share a seed share every draw that both make."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derived_seed", "keyed_generator"]


def derived_seed(seed: int, *names: str | int) -> int:
    """A seed for one purpose: a hash of the seed and the names, 0 <= seed < 2^63."""
    text = "/".join(str(word) for word in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keyed_generator(seed: int, *names: str | int) -> "torch.Generator":
    """A CPU generator for one purpose, such as the initial values of the parameter of that name."""
    import torch  # here, so that data can be drawn where there is no torch

    return torch.Generator().manual_seed(derived_seed(seed, *names))
