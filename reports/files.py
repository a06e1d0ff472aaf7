"""Write a file whole: after a crash there is the old file or the new one, never a part of it."""

import os
import secrets
from pathlib import Path

__all__ = ["remove_leftovers", "write_whole"]

_TEMPORARY_SUFFIX = ".tmp"


def write_whole(path: Path, content: str | bytes | memoryview) -> Path:
    """Write `content` to `path` in one step and return `path`; text is encoded as UTF-8.

    The content is written under a temporary name in the same folder, which no other writer uses, and is synced to the
    disk before it is renamed; then the folder is synced, since only that makes a rename durable (POSIX). Raises OSError
    where the system refuses; the file at `path` is then unchanged, and the temporary file is removed.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writers that were killed. Call this only while nobody else writes in `folder`."""
    for path in folder.glob(f"*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)
