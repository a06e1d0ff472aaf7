"""Define the record of a run, and its form as an Arrow table: tidy rows, with the rest in the schema's metadata."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from trans4init.reports.files import without_folders
from trans4init.reports.machine import Environment
from trans4init.reports.records.vocabulary import PHASES, STATUSES, Phase, Status

__all__ = [
    "ROWS",
    "SCHEMA_VERSION",
    "ArmDescription",
    "CellKey",
    "DigestError",
    "Measurement",
    "Metric",
    "RunRecord",
    "StudyCard",
    "UnreadableSchemaError",
    "card_from_table",
    "card_table",
    "from_table",
    "largest_card",
    "to_table",
]

SCHEMA_VERSION = 4
"""Written into every file; raise it when older code would misread new files, which it then refuses."""
_READABLE_VERSIONS = ("2", "3", "4")
"""Read by `from_table`. Version 2 had study cards without arms, version 3 without trials and ids."""

_WORD = pa.dictionary(pa.int32(), pa.string())

ROWS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("study", _WORD, nullable=False),
        pa.field("spec_hash", _WORD, nullable=False),
        pa.field("function", _WORD, nullable=False),
        pa.field("arm", _WORD, nullable=False),
        pa.field("net", _WORD, nullable=False),
        pa.field("task", _WORD, nullable=False),
        pa.field("model", _WORD, nullable=False),
        pa.field("trial", pa.int32(), nullable=True),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("phase", _WORD, nullable=False),
        pa.field("metric", _WORD, nullable=False),
        pa.field("unit", _WORD, nullable=False),
        pa.field("higher_is_better", pa.bool_(), nullable=True),
        pa.field("value", pa.float64(), nullable=True),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("status", _WORD, nullable=False),
        pa.field("device", _WORD, nullable=False),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""The columns: one row per measured value. `value` is null where a run failed before it had one."""


class UnreadableSchemaError(ValueError):
    """A results file has a schema version that this code does not know."""


class DigestError(ValueError):
    """The rows or metadata of a results file are not those that were written."""


@dataclass(frozen=True)
class Metric:
    """A named quantity. `higher_is_better` is None for a quantity that is only shown, never judged."""

    name: str
    unit: str
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Measurement:
    """One value of one metric at one training step. NaN and infinity are stored as None: the value is missing."""

    metric: Metric
    value: float | None
    step: int = 0

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


@dataclass(frozen=True, order=True)
class CellKey:
    """A cell of a study: one function in one arm with one net. `net` is empty for an arm without a net."""

    function: str
    arm: str
    net: str = ""

    def __str__(self) -> str:
        return " · ".join(word for word in (self.arm, self.net) if word)

    def label(self, function: str) -> str:
        """Return the cell's name in a study of `function`; the cell's own function is named only if it is another."""
        return str(self) if self.function == function else f"{self.function} ({self})"


@dataclass(frozen=True)
class ArmDescription:
    """What reports say of an arm, and how they draw it. The defaults stand for an arm of which nothing is known."""

    name: str
    holds: str = ""
    """What the slot holds."""
    moves: str = ""
    """What training moves."""
    uses_net: bool = False
    """Whether the slot holds a net."""
    needs_fit: bool = False
    """Whether that net is fitted to the function before the model is trained."""
    colour: str = "#444444"
    """#RRGGBB."""
    symbol: str = "circle"
    """One of `SYMBOLS`."""


@dataclass(frozen=True)
class StudyCard:
    """What a report needs to know of a study beyond its rows, and which runs its verdict is about.

    Each run holds the card that the study had then. The card that counts is the one that was written last beside the
    runs, when the study was run with the number of seeds and trials and the cells that it names.
    """

    name: str
    question: str
    metric: str
    """The metric that the verdict is about."""
    margin: float
    """Differences smaller than this count as equivalent. In the metric's unit; stated before any run."""
    reference: CellKey
    cells: tuple[CellKey, ...]
    seeds: int
    command: str
    """The command that reproduces the study."""
    setting: str
    """Task, data, model and training in one line."""
    arms: tuple[ArmDescription, ...] = ()
    """The arms of the cells; empty in results that were written before cards had them."""
    trials: int | None = None
    """How many tuning trials each cell has; 0 if nothing is tuned, None in results written before cards said it."""
    spec_hash: str = ""
    """The hash of the conditions that the runs share; empty in results that were written before cards had it."""
    throughput_runs: tuple[str, ...] = ()
    """The ids of the runs that time the cells; empty in results that were written before cards had them."""

    def arm(self, name: str) -> ArmDescription:
        """Return the description of the arm called `name`: one without words or colour where the card has none."""
        return next((arm for arm in self.arms if arm.name == name), ArmDescription(name))

    def comparisons(self) -> tuple[CellKey, ...]:
        """Return the cells that are compared with the reference: all others."""
        return tuple(cell for cell in self.cells if cell != self.reference)


