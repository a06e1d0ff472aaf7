"""Seal safetensors files: the SHA-256 of all of a file is in its own header, so that every damage is found."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["DamagedError", "checked_header", "metadata_of", "sealed"]

_DIGEST, _PLACEHOLDER = "sha256", "0" * 64
"""The key of the digest in the header, and what stands in its place while it is taken."""
_SEALED = "sealed-"
"""How the names of headers begin that hold a digest."""
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON."""


class DamagedError(ValueError):
    """A file's content isn't what was written."""


def metadata_of(name: str, header: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata to save a file with that is then `sealed`: one entry, since the order of several is chance's.

    name: what the header is called. header: what the file says besides its tensors.
    """
    return {_SEALED + name: json.dumps({_DIGEST: _PLACEHOLDER, **header})}


def sealed(content: bytes) -> bytes:
    """Return a file that was saved with `metadata_of`, with its digest in the place for it."""
    json_part, tensors = _parts(content)
    digest = hashlib.sha256(content).hexdigest()
    return content[:_LENGTH_BYTES] + json_part.replace(_PLACEHOLDER.encode(), digest.encode(), 1) + tensors


def checked_header(content: bytes, name: str) -> dict[str, Any]:
    """Return the header of that name; raises DamagedError unless the file's content is what was sealed.

    A file that was written before files were sealed passes.
    """
    json_part, tensors = _parts(content)
    try:
        metadata = json.loads(json_part)["__metadata__"]
        is_sealed = _SEALED + name in metadata
        header: dict[str, Any] = json.loads(metadata[_SEALED + name if is_sealed else name])
        digest = str(header.pop(_DIGEST)) if is_sealed else ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DamagedError("its header can't be read") from None
    if is_sealed:
        whole = content[:_LENGTH_BYTES] + json_part.replace(digest.encode(), _PLACEHOLDER.encode(), 1) + tensors
        if hashlib.sha256(whole).hexdigest() != digest:
            raise DamagedError("its content does not match its digest")
    return header


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """Return a file's JSON, and its tensors."""
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < end:
        raise DamagedError("it is cut off")
    return content[_LENGTH_BYTES:end], content[end:]
