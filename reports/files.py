"""Write a file whole: after a crash there is the old file or the new one, never a part of it; and address databases."""

import contextlib
import os
import re
import secrets
from pathlib import Path

__all__ = ["is_whole_database", "remove_leftovers", "sqlite_address", "without_folders", "write_whole"]

_TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY_NAME = re.compile(r".+\.[0-9a-f]{16}\.tmp")
"""The names that `write_whole` makes; `remove_leftovers` deletes no others."""
_ABSOLUTE_PATH = re.compile(
    r"""(?<![\w./:~<-])      # not within a relative path, an address, a ratio or a closing tag
    /(?:[^/\s'"()<>:,;=]+/)*?
    (?:site-packages/+|(?=(?:ablations|bench|kernels|reports)/)|(?=[^/\s'"()<>:,;=]+/?(?![^\s'"()<>:,;=])))""",
    re.VERBOSE,
)
"""The folders of an absolute path, up to an installed package, one of the project's own folders, or the file's name."""


def write_whole(path: Path, content: str | bytes | memoryview) -> Path:
    """Write `content` to `path` in one step and return `path`; text is encoded as UTF-8.

    Bytes of a file's name that are not UTF-8 are surrogates in Python, and written as escapes such as `\\udcff`.
    The content is written under a temporary name in the same folder, which no other writer uses, and is synced to the
    disk before it is renamed; then the folder is synced, since only that makes a rename durable (POSIX). Raises OSError
    where the system refuses; the temporary file is then removed, and the file at `path` is unchanged, unless only the
    sync of the folder failed.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
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


def is_whole_database(path: Path) -> bool:
    """Return whether a file is there and is a SQLite database whose pages are sound."""
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error:
        return False
    return bool(found == ("ok",))


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of `write_whole` whose writers were killed; other files ending in .tmp stay.

    Call this only while nobody else writes in `folder`.
    """
    for path in folder.glob(f"*{_TEMPORARY_SUFFIX}"):
        if _TEMPORARY_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sqlite_address(path: Path) -> str:
    """Return SQLAlchemy's address of the SQLite database at `path`, whose characters may be any.

    Raises UnicodeEncodeError for a path that is not UTF-8, which an address can't hold.
    """
    from sqlalchemy import URL  # here, since most of this file's readers use no database

    # With the driver's name: from an address `sqlite:///` MLflow makes the folder that it names, and doesn't decode it.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string(hide_password=False)


def without_folders(text: str) -> str:
    """Return the text with each absolute path in it cut to what means something on other machines.

    That is the path below `site-packages`, or from one of the project's folders on, else the file's name.
    """
    return _ABSOLUTE_PATH.sub("", text)
