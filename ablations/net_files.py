"""A fitted net's checkpoint: its weights, and a description with their SHA-256, written last. Imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from trans4init.ablations.errors import InputError
from trans4init.reports.files import write_whole

__all__ = ["DESCRIPTION", "WEIGHTS", "is_whole", "read_checkpoint", "write_checkpoint"]

DESCRIPTION, WEIGHTS = "card.json", "net.safetensors"
"""The files of a checkpoint."""
_SEAL = "description_sha256"


def write_checkpoint(folder: Path, description: dict[str, Any], weights: bytes) -> Path:
    """Write both files into `folder`, each in one step, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = json.loads(json.dumps(description | {"weights_sha256": hashlib.sha256(weights).hexdigest()}))
    text = json.dumps(whole | {_SEAL: _digest(whole)}, indent=2) + "\n"
    for name, content in ((WEIGHTS, weights), (DESCRIPTION, text.encode())):
        write_whole(folder / name, content)
    return folder


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return description and weights; raises InputError where a file is missing, torn or not the one written."""
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        weights = (folder / WEIGHTS).read_bytes()
        seal = description.pop(_SEAL, None)  # which older ones lack
        promised = description["weights_sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} holds no fitted net: {error}") from error
    if seal not in (None, _digest(description)):
        raise InputError(f"{folder} holds no fitted net: {DESCRIPTION} is not what was written.")
    if hashlib.sha256(weights).hexdigest() != promised:
        raise InputError(f"{folder} holds no fitted net: the SHA-256 of {WEIGHTS} is not the one in {DESCRIPTION}.")
    return description, weights


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def is_whole(folder: Path) -> bool:
    """Return whether a fitted net can be read from the folder."""
    try:
        read_checkpoint(folder)
    except InputError:
        return False
    return True
