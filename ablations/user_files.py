"""Files of the user's: regular ones of a stated largest size. Imports no torch."""

import stat
from pathlib import Path

from trans4init.ablations.errors import InputError, shown

__all__ = ["check_file"]


def check_file(path: Path, largest: int) -> None:
    """Raise InputError for what is no regular file, since reading it may never end, or has more bytes than `largest`.

    Raises OSError where there is no such file, or it can't be looked at.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)} is no regular file.")
    if status.st_size > largest:
        raise InputError(f"{shown(path)} has {status.st_size:,} bytes; at most {largest:,} are read.")
