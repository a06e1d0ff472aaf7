"""Open the SQLite file that holds a study's trials for Optuna; where it is damaged, make it anew from the results."""

import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.study.server import why
from trans4init.reports.files import sqlite_address

__all__ = ["OptunaFile", "open_named_file"]

_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM")
"""Names of SQLite's errors that say nothing of the file."""
_PROBE = bytes(65_536)
"""Written beside the file to see whether the disk takes it."""


class _Unsynced(sqlite3.Connection):
    """Leaves it to the system when a file's changes reach the disk: a view of the results needn't survive a power cut.

    A process that is killed loses nothing, and a file that a power cut has damaged is found so when it is opened.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.execute("PRAGMA synchronous = OFF")


class OptunaFile:
    """Is the file `optuna.db` in a study's folder: a view of the results, which can be made anew at any time."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """say: called with a sentence when the file is found damaged."""
        self._path, self._say = path, say
        self._opened: int | None = None

    def open(self) -> optuna.storages.RDBStorage:
        """Return Optuna's storage in the file; one that is damaged is set aside, and a new one made.

        Raises FaultError where the machine refuses.
        """
        try:
            storage = self._open()
        except Exception as error:  # noqa: BLE001  damage shows as whatever is made of what is read
            return self.open_anew(error)
        return storage

    def open_anew(self, error: Exception) -> optuna.storages.RDBStorage:
        """Set the file aside, which `error` has shown to be damaged, and return the storage in a new one.

        Raises FaultError if the error isn't the file's fault: the disk is full, the file is locked or write-protected.
        """
        refusal = self._refusal(error)
        if refusal:
            raise FaultError(f"Optuna's database {shown(self._path)} can't be used: {refusal}.") from error
        self._path.replace(self._path.with_name(self._path.name + ".corrupt"))
        for suffix in ("-journal", "-wal", "-shm"):  # of the damaged file: SQLite would play them into the new one
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._say(f"{self._path.name} was damaged and is set aside; it is made anew from the results.")
        return self._open()

    def was_replaced(self) -> bool:
        """Return whether the file isn't the one that was opened: another block of the grid has made it anew."""
        try:
            return self._path.stat().st_ino != self._opened
        except FileNotFoundError:
            return True

    def _open(self) -> optuna.storages.RDBStorage:
        address = sqlite_address(Path(os.path.relpath(self._path)))  # so that folders above may have any name
        storage = _checked(address, {"connect_args": {"factory": _Unsynced}})
        self._opened = self._path.stat().st_ino
        return storage

    def _refusal(self, error: Exception) -> str:
        """Return why the machine refuses to use the file, in a line; an empty string if the file is at fault."""
        found: BaseException | None = error
        while found is not None:
            if getattr(found, "sqlite_errorname", "").startswith(_BUSY):
                return why(error)
            found = getattr(found, "orig", None) or found.__cause__
        try:
            with tempfile.NamedTemporaryFile(dir=self._path.parent) as probe:
                probe.write(_PROBE)
                probe.flush()
                os.fsync(probe.fileno())
            with self._path.open("r+b"):
                pass
        except OSError as refused:
            return refused.strerror or str(refused)
        return ""


def open_named_file(address: str) -> optuna.storages.RDBStorage:
    """Return Optuna's storage in a SQLite file that a study names, which may hold other studies and stays as it is.

    Raises FaultError where it can't be used.
    """
    try:
        return _checked(address, {})
    except sqlalchemy.exc.DatabaseError as error:
        raise FaultError(f"the database {address} can't be used: {why(error)}.") from None


def _checked(address: str, settings: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open the SQLite database at an address; raises SQLAlchemy's DatabaseError for a file that is damaged."""
    storage = optuna.storages.RDBStorage(address, settings)
    with storage.engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("PRAGMA integrity_check(1)")).scalar()
    if found != "ok":
        raise sqlalchemy.exc.DatabaseError("PRAGMA integrity_check", {}, sqlite3.DatabaseError(found))
    return storage
