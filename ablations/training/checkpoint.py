"""Write and read a training run as one file: weights, optimiser, random states, data position, measurements."""

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trans4init.ablations.errors import InputError, shown
from trans4init.reports.files import write_whole
from trans4init.reports.records.schema import Measurement, Metric
from trans4init.reports.sealed_tensors import checked_header, metadata_of, sealed

__all__ = ["Progress", "Snapshot", "random_states", "read_snapshot", "restore_random_states", "write_snapshot"]

_HEADER = "card"
"""The key of the header in the metadata of a safetensors file."""


@dataclass
class Progress:
    """Says how far a training run is: its measurements, and what its next step depends on besides the weights."""

    step: int = 0
    """Steps done; this is also the data position, since batch n depends on the seed and n alone."""
    found: list[Measurement] = field(default_factory=list)
    """All measurements so far."""
    since_check: list[float] = field(default_factory=list)
    """Training losses since the last row of training loss."""
    best: float | None = None
    """The best value of the task's judged metric; None before the first evaluation."""
    best_step: int = 0
    stale: int = 0
    """Number of evaluations since the best one."""
    finished: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the progress as JSON can hold it; floats keep their bits."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Progress":
        """Return the progress from what `as_json` gave."""
        found = [Measurement(Metric(**row["metric"]), row["value"], row["step"]) for row in content["found"]]
        return cls(**{**content, "found": found})


@dataclass(frozen=True)
class Snapshot:
    """Holds the content of a file that `write_snapshot` wrote."""

    path: Path
    header: dict[str, Any]
    """What the file says besides its tensors: recipe, model, vocabulary, progress."""
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one part, such as `model`."""
        return {
            key.removeprefix(f"{name}/"): value for key, value in self.tensors.items() if key.startswith(f"{name}/")
        }


def write_snapshot(path: Path, header: Mapping[str, Any], **parts: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint so that a whole file, old or new, is at `path` at any time; return the path."""
    from safetensors.torch import save  # here, since models are trained without files too

    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, tensors_of_part in parts.items()
        for name, tensor in tensors_of_part.items()
    }
    content = sealed(save(tensors, metadata_of(_HEADER, header)))
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, content)


def read_snapshot(path: Path) -> Snapshot:
    """Read the header and all tensors, onto the CPU.

    Raises InputError if the file is missing, damaged in any bit, or no checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        header = checked_header(content, _HEADER)
        tensors = dict(sorted(load(content).items()))
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {shown(path)}.") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{shown(path)} is not a checkpoint of a training run: {error}.") from None
    return Snapshot(path, header, tensors)


def random_states() -> dict[str, Tensor]:
    """Return the random states that a training step can draw from: torch's, the GPU's, Python's and NumPy's."""
    _, python, pending = random.getstate()
    numpy: Any = np.random.get_state()  # the global state, which libraries draw from
    _, keys, position, has_gauss, gauss = numpy
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(python),
        "python-pending": torch.tensor([] if pending is None else [pending], dtype=torch.float64),
        "numpy": torch.from_numpy(keys.astype(np.int64)),
        "numpy-rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Set the random states to those that `random_states` returned."""
    torch.set_rng_state(states["torch"])
    pending = states["python-pending"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), pending[0] if pending else None))
    position, has_gauss, gauss = states["numpy-rest"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
