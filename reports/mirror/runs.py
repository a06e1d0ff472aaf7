"""Mirror a study in MLflow: a parent run for it and a child for each run, copied from the records at any time."""

import queue
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trans4init.reports.files import write_whole
from trans4init.reports.mirror.store import MirrorError, Store, locked_store, metric_key
from trans4init.reports.records.moments import began_at, measured_at
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.store import Results
from trans4init.reports.records.vocabulary import REFERENCE_COPY
from trans4init.reports.study_report.report_files import BUDGET_DRAWING, DRAWING, HTML, MARKDOWN
from trans4init.reports.study_report.verdict_text import VerdictText

__all__ = ["BackgroundMirror", "Mirror", "sync"]

_ID_NAME = "mirror-id"
"""The file in a study's folder with the id that tells its runs in MLflow from those of other folders of the study."""
_FOLDER_TAG = "trans4init.folder"
_RUN_TAG = "trans4init.run_id"
_DIGEST_TAG = "trans4init.digest"
_PARENT_TAG = "trans4init.spec_hash"
_LINK_TAG = "mlflow.parentRunId"
_BLOCK_TAG = "block"
_BATCH = 1000
"""How many metrics are sent in one request: MLflow takes no more."""
_MLFLOW_STATUS = {"ok": "FINISHED", "pruned": "KILLED"}


@dataclass(frozen=True)
class _Child:
    """Names a run in MLflow that was copied from a record."""

    number: str
    """MLflow's id."""
    digest: str
    """The record's; empty for a run that an earlier version copied."""
    parent: str
    deleted: bool
    whole: bool
    """Whether its writer came to the end."""
    block: str
    """The label of its block when it was copied; empty for a run of a study that wasn't a grid."""


