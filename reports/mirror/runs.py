"""Mirror a study in MLflow: a parent run for it and a child for each run, copied from the records at any time."""

import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trans4init.reports.files import sqlite_address
from trans4init.reports.records.metrics import WALL_TIME
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.study_report.report_files import DRAWING, HTML, MARKDOWN
from trans4init.reports.study_report.verdict_text import VerdictText

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "EXPERIMENT_TAGS",
    "BackgroundMirror",
    "Mirror",
    "MirrorError",
    "as_mirror_errors",
    "experiments",
    "open_store",
    "sync",
    "tracking_uri",
]

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The tags of every experiment: with them MLflow's pages show it as a list of runs, without as traces of a chat."""
_RUN_TAG = "trans4init.run_id"
_MADE_TAG = "trans4init.created_at"
_PARENT_TAG = "trans4init.spec_hash"
_BATCH = 1000
"""How many metrics are sent in one request: MLflow takes no more."""
_MLFLOW_STATUS = {"ok": "FINISHED", "pruned": "KILLED"}

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
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


class Mirror:
    """A writer of one study's runs to MLflow; it does not write again what is there already."""

    def __init__(self, runs: Path, study: str) -> None:
        """`runs` is the folder of all studies. Raises MirrorError where the store can't be opened."""
        self._study = study
        with as_mirror_errors():
            self._client = open_store(runs)
            self._experiment = self._find_experiment(runs)
            self._parents: dict[str, str] = {}
            self._known: dict[str, tuple[str, str]] = {}  # by the record's run_id: its created_at, and MLflow's id
            self._read_runs()

    def add(self, record: RunRecord) -> None:
        """Write one run; it replaces an earlier run of the same id. Raises MirrorError where MLflow fails."""
        created_at, earlier = self._known.get(record.run_id, ("", ""))
        if created_at == record.created_at.isoformat():
            return
        with as_mirror_errors():
            if earlier:
                self._client.delete_run(earlier)
            self._known[record.run_id] = record.created_at.isoformat(), self._write(record)

    def attach(self, newest: RunRecord, description: str, files: Iterable[Path]) -> None:
        """Describe the parent run of the study's newest run, set its end, and attach files such as the report to it.

        Raises MirrorError where MLflow fails.
        """
        moment = _milliseconds(newest.created_at)
        with as_mirror_errors():
            parent = self._parent(newest, moment)
            self._client.set_terminated(parent, end_time=moment)
            self._client.set_tag(parent, "mlflow.note.content", description)
            for path in files:
                self._client.log_artifact(parent, str(path))

    def _find_experiment(self, runs: Path) -> str:
        """Return the id of the study's experiment, which is created if there is none."""
        experiment = self._client.get_experiment_by_name(self._study)
        if experiment is not None:
            return str(experiment.experiment_id)
        local = tracking_uri(runs).startswith("sqlite")
        artifacts = (runs.resolve() / "mlartifacts" / self._study).as_uri() if local else None
        created: str = self._client.create_experiment(self._study, artifact_location=artifacts, tags=EXPERIMENT_TAGS)
        return created

    def _read_runs(self) -> None:
        """Read which runs the store has. A child whose writer was stopped half way is deleted, to be written again."""
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                if _RUN_TAG not in tags:
                    self._parents[tags.get(_PARENT_TAG, "")] = run.info.run_id
                elif run.info.status in ("RUNNING", "SCHEDULED"):
                    self._client.delete_run(run.info.run_id)
                else:
                    self._known[tags[_RUN_TAG]] = tags.get(_MADE_TAG, ""), run.info.run_id
            token = page.token
            if not token:
                return

    def _write(self, record: RunRecord) -> str:
        """Write a record as a child run, and return MLflow's id of it."""
        from mlflow.entities import Metric, Param

        moment = _milliseconds(record.created_at)
        began = moment - round(1000 * (record.last(WALL_TIME.name) or 0))
        tags = self._tags(record) | {
            _RUN_TAG: record.run_id,
            _MADE_TAG: record.created_at.isoformat(),
            "mlflow.parentRunId": self._parent(record, moment),
            "arm": record.cell.arm,
            "net": record.cell.net,
            "seed": str(record.seed),
            "phase": record.phase,
            "status": record.status,
        }
        child = self._client.create_run(self._experiment, start_time=began, tags=tags, run_name=_name(record))
        values = [Metric(m.metric.name, m.value, moment, m.step) for m in record.measurements if m.value is not None]
        # MLflow compares and plots by parameters, and groups its list of runs by tags: both have the names.
        names = {"function": record.cell.function, "arm": record.cell.arm, "net": record.cell.net, "seed": record.seed}
        settings = {**names, **record.parameters, "model": record.model, "device": record.device}
        params = [Param(name, str(value)) for name, value in settings.items()]
        self._client.log_batch(child.info.run_id, metrics=values[:_BATCH], params=params)
        for start in range(_BATCH, len(values), _BATCH):
            self._client.log_batch(child.info.run_id, metrics=values[start : start + _BATCH])
        status = _MLFLOW_STATUS.get(record.status, "FAILED")
        self._client.set_terminated(child.info.run_id, status=status, end_time=moment)
        return str(child.info.run_id)

    def _parent(self, record: RunRecord, moment: int) -> str:
        """Return MLflow's id of the run that stands for the study under the record's conditions (its spec hash)."""
        if record.spec_hash not in self._parents:
            tags = self._tags(record) | {_PARENT_TAG: record.spec_hash}
            name = f"{self._study} ({record.spec_hash})"
            parent = self._client.create_run(self._experiment, start_time=moment, tags=tags, run_name=name)
            self._client.set_terminated(parent.info.run_id, end_time=moment)
            self._parents[record.spec_hash] = parent.info.run_id
        return self._parents[record.spec_hash]

    @staticmethod
    def _tags(record: RunRecord) -> dict[str, str]:
        return {"study": record.study, "function": record.cell.function, "task": record.task}


