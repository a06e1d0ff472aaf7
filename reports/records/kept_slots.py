"""Read and write what evaluation runs keep of their slots: one safetensors file per run, beside the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trans4init.reports.files import write_whole
from trans4init.reports.sealed_tensors import checked_header

__all__ = [
    "CLOSED",
    "HEADER",
    "INPUTS",
    "SLOTS",
    "STATE",
    "VALUES",
    "KeptSlots",
    "UnreadableSlotsError",
    "read_kept",
    "write_kept",
]

SLOTS = "slots"
"""The folder in a study's folder that has these files."""
HEADER = "slots"
"""The key of the header in a file's metadata."""
STATE, INPUTS, CLOSED, VALUES = "state", "inputs", "closed", "values"
"""How the names of a file's tensors are, or begin; `ablations.slots.kept` says what they hold."""


class UnreadableSlotsError(Exception):
    """A file of kept slots is damaged, or is none."""


@dataclass(frozen=True)
class KeptSlots:
    """Holds what one evaluation run kept of its slots."""

    header: Mapping[str, Any]
    """The run's study, function, arm, net and seed, the slot's name, the function's shape and what its inputs are."""
    inputs: NDArray[np.float32] | None
    """The inputs at which values were kept, [N]; None for a function whose inputs are not numbers."""
    closed: NDArray[np.float32] | None
    """The closed form at these inputs, [N, outputs]; None where there is none."""
    values: Mapping[str, NDArray[np.float32]]
    """The values of each slot at these inputs, [N, outputs], by the slot's path in the model."""
    state: Mapping[str, NDArray[Any]]
    """Parameters and buffers of what the slots hold, by the slot's path and their name there."""


def write_kept(folder: Path, run_id: str, content: bytes) -> Path:
    """Write what a run kept into its study's folder, in one step; return the path. Raises OSError as `write_whole`."""
    path = _path(folder, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, content)


def read_kept(folder: Path, run_id: str) -> KeptSlots | None:
    """Return what a run kept in its study's folder; None where it kept nothing, as runs of older versions.

    Raises UnreadableSlotsError for a file that is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = _path(folder, run_id)
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        header = checked_header(content, HEADER)
        tensors = dict(sorted(load(content).items()))  # `load` gives them in any order
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UnreadableSlotsError(f"{path.name} can't be read: {error}") from None
    return KeptSlots(header, tensors.get(INPUTS), tensors.get(CLOSED), _below(tensors, VALUES), _below(tensors, STATE))


def _path(folder: Path, run_id: str) -> Path:
    return folder / SLOTS / f"{run_id}.safetensors"


def _below(tensors: Mapping[str, NDArray[Any]], part: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of a part, by what is left of their names."""
    return {name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")}