class Mirror:
    """Writes one study's runs to MLflow; it does not write again what is there already.

    What belongs to the study's folder is told by an id in the folder, so that the folder may be moved or linked, and
    other folders may hold runs of the same study.
    """

    def __init__(self, folder: Path, study: str, blocks: Mapping[str, str] | None = None) -> None:
        """`folder` is the study's; MLflow's store is beside it. Raises MirrorError where the store can't be opened.

        blocks: the label of each block of a grid by the hash of its conditions, where runs may hold older ones.
        """
        self._blocks = blocks or {}
        self._study, self._path = study, folder.resolve()
        self._parents: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        with locked_store(self._path.parent):
            mirrored = (self._path / _ID_NAME).exists()
            self._store = Store(self._path.parent)
            self._experiment = self._store.experiment(study, expected=mirrored)
            self._folder = _folder_id(self._path)

    def mended(self) -> list[str]:
        """Return what was put right that somebody had deleted or moved in MLflow, a sentence each."""
        return [*self._store.mended, *(f"{count} {what}" for what, count in self._counts.items())]

    def add(self, records: Sequence[RunRecord]) -> None:
        """Write runs, each in place of an earlier run of the same id. Raises MirrorError where MLflow fails."""
        condition = f"tags.`{_RUN_TAG}` = '{records[0].run_id}'" if len(records) == 1 else ""
        with locked_store(self._path.parent):
            children = self._children(condition)  # read each time: another process may have written since
            for record in records:
                self._bring(record, children.get(record.run_id, []))

    def attach(self, spec_hash: str, records: Sequence[RunRecord], description: str, files: Iterable[Path]) -> None:
        """Describe the parent run of the records, which were made under these conditions, and attach files to it.

        Raises MirrorError where MLflow fails.
        """
        with locked_store(self._path.parent):
            parent, client = self._parent(spec_hash, records[0]), self._store.client
            client.set_terminated(parent, end_time=max(_milliseconds(record.created_at) for record in records))
            client.set_tag(parent, _FOLDER_TAG, self._folder)  # an earlier version gave it none
            client.set_tag(parent, "mlflow.note.content", description)
            for path in files:
                client.log_artifact(parent, str(path))

    def _children(self, condition: str) -> dict[str, list[_Child]]:
        """Return what the store has of the folder's runs, by the record's id."""
        children: dict[str, list[_Child]] = {}
        for run in self._store.search(self._experiment, condition):
            tags, info = run.data.tags, run.info
            if _RUN_TAG in tags and self._is_ours(tags):
                deleted, whole = info.lifecycle_stage == "deleted", info.status not in ("RUNNING", "SCHEDULED")
                child = _Child(
                    info.run_id,
                    tags.get(_DIGEST_TAG, ""),
                    tags.get(_LINK_TAG, ""),
                    deleted,
                    whole,
                    tags.get(_BLOCK_TAG, ""),
                )
                children.setdefault(tags[_RUN_TAG], []).append(child)
        return children

    def _bring(self, record: RunRecord, children: Sequence[_Child]) -> None:
        """See to it that of the record's copies in MLflow one is left, which is whole and below its parent."""
        digest, parent = record.digest(), self._parent(record.spec_hash, record)
        copies = [child for child in children if child.whole and child.digest == digest]
        kept = min(copies, key=lambda child: child.deleted, default=None)
        for child in children:
            if child is not kept and not child.deleted:
                self._store.client.delete_run(child.number)
        if kept is None:
            self._write(record, digest, parent)
            return
        if kept.deleted:
            self._store.client.restore_run(kept.number)
            self._counts["of the runs had been deleted and were restored"] += 1
        if kept.parent != parent:
            self._store.client.set_tag(kept.number, _LINK_TAG, parent)
            self._counts["of the runs had lost their parent run and were given another"] += 1
        if (block := self._block(record)) and kept.block != block:
            self._store.client.set_tag(kept.number, _BLOCK_TAG, block)

    def _write(self, record: RunRecord, digest: str, parent: str) -> None:
        """Write a record as a child run."""
        from mlflow.entities import Metric, Param

        client, moment = self._store.client, measured_at(record)
        tags = self._tags(record) | {
            _RUN_TAG: record.run_id,
            _DIGEST_TAG: digest,
            _LINK_TAG: parent,
            "arm": record.cell.arm,
            "net": record.cell.net,
            "seed": str(record.seed),
            "phase": record.phase,
            "status": record.status,
        }
        child = client.create_run(
            self._experiment, start_time=_milliseconds(began_at(record)), tags=tags, run_name=_name(record)
        )
        values = [
            Metric(metric_key(m.metric.name), m.value, _milliseconds(moment(m.step)), m.step)
            for m in record.measurements
            if m.value is not None
        ]
        # MLflow compares and plots by parameters, and groups its list of runs by tags: both have the names.
        names = {"function": record.cell.function, "arm": record.cell.arm, "net": record.cell.net, "seed": record.seed}
        settings = {**names, **record.parameters, "model": record.model, "device": record.device}
        params = [Param(name, str(value)) for name, value in settings.items()]
        client.log_batch(child.info.run_id, metrics=values[:_BATCH], params=params)
        for start in range(_BATCH, len(values), _BATCH):
            client.log_batch(child.info.run_id, metrics=values[start : start + _BATCH])
        status = _MLFLOW_STATUS.get(record.status, "FAILED")
        client.set_terminated(child.info.run_id, status=status, end_time=_milliseconds(record.created_at))

    def _parent(self, spec_hash: str, record: RunRecord) -> str:
        """Return MLflow's id of the run that stands for the study under these conditions, as `record` was made."""
        if spec_hash not in self._parents:
            stored = self._store.search(self._experiment, f"tags.`{_PARENT_TAG}` = '{spec_hash}'")
            ours = [run for run in stored if self._is_ours(run.data.tags)]
            parent = min(ours, key=lambda run: run.info.lifecycle_stage == "deleted", default=None)
            if parent is None:
                moment = _milliseconds(began_at(record))
                tags = self._tags(record) | {_PARENT_TAG: spec_hash}
                name = f"{self._study} ({self._block(record) or spec_hash})"
                parent = self._store.client.create_run(self._experiment, start_time=moment, tags=tags, run_name=name)
                self._store.client.set_terminated(parent.info.run_id, end_time=moment)
            elif parent.info.lifecycle_stage == "deleted":
                self._store.client.restore_run(parent.info.run_id)
                self._counts["parent run had been deleted and was restored"] += 1
            self._parents[spec_hash] = parent.info.run_id
        return self._parents[spec_hash]

    def _is_ours(self, tags: dict[str, str]) -> bool:
        """Return whether a run was copied from this folder, or by an earlier version, which tells no folders apart."""
        return tags.get(_FOLDER_TAG, self._folder) == self._folder

    def _tags(self, record: RunRecord) -> dict[str, str]:
        names = {"study": record.study, "function": record.cell.function, "task": record.task}
        block = self._block(record)
        return names | {_FOLDER_TAG: self._folder} | ({_BLOCK_TAG: block} if block else {})

    def _block(self, record: RunRecord) -> str:
        """Return the label of a run's block; an empty string for a study that is no grid."""
        return self._blocks.get(record.spec_hash) or (record.card.block if record.card else "")


