"""Random numbers by seed and name, so that arms with the same seed share every draw that both make."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derived_seed", "keyed_generator"]


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a seed for one purpose: a hash of the seed and the names, at least 0 and less than 2^63."""
    text = "/".join(str(word) for word in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keyed_generator(seed: int, *names: str | int) -> "torch.Generator":
    """Return a CPU generator for one purpose, such as the initial values of the parameter of that name."""
    import torch  # here, so that data can be drawn without torch

    return torch.Generator().manual_seed(derived_seed(seed, *names))
