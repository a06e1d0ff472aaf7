"""A fitted net on disk: its weights, and the card that vouches for them, written last. Imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from trans4init.ablations.errors import InputError
from trans4init.reports.files import write_whole

__all__ = ["CARD", "WEIGHTS", "is_whole", "read_checkpoint", "write_checkpoint"]

CARD, WEIGHTS = "card.json", "net.safetensors"


def write_checkpoint(folder: Path, card: dict[str, Any], weights: bytes) -> Path:
    """Write both files into `folder`, each under its name in one step; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card | {"weights_sha256": hashlib.sha256(weights).hexdigest()}, indent=2) + "\n"
    for name, content in ((WEIGHTS, weights), (CARD, text.encode())):
        write_whole(folder / name, content)
    return folder


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The card and the weights; raises InputError where a file is missing, torn or not the one that was written."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        weights = (folder / WEIGHTS).read_bytes()
        promised = card["weights_sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} holds no fitted net: {error}") from error
    if hashlib.sha256(weights).hexdigest() != promised:
        raise InputError(f"{folder} holds no fitted net: {WEIGHTS} is not what {CARD} vouches for.")
    return card, weights


def is_whole(folder: Path) -> bool:
    """Whether a fitted net can be read from there."""
    try:
        read_checkpoint(folder)
    except InputError:
        return False
    return True