class BackgroundMirror:
    """Runs a mirror in a thread of its own, so that no run waits for MLflow; it stops at the first error."""

    def __init__(self, folder: Path, study: str) -> None:
        self.error = ""
        """What went wrong; empty while nothing did."""
        self.mended: list[str] = []
        """What was put right in MLflow, a sentence each; known when it is drained."""
        self._queue: queue.Queue[RunRecord | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(folder, study), daemon=True)
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

    def _work(self, folder: Path, study: str) -> None:
        try:
            mirror = Mirror(folder, study)
            while (record := self._queue.get()) is not None:
                mirror.add([record])
            self.mended = mirror.mended()
        except MirrorError as error:
            self.error = str(error)


def sync(folder: Path, results: Results, verdict: VerdictText) -> list[str]:
    """Bring MLflow up to date with a study's results, its verdict, and its report if there is one.

    folder: the study's; the store is that of the runs folder around it. Return what was put right in MLflow that
    somebody had deleted or moved there, a sentence each. Raises MirrorError where MLflow fails.
    """
    records, cards = results.records, results.cards
    if not records:
        return []
    mirror = Mirror(folder, records[0].study, {card.spec_hash: card.block for card in cards if card.block})
    mirror.add(records)
    pages = [path for name in (HTML, MARKDOWN, DRAWING) if (path := folder / name).exists()]
    pages += sorted(folder.glob(BUDGET_DRAWING.replace(".", "*.")))
    for card in cards or (None,):
        paragraphs = [card.question, *verdict.lines(), card.setting] if card else []
        conditions = card.spec_hash if card and card.spec_hash else _usual_conditions(records)
        about = [record for record in records if record.spec_hash == conditions]
        if not about and len(cards) > 1:
            continue  # a block without a run yet
        if units := _units(about if len(cards) > 1 else records):
            paragraphs.append(f"Units: {units}.")
        # The report has megabytes and is about all blocks: the first one's parent run has it.
        mirror.attach(conditions, about or records, "\n\n".join(paragraphs), pages)
        pages = []
    return mirror.mended()


def _units(records: Iterable[RunRecord]) -> str:
    """Name the unit of each metric, which MLflow has no place for; groups and slots have the metric's."""
    units = {m.metric.name.partition("/")[0]: m.metric.unit for record in records for m in record.measurements}
    return "; ".join(f"{name} in {unit}" for name, unit in sorted(units.items()) if unit not in ("", "1"))


def _usual_conditions(records: Sequence[RunRecord]) -> str:
    """Return the hash of the conditions that most of the runs were made under."""
    counts = Counter(record.spec_hash for record in records)
    return max(counts, key=lambda spec_hash: (counts[spec_hash], spec_hash))


def _folder_id(folder: Path) -> str:
    """Return the id of a study's folder, which is written into it the first time."""
    path = folder / _ID_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{uuid.uuid4().hex}\n")
    return path.read_text(encoding="utf-8").strip()


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _name(record: RunRecord) -> str:
    """Return the name under which MLflow lists a run."""
    trial = f" trial {record.trial}" if record.phase == "tune" else ""
    seed = f" seed {record.seed}" if record.phase != "throughput" else ""
    copy = " second copy" if record.phase == "throughput" and record.seed == REFERENCE_COPY else ""
    function = record.card.reference.function if record.card else record.cell.function
    return f"{record.phase} {record.cell.label(function)}{trial}{seed}{copy}"