@dataclass(frozen=True)
class RunRecord:
    """One run: what was run, what it measured, and where."""

    run_id: str
    study: str
    spec_hash: str
    cell: CellKey
    task: str
    model: str
    trial: int | None
    seed: int
    phase: Phase
    status: Status
    device: str
    created_at: datetime
    measurements: tuple[Measurement, ...]
    environment: Environment
    card: StudyCard | None = None
    """None for a run that belongs to no study, such as a single fit."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """The hyper-parameters that Optuna chose for this run."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts about the run that are not numbers: what may move, which checkpoint was used."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The resolved study file."""
    error: str = ""
    """Why the run is not `ok`; the traceback where there is one. Files are named without the folders above them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", without_folders(self.error))
        if self.phase not in PHASES:
            raise ValueError(f"phase {self.phase!r} is not one of {', '.join(PHASES)}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if not self.measurements:
            raise ValueError(f"run {self.run_id} has no measurement: a run that failed records its metric as missing")

    def digest(self) -> str:
        """Return the SHA-256 of all that the run is and measured, without the card: the study's may change later."""
        values = [m.value if m.value is None else float(m.value) for m in self.measurements]  # as Parquet has them
        metrics = [(m.metric.name, m.metric.unit, m.metric.higher_is_better, m.step) for m in self.measurements]
        content = [
            [getattr(self, name) for name in _RUN_COLUMNS],
            dataclasses.astuple(self.cell),
            [metrics, values],
            dataclasses.asdict(self.environment),
            [dict(self.parameters), dict(self.notes), dict(self.spec), self.error],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def last(self, metric: str) -> float | None:
        """Return the value of `metric` at its last step: None where that is missing, as in a run that diverged."""
        measured = [m for m in self.measurements if m.metric.name == metric]
        return max(measured, key=lambda m: m.step).value if measured else None

    def by_step(self, metric: str) -> dict[int, float]:
        """Return the values of `metric` by step (of a speed, by round), without those that are missing."""
        return {m.step: m.value for m in self.measurements if m.metric.name == metric and m.value is not None}


_RUN_COLUMNS = (
    "run_id", "study", "spec_hash", "task", "model", "trial", "seed", "phase", "status", "device", "created_at"
)  # fmt: skip
_CELL_COLUMNS = ("function", "arm", "net")
_ROWS_AT_ONCE = 100_000
"""How many rows `_digest` turns into text at a time: the text takes several times the memory of the table."""


def to_table(records: Sequence[RunRecord]) -> pa.Table:
    """Return runs as a table; what they share and what is not a column is in the schema's metadata.

    Raises ValueError for runs that differ in environment, study card or spec: a table has each of these once.
    """
    first = records[0]
    if any(r.environment != first.environment or r.card != first.card or r.spec != first.spec for r in records):
        raise ValueError("runs of one table must share environment, study card and spec")
    rows = [(record, measurement) for record in records for measurement in record.measurements]
    columns: dict[str, list[Any]] = {name: [getattr(run, name) for run, _ in rows] for name in _RUN_COLUMNS}
    columns |= {name: [getattr(run.cell, name) for run, _ in rows] for name in _CELL_COLUMNS}
    columns |= {
        "metric": [m.metric.name for _, m in rows],
        "unit": [m.metric.unit for _, m in rows],
        "higher_is_better": [m.metric.higher_is_better for _, m in rows],
        "value": [m.value for _, m in rows],
        "step": [m.step for _, m in rows],
    }
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "environment": json.dumps(dataclasses.asdict(first.environment)),
        "git_commit": first.environment.git_commit,
        "study_card": _card_as_json(first.card),
        "spec": json.dumps(first.spec),
        "runs": json.dumps(
            {r.run_id: {"parameters": dict(r.parameters), "notes": dict(r.notes), "error": r.error} for r in records}
        ),
    }
    arrays = [pa.array(columns[column.name], type=column.type) for column in ROWS]
    return _sealed(pa.Table.from_arrays(arrays, schema=ROWS), metadata)


def card_table(card: StudyCard) -> pa.Table:
    """Return a study's card as a table without rows."""
    return _sealed(ROWS.empty_table(), {"schema_version": str(SCHEMA_VERSION), "study_card": _card_as_json(card)})


def card_from_table(table: pa.Table) -> StudyCard | None:
    """Return the card that a table was made of by `card_table`; raises errors as `from_table` does."""
    return _card(json.loads(_checked_metadata(table)["study_card"]))


def largest_card(records: Sequence[RunRecord]) -> StudyCard | None:
    """Return the card of most trials, seeds and cells among those of the runs, for results without a card beside them.

    None if no run has a card.
    """
    cards = {record.card for record in records if record.card is not None}
    return max(cards, key=lambda card: (card.trials or 0, card.seeds, len(card.cells), repr(card)), default=None)


def _sealed(table: pa.Table, metadata: Mapping[str, str]) -> pa.Table:
    """Return the table with its metadata, to which the digest is added."""
    return table.replace_schema_metadata({**metadata, "digest": _digest(table, metadata)})


def _digest(table: pa.Table, metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of all metadata and rows, since Parquet's own checksums leave the metadata out.

    It is that of the text `json.dumps([sorted(metadata.items()), rows], default=str)`. That text is made column by
    column, where each different value is turned into text once.
    """
    digest = hashlib.sha256(f"[{json.dumps(sorted(metadata.items()))}, [".encode())
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        columns = [_as_json(column) for column in table.slice(start, _ROWS_AT_ONCE).itercolumns()]
        rows = ", ".join(f"[{', '.join(row)}]" for row in zip(*columns, strict=True))
        digest.update(f"{', ' if start else ''}{rows}".encode())
    digest.update(b"]]")
    return digest.hexdigest()


def _as_json(column: pa.ChunkedArray) -> list[str]:
    """Return the values of a column as JSON."""
    if pa.types.is_floating(column.type):  # a dictionary may merge 0 and −0
        return [json.dumps(value) for value in column.to_pylist()]
    values, indices = _encoded(column)
    texts = [json.dumps(value, default=str) for value in values]
    return [texts[index] for index in indices]


def _encoded(column: pa.ChunkedArray) -> tuple[list[Any], list[int]]:
    """Return the different values of a column, None as the last, and for each row the index of its value."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    return [*values, None], encoded.indices.fill_null(len(values)).to_pylist()


def from_table(table: pa.Table) -> list[RunRecord]:
    """Return the runs that a table was made of by `to_table`.

    Raises UnreadableSchemaError for a version that this code does not know, and DigestError where rows or metadata were
    changed.
    """
    metadata = _checked_metadata(table)
    card, environment = _card(json.loads(metadata["study_card"])), Environment(**json.loads(metadata["environment"]))
    spec, runs = json.loads(metadata["spec"]), json.loads(metadata["runs"])
    first, measured = _by_run(table)
    if first.keys() != runs.keys():
        raise DigestError("its rows are not those of its runs")
    return [
        RunRecord(
            **{name: first[run_id][name] for name in _RUN_COLUMNS},
            cell=CellKey(*(first[run_id][name] for name in _CELL_COLUMNS)),
            measurements=tuple(measured[run_id]),
            environment=environment,
            card=card,
            spec=spec,
            **facts,
        )
        for run_id, facts in runs.items()
    ]


def _checked_metadata(table: pa.Table) -> dict[str, str]:
    """Return the metadata without the digest; raises errors as `from_table` does."""
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    version = metadata.get("schema_version", "none")
    if version not in _READABLE_VERSIONS:
        readable = f"{', '.join(_READABLE_VERSIONS[:-1])} and {_READABLE_VERSIONS[-1]}"
        raise UnreadableSchemaError(f"schema version {version}; this trans4init reads versions {readable}")
    if metadata.pop("digest") != _digest(table, metadata):
        raise DigestError("the content does not match its digest")
    return metadata


def _by_run(table: pa.Table) -> tuple[dict[str, dict[str, Any]], dict[str, list[Measurement]]]:
    """Return the first row of every run, and its measurements, both by its id."""
    ids, id_indices = _encoded(table["run_id"])
    encoded = [_encoded(table[name]) for name in ("metric", "unit", "higher_is_better")]
    metrics: dict[tuple[int, ...], Metric] = {}
    first_rows: dict[int, int] = {}
    measurements: list[list[Measurement]] = [[] for _ in ids]
    columns: list[list[Any]] = [table[name].to_pylist() for name in ("value", "step")]
    columns[:0] = [id_indices, *(indices for _, indices in encoded)]
    for row, (run, *metric_indices, value, step) in enumerate(zip(*columns, strict=True)):
        first_rows.setdefault(run, row)
        key = tuple(metric_indices)
        if key not in metrics:
            metrics[key] = Metric(*(values[index] for (values, _), index in zip(encoded, key, strict=True)))
        measurements[run].append(Measurement(metrics[key], value, step))
    rows = table.take(list(first_rows.values())).to_pylist()
    return {row["run_id"]: row for row in rows}, {ids[run]: measurements[run] for run in first_rows}


def _card_as_json(card: StudyCard | None) -> str:
    return json.dumps(dataclasses.asdict(card) if card else None)


def _card(fields: dict[str, Any] | None) -> StudyCard | None:
    if fields is None:
        return None
    fields["reference"] = CellKey(**fields["reference"])
    fields["cells"] = tuple(CellKey(**cell) for cell in fields["cells"])
    fields["arms"] = tuple(ArmDescription(**arm) for arm in fields.get("arms", ()))
    fields["throughput_runs"] = tuple(fields.get("throughput_runs", ()))
    return StudyCard(**fields)
