"""The MLflow mirror: one parent run per study, one child per run, made from the results and safe to make again."""

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

from trans4init.reports.records.metrics import WALL_TIME
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.study_report.report_files import DRAWING, HTML, MARKDOWN
from trans4init.reports.study_report.verdict_text import VerdictText

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "OF_MODELS",
    "BackgroundMirror",
    "Mirror",
    "MirrorError",
    "experiments",
    "open_store",
    "sync",
    "tracking_uri",
    "translated",
]

OF_MODELS = {"mlflow.experimentKind": "custom_model_development"}
"""Tags of an experiment that MLflow's pages show as a list of runs; without them they show traces of a chat."""
_RUN_TAG = "trans4init.run_id"
_MADE_TAG = "trans4init.created_at"
_PARENT_TAG = "trans4init.spec_hash"
_BATCH = 1000
"""MLflow's limit of metrics per request."""
_MLFLOW_STATUS = {"ok": "FINISHED", "pruned": "KILLED"}

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # A server that doesn't answer is given up on in seconds instead of minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MirrorError(Exception):
    """MLflow's store could not be written; the results are unharmed."""


def tracking_uri(runs: Path) -> str:
    """Where MLflow keeps the runs: MLFLOW_TRACKING_URI where it is set, else `mlflow.db` in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').resolve()}"


class Mirror:
    """Writes the runs of one study to MLflow. What is there already is not written again."""

    def __init__(self, runs: Path, study: str) -> None:
        """`runs` is the folder of all studies. Raises MirrorError where the store can't be opened."""
        self._study = study
        with translated():
            self._client = open_store(runs)
            self._experiment = self._find_experiment(runs)
            self._parents: dict[str, str] = {}
            self._known: dict[str, tuple[str, str]] = {}  # by our id of a run: when it was made, and MLflow's id
            self._read_runs()

    def add(self, record: RunRecord) -> None:
        """Write one run, in the place of an earlier one of its name; raises MirrorError where MLflow can't."""
        made, before = self._known.get(record.run_id, ("", ""))
        if made == record.created_at.isoformat():
            return
        with translated():
            if before:
                self._client.delete_run(before)
            self._known[record.run_id] = record.created_at.isoformat(), self._write(record)

    def attach(self, newest: RunRecord, description: str, files: Iterable[Path]) -> None:
        """Describe the parent run of the study's newest run, end it there, and put files such as the report beside it.

        Raises MirrorError where MLflow can't.
        """
        moment = _milliseconds(newest.created_at)
        with translated():
            parent = self._parent(newest, moment)
            self._client.set_terminated(parent, end_time=moment)
            self._client.set_tag(parent, "mlflow.note.content", description)
            for path in files:
                self._client.log_artifact(parent, str(path))

    def _find_experiment(self, runs: Path) -> str:
        known = self._client.get_experiment_by_name(self._study)
        if known is not None:
            return str(known.experiment_id)
        local = tracking_uri(runs).startswith("sqlite:")
        place = (runs.resolve() / "mlartifacts" / self._study).as_uri() if local else None
        created: str = self._client.create_experiment(self._study, artifact_location=place, tags=OF_MODELS)
        return created

    def _read_runs(self) -> None:
        """Learn what is there. A child whose writer was stopped half way is deleted, to be written again."""
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
        found = [Metric(m.metric.name, m.value, moment, m.step) for m in record.measurements if m.value is not None]
        # MLflow's comparisons plot and group by parameters; its list of runs groups by tags.
        names = {"function": record.cell.function, "arm": record.cell.arm, "net": record.cell.net, "seed": record.seed}
        settings = {**names, **record.parameters, "model": record.model, "device": record.device}
        params = [Param(name, str(value)) for name, value in settings.items()]
        self._client.log_batch(child.info.run_id, metrics=found[:_BATCH], params=params)
        for start in range(_BATCH, len(found), _BATCH):
            self._client.log_batch(child.info.run_id, metrics=found[start : start + _BATCH])
        status = _MLFLOW_STATUS.get(record.status, "FAILED")
        self._client.set_terminated(child.info.run_id, status=status, end_time=moment)
        return str(child.info.run_id)

    def _parent(self, record: RunRecord, moment: int) -> str:
        """The MLflow id of the run that stands for the study under these conditions."""
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
    """A mirror in a thread of its own, so that no run waits for MLflow. After the first error it stops and says so."""

    def __init__(self, runs: Path, study: str) -> None:
        self.error = ""
        self._queue: queue.Queue[RunRecord | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(runs, study), daemon=True)
        self._thread.start()

    def add(self, record: RunRecord) -> None:
        """Write the record soon."""
        self._queue.put(record)

    def drain(self, timeout: float) -> None:
        """Wait until all that was added is written, at most `timeout` seconds; `error` says what went wrong."""
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
    """A client of the store of that runs folder; raises what SQLite or MLflow raise, for `translated`."""
    uri = tracking_uri(runs)
    if uri.startswith("sqlite:///"):
        # MLflow tries for minutes to open a file that can't be opened; SQLite itself says so at once.
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=5)) as database:
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
    trial = f" trial {record.trial}" if record.phase == "tune" else ""
    seed = f" seed {record.seed}" if record.phase == "evaluate" else ""
    function = record.card.reference.function if record.card else record.cell.function
    return f"{record.phase} {record.cell.label(function)}{trial}{seed}"


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Whatever MLflow, its database driver or its transport raise becomes a MirrorError with the first line of it."""
    try:
        yield
    except Exception as error:
        first = str(error).strip().splitlines()
        raise MirrorError(f"{type(error).__name__}: {first[0] if first else ''}") from error


def sync(folder: Path, records: Sequence[RunRecord], verdict: VerdictText) -> None:
    """Bring MLflow up to date with the records of the study in `folder`, their verdict, and the report if there is one.

    The store is that of the runs folder around it. Raises MirrorError where MLflow can't be written.
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
    """The studies that MLflow's store has, by name, with its id of each; raises MirrorError where it can't be read."""
    with translated():
        found = open_store(runs).search_experiments(order_by=["name"])
        return {experiment.name: str(experiment.experiment_id) for experiment in found if experiment.name != "Default"}