class BackgroundMirror:
    """A mirror in a thread of its own, so that no run waits for MLflow; it stops at the first error."""

    def __init__(self, runs: Path, study: str) -> None:
        self.error = ""
        """What went wrong; empty while nothing did."""
        self._queue: queue.Queue[RunRecord | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(runs, study), daemon=True)
        self._thread.start()

    def add(self, record: RunRecord) -> None:
        """Have the record written soon."""
        self._queue.put(record)

    def drain(self, timeout: float) -> None:
        """Wait, at most `timeout` seconds, until every record is written; then `error` says whether they are."""
        self._queue.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.error = self.error or f"MLflow did not take the runs within {timeout:.0f} s"

    def _work(self, runs: Path, study: str) -> None:
        try:
            mirror = Mirror(runs, study)
            while (record := self._queue.get()) is not None:
                mirror.add(record)
        except MirrorError as error:
            self.error = str(error)


def open_store(runs: Path) -> "MlflowClient":
    """Return a client of a runs folder's store; call it within `as_mirror_errors`: it raises errors of all kinds."""
    uri = tracking_uri(runs)
    if uri.startswith("sqlite"):
        from sqlalchemy import make_url

        # MLflow tries for minutes to open a file that can't be opened; SQLite itself says so at once.
        with contextlib.closing(sqlite3.connect(make_url(uri).database or ":memory:", timeout=5)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _name(record: RunRecord) -> str:
    """Return the name under which MLflow lists a run."""
    trial = f" trial {record.trial}" if record.phase == "tune" else ""
    seed = f" seed {record.seed}" if record.phase == "evaluate" else ""
    function = record.card.reference.function if record.card else record.cell.function
    return f"{record.phase} {record.cell.label(function)}{trial}{seed}"


@contextlib.contextmanager
def as_mirror_errors() -> Iterator[None]:
    """Within this context, any error of MLflow, its database or its transport becomes a MirrorError of one line."""
    try:
        yield
    except MirrorError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise MirrorError(f"{type(error).__name__}: {lines[0] if lines else ''}") from error


def sync(folder: Path, records: Sequence[RunRecord], verdict: VerdictText) -> None:
    """Bring MLflow up to date with a study's records, its verdict, and its report if there is one.

    folder: the study's; the store is that of the runs folder around it. Raises MirrorError where MLflow fails.
    """
    if not records:
        return
    newest = max(records, key=lambda record: record.created_at)
    mirror = Mirror(folder.resolve().parent, newest.study)
    for record in records:
        mirror.add(record)
    pages = [path for name in (HTML, MARKDOWN, DRAWING) if (path := folder / name).exists()]
    paragraphs = [newest.card.question, *verdict.lines(), newest.card.setting] if newest.card else []
    mirror.attach(newest, "\n\n".join(paragraphs), pages)


def experiments(runs: Path) -> dict[str, str]:
    """Return MLflow's id of each study in the store, by name; raises MirrorError where it can't be read."""
    with as_mirror_errors():
        stored = open_store(runs).search_experiments(order_by=["name"])
        return {experiment.name: str(experiment.experiment_id) for experiment in stored if experiment.name != "Default"}
