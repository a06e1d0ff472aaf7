"""Reach the database server that keeps a study's trials, and hold a lock on it while the study is run.

Parquet is the truth and the database a view of it: what is written here can be made again. Imports no Optuna.
"""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from trans4init.ablations.errors import FaultError, InputError, without_passwords
from trans4init.ablations.lock import locked, process_name

__all__ = ["Server", "reached", "why"]

_CONNECT_SECONDS = 5
"""How long a connection may take to be made. A server that doesn't answer stops a command, or a run's end, as long."""
_ANSWER_SECONDS = 15
"""How long an answer may take on a connection that was made: then the server counts as gone."""
_DEAD_CLIENT = ("tcp_keepalives_idle = 10", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")
"""With them PostgreSQL releases the lock of a machine that vanished after 25 s; by default it does after two hours."""
_TABLES, _TABLES_SECONDS = "/tables", 30.0
"""The lock that is held while Optuna makes its tables, which two processes can't do at once, and how long to wait.
No study has its name."""
_LONGEST_NAME = 63
"""Bytes of a connection's name in PostgreSQL."""
_SETTINGS: dict[str, dict[str, Any]] = {
    "psycopg": {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * _ANSWER_SECONDS,
    },
    "pymysql": {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _ANSWER_SECONDS,
        "write_timeout": _ANSWER_SECONDS,
    },
}
_SETTINGS |= {"psycopg2": _SETTINGS["psycopg"], "mysqldb": _SETTINGS["pymysql"]}
"""What each driver is told when it connects; an option that the address names itself is left as it is."""
_TO_INSTALL = {"psycopg": "pip install 'trans4init[postgres]'", "MySQLdb": "pip install pymysql, and mysql+pymysql://…"}
"""What provides a driver, by the module that is missing."""
_TAKE = {
    "postgresql": "SELECT pg_try_advisory_lock(:high, :low)",
    "mysql": "SELECT GET_LOCK(:name, 0)",
}
_LEAVE = {
    "postgresql": "SELECT pg_advisory_unlock(:high, :low)",
    "mysql": "SELECT RELEASE_LOCK(:name)",
}
_HOLDER = {
    "postgresql": """
        SELECT activity.application_name FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
        WHERE locktype = 'advisory' AND classid::bigint = (:high)::bigint & 4294967295
        AND objid::bigint = (:low)::bigint & 4294967295 AND objsubid = 2 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
    "mysql": "SELECT CONCAT('a client on ', host) FROM information_schema.processlist WHERE id = IS_USED_LOCK(:name)",
}
"""Asks who holds the lock: PostgreSQL knows the process by the name that it gave, MySQL its machine and port."""


class Server:
    """Is a database server, with a lock on one study that lasts as long as a connection.

    The server releases the lock when the process ends, however it ends, or its machine is gone.
    """

    def __init__(self, url: URL, study: str) -> None:
        """`url` names a PostgreSQL or MySQL database; nobody is asked before `take`."""
        self.url, self._study = url, study
        self.shown = without_passwords(url.render_as_string())
        self._dialect = url.get_backend_name().replace("mariadb", "mysql")
        self._connection: Connection | None = None
        self._sockets: WeakSet[Any] = WeakSet()
        self._silent = False
        """Whether connections were ended since nobody answered, since when no other is tried but by `take`."""
        self._engine = sqlalchemy.create_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **self.engine_options()
        )
        self.watch(self._engine)

    def watch(self, engine: Engine) -> None:
        """Let `in_time` end the engine's connections too: those that it makes from now on."""

        def refuse(dialect: sqlalchemy.Dialect, *_: Any) -> None:
            if self._silent:  # else Optuna, which tries five times, would wait as often
                raise dialect.loaded_dbapi.OperationalError(f"no answer in {_ANSWER_SECONDS} s")

        sqlalchemy.event.listen(engine, "do_connect", refuse)
        sqlalchemy.event.listen(engine, "connect", lambda connection, _: self._sockets.add(connection))

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Within this context, end every connection when the server has not answered in time: a driver waits forever.

        What waits then raises SQLAlchemyError.
        """
        timer = threading.Timer(_ANSWER_SECONDS, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        self._silent = True
        closed = self._engine.dialect.loaded_dbapi.Error
        for connection in list(self._sockets):
            if hasattr(connection, "fileno"):  # PyMySQL's have none, and a limit of their own
                with contextlib.suppress(OSError, closed), socket.socket(fileno=os.dup(connection.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)

    def engine_options(self) -> dict[str, Any]:
        """Return what SQLAlchemy's `create_engine` is told besides the address."""
        settings = dict(_SETTINGS.get(self.url.get_driver_name(), {}))
        if self._dialect == "postgresql":
            settings["application_name"] = process_name()[:_LONGEST_NAME]
        return {"connect_args": {name: value for name, value in settings.items() if name not in self.url.query}}

    def take(self) -> None:
        """Lock the study, anew if the connection that held the lock is gone.

        Raises FaultError if another process holds it, naming that, and SQLAlchemyError where nobody answers.
        """
        if self._connection is not None:
            try:
                with self.in_time():
                    self._connection.execute(text("SELECT 1"))
            except SQLAlchemyError:
                self.leave()
            else:
                return
        self._silent = False
        self._connection = self._engine.connect()
        try:
            for setting in _DEAD_CLIENT if self._dialect == "postgresql" else ():
                self._connection.execute(text(f"SET {setting}"))
            taken = self._ask(_TAKE, self._study)
            holder = "" if taken else self._ask(_HOLDER, self._study)
        except SQLAlchemyError:
            self.leave()  # else the next call would take a connection without the lock for one that holds it
            raise
        if not taken:
            self.leave()
            raise FaultError(
                f"another trans4init ({holder or 'which one the server does not tell'}) is at work on the study "
                f"{self._study} in {self.shown}; wait for it, or give the study another name."
            )

    def leave(self) -> None:
        """End the connection, and with it the lock."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within this context no other process makes tables; raises FaultError if another one takes half a minute."""
        end = time.monotonic() + _TABLES_SECONDS
        while not self._ask(_TAKE, _TABLES):
            if time.monotonic() > end:
                raise FaultError(
                    f"another trans4init ({self._ask(_HOLDER, _TABLES)}) has made tables in {self.shown} for "
                    f"{_TABLES_SECONDS:.0f} s; try again later."
                )
            time.sleep(0.1)
        try:
            yield
        finally:
            self._ask(_LEAVE, _TABLES)

    def _ask(self, words: dict[str, str], name: str) -> Any:
        """Return the one value that the server answers in its dialect, about the lock called `name`."""
        assert self._connection is not None
        number = hashlib.sha256(f"trans4init {name}".encode()).digest()
        keys = {
            "high": int.from_bytes(number[:4], signed=True),
            "low": int.from_bytes(number[4:8], signed=True),
            "name": f"trans4init {self.url.database} {number.hex()}"[:64],
        }
        asked = words[self._dialect]
        used = {key: value for key, value in keys.items() if f":{key}" in asked}
        return self._connection.execute(text(asked), used).scalar()


@contextmanager
def reached(address: str, study: str) -> Iterator[Server | None]:
    """Lock the study on the server at an address; None for SQLite, which has no server but a lock beside its file.

    Raises InputError for an address that says nothing, and FaultError where a driver is missing, nobody answers, or
    another process is at work on the study.
    """
    try:
        url = make_url(address)
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise InputError(
            f"[storage] url = {without_passwords(address)!r} is no address that SQLAlchemy can read."
        ) from None
    except ImportError as error:
        package = error.name or str(error)
        install = _TO_INSTALL.get(package, f"pip install {package}")
        raise FaultError(f"[storage] url needs the package {package}, which is not installed: {install}.") from None
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        with locked(file.with_name(f"{file.name}.{study}.lock"), file, "give the study another name"):
            yield None
        return
    server = Server(url, study)
    try:
        server.take()
    except SQLAlchemyError as error:
        raise FaultError(f"the database {server.shown} can't be used: {why(error)}.") from None
    try:
        yield server
    finally:
        server.leave()


def why(error: BaseException) -> str:
    """Return what a driver said, in a line and without the words around it, or any password."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = [line.strip() for line in without_passwords(str(said)).splitlines() if line.strip()]
    return (lines[0] if lines else type(said).__name__).rstrip(".")
