"""Open MLflow's store: its address, a lock so that one process at a time writes, and experiments, mended if need be."""

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from trans4init.reports.files import sqlite_address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = [
    "MirrorError",
    "Store",
    "as_mirror_errors",
    "experiments",
    "locked_store",
    "metric_key",
    "tracking_uri",
]

_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The tags of every experiment: with them MLflow's pages show it as a list of runs, without as traces of a chat."""
_LOCK_NAME = ".mlflow.lock"
"""The file in the folder of all studies that is locked while the store is written."""
_LOCK_SECONDS = 120.0
"""How long a process waits for another that writes to the store; then it gives up with an error."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors are raised too, and said in one sentence
    # A server that doesn't answer is given up on in seconds instead of minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MirrorError(Exception):
    """MLflow's store could not be read or written; the results are not affected."""


def tracking_uri(runs: Path) -> str:
    """Return the address of MLflow's store: MLFLOW_TRACKING_URI if it is set, else `mlflow.db` in the runs folder.

    Raises MirrorError for a folder whose name an address can't hold.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    try:
        return sqlite_address((runs / "mlflow.db").resolve())
    except UnicodeEncodeError:
        raise MirrorError(
            "MLflow takes no folder whose name is not UTF-8; move it, or set MLFLOW_TRACKING_URI"
        ) from None


@contextlib.contextmanager
def as_mirror_errors() -> Iterator[None]:
    """Within this context, any error of MLflow, its database or its transport becomes a MirrorError of one line."""
    try:
        yield
    except MirrorError:
        raise
    except filelock.Timeout:
        raise MirrorError(f"another process has written to MLflow for {_LOCK_SECONDS:.0f} s; try again later") from None
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise MirrorError(f"{type(error).__name__}: {lines[0] if lines else ''}") from error


class Store:
    """MLflow's store of a folder of studies."""

    def __init__(self, runs: Path) -> None:
        """`runs` is the folder of all studies, without links. Raises errors of any kind where it can't be opened."""
        self.runs = runs
        self.client = _client(runs)
        self.mended: list[str] = []
        """What was put right that somebody had deleted or moved, a sentence each."""

    def experiment(self, name: str, *, expected: bool = False) -> str:
        """Return the id of the experiment called `name`: one that was deleted is restored, one that is missing made.

        MLflow keeps an experiment's files where it was made. So one that was made before the folder of all studies was
        moved is deleted, under another name, and made anew. expected: whether it was made before; then its absence is
        worth a sentence.
        """
        local = tracking_uri(self.runs).startswith("sqlite")
        files = (self.runs / "mlartifacts" / name).as_uri() if local else None
        stored = self.client.get_experiment_by_name(name)
        if stored is not None:
            number = str(stored.experiment_id)
            moved = files is not None and files != stored.artifact_location
            if stored.lifecycle_stage != "active":
                self.client.restore_experiment(number)
                self.mended += [] if moved else [f"experiment {name} had been deleted and was restored"]
            if not moved:
                return number
            self.client.rename_experiment(number, f"{name} {number}")
            self.client.delete_experiment(number)
            self.mended.append(f"experiment {name} was made anew, since its files were in {stored.artifact_location}")
        elif expected:
            self.mended.append(f"experiment {name} was missing and was made anew")
        return str(self.client.create_experiment(name, artifact_location=files, tags=_EXPERIMENT_TAGS))

    def search(self, experiment: str, condition: str = "") -> Iterator["Run"]:
        """Yield the experiment's runs that meet a condition, in MLflow's words; those that were deleted too."""
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self.client.search_runs([experiment], condition, ViewType.ALL, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


@contextlib.contextmanager
def locked_store(runs: Path) -> Iterator[None]:
    """Within this context no other process writes to the store, and any error becomes a MirrorError."""
    with as_mirror_errors(), filelock.FileLock(runs / _LOCK_NAME, timeout=_LOCK_SECONDS):
        yield


def experiments(runs: Path) -> dict[str, str]:
    """Return MLflow's id of each study in the store, by name; raises MirrorError where it can't be read."""
    with locked_store(runs) if runs.is_dir() else as_mirror_errors():
        stored = _client(runs).search_experiments(order_by=["name"])
        return {experiment.name: str(experiment.experiment_id) for experiment in stored if experiment.name != "Default"}


def metric_key(*parts: str) -> str:
    """Join the parts that are not empty to a metric's name, with "x" for characters that MLflow doesn't allow there."""
    return re.sub(r"[^A-Za-z0-9_\-. /:]+", "x", "/".join(part for part in parts if part))


def _client(runs: Path) -> "MlflowClient":
    """Return a client of a runs folder's store, whose tables are made if there are none."""
    uri = tracking_uri(runs)
    if uri.startswith("sqlite"):
        from sqlalchemy import make_url

        # MLflow tries for minutes to open a file that can't be opened; SQLite itself says so at once.
        with contextlib.closing(sqlite3.connect(make_url(uri).database or ":memory:", timeout=5)) as database:
            half_made = _is_half_made(database)
        if half_made:
            Path(make_url(uri).database or "").unlink()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def _is_half_made(database: sqlite3.Connection) -> bool:
    """Return whether a process was killed, or its disk full, while MLflow made the tables: it can't go on with such.

    A whole store says its version.
    """
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables or ("alembic_version" in tables and database.execute("SELECT * FROM alembic_version").fetchone()):
        return False
    return "runs" not in tables or database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is None
