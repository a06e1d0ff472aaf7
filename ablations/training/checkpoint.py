"""A training run in one file: weights, optimiser, random states, data position, and what was measured."""

import dataclasses
import json
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

__all__ = ["Progress", "Snapshot", "random_states", "read_snapshot", "restore_random_states", "write_snapshot"]

_HEADER = "card"
"""The key of the header in the metadata of a safetensors file."""


@dataclass
class Progress:
    """How far a run is, besides its weights: what it measured, and what its next step depends on."""

    step: int = 0
    """Steps done; also the data position, since batch n depends on the seed and n alone."""
    found: list[Measurement] = field(default_factory=list)
    since_check: list[float] = field(default_factory=list)
    """Training losses that no row tells of yet."""
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    """Evaluations since the best one."""
    finished: bool = False

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; floats keep their bits."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> "Progress":
        """What `as_json` gave."""
        found = [Measurement(Metric(**row["metric"]), row["value"], row["step"]) for row in words["found"]]
        return cls(**{**words, "found": found})


@dataclass(frozen=True)
class Snapshot:
    """A file of `write_snapshot`, read."""

    path: Path
    header: dict[str, Any]
    """What the file says besides its tensors: recipe, model, vocabulary, progress."""
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, such as `model`."""
        return {
            key.removeprefix(f"{name}/"): value for key, value in self.tensors.items() if key.startswith(f"{name}/")
        }


def write_snapshot(path: Path, header: Mapping[str, Any], **parts: Mapping[str, Tensor]) -> Path:
    """Write it under a temporary name, flush it to the disk, and rename: there is always a whole file, old or new."""
    from safetensors.torch import save  # only what keeps or reads a file needs it

    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, held in parts.items()
        for name, tensor in held.items()
    }
    content = save(tensors, {_HEADER: json.dumps(header)})
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, content)


def read_snapshot(path: Path) -> Snapshot:
    """The header and all tensors, on the CPU; raises InputError where the file is not one of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {shown(path)}.") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{shown(path)} is no checkpoint of a training run: {error}.") from None
    return Snapshot(path, header, tensors)


def random_states() -> dict[str, Tensor]:
    """Every random state that a step can draw from: torch's, the GPU's, Python's, NumPy's; a model's are its own."""
    _, python, pending = random.getstate()
    numpy: Any = np.random.get_state()  # the old global state is what libraries draw from
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
    """Go back to those states."""
    torch.set_rng_state(states["torch"])
    pending = states["python-pending"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), pending[0] if pending else None))
    position, has_gauss, gauss = states["numpy-rest"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
