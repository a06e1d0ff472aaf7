"""What one run leaves behind: a typed record; as an Arrow table, tidy rows with the rest in the metadata."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

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
    "from_table",
    "to_table",
]

SCHEMA_VERSION = 2
"""Raised when a reader of the old rows would misread the new ones."""

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
"""One row per measured value (DESIGN: tidy rows). `value` is null where a run failed before there was one."""


class UnreadableSchemaError(ValueError):
    """A results file of a schema version that this code does not know."""


class DigestError(ValueError):
    """A results file whose rows or metadata are not those that were written."""


@dataclass(frozen=True)
class Metric:
    """A named quantity. `higher_is_better` is None for a quantity that is only described, never judged."""

    name: str
    unit: str
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Measurement:
    """One value of one metric at one training step. A value that is not finite counts as missing: None."""

    metric: Metric
    value: float | None
    step: int = 0

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


@dataclass(frozen=True, order=True)
class CellKey:
    """One function in one arm with one net (`net` is empty where the arm has none)."""

    function: str
    arm: str
    net: str = ""

    def __str__(self) -> str:
        return " · ".join(word for word in (self.arm, self.net) if word)

    def label(self, function: str) -> str:
        """The cell in a study of `function`: the other function's name is said only where it is another."""
        return str(self) if self.function == function else f"{self.function} ({self})"


@dataclass(frozen=True)
class ArmDescription:
    """How reports speak of an arm and draw it. The defaults are those of an arm that nothing is known of."""

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
    """What a report needs to know of a study beyond its rows; the same in every file of the study."""

    name: str
    question: str
    metric: str
    """The metric that the verdict is about."""
    margin: float
    """Differences smaller than this count as equivalent; in the metric's unit, stated before any run."""
    reference: CellKey
    cells: tuple[CellKey, ...]
    seeds: int
    command: str
    """The command that reproduces the study."""
    setting: str
    """Task, data, model and training in one line."""
    arms: tuple[ArmDescription, ...] = ()
    """The arms of the cells; empty in results that were written before cards had them."""

    def arm(self, name: str) -> ArmDescription:
        """Return the description of the arm called `name`: one without words or colour where the card has none."""
        return next((arm for arm in self.arms if arm.name == name), ArmDescription(name))

    def comparisons(self) -> tuple[CellKey, ...]:
        """The cells that are compared with the reference."""
        return tuple(cell for cell in self.cells if cell != self.reference)


@dataclass(frozen=True)
class RunRecord:
    """One run: who it is, what it measured, and where."""

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
    """Why the run is not `ok`; the traceback where there is one."""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"phase {self.phase!r} is not one of {', '.join(PHASES)}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if not self.measurements:
            raise ValueError(f"run {self.run_id} has no measurement: a run that failed records its metric as missing")

    def last(self, metric: str) -> float | None:
        """The value of `metric` at its last step: None where that is missing, as in a run that diverged."""
        found = [m for m in self.measurements if m.metric.name == metric]
        return max(found, key=lambda m: m.step).value if found else None

    def by_step(self, metric: str) -> dict[int, float]:
        """Return the values of `metric` by step (of a speed, by round), without those that are missing."""
        return {m.step: m.value for m in self.measurements if m.metric.name == metric and m.value is not None}


_OF_THE_RUN = (
    "run_id", "study", "spec_hash", "task", "model", "trial", "seed", "phase", "status", "device", "created_at"
)  # fmt: skip
_OF_THE_CELL = ("function", "arm", "net")
_ROWS_AT_ONCE = 100_000
"""Of a digest, whose text is several times as large as the table."""


def to_table(records: Sequence[RunRecord]) -> pa.Table:
    """The rows of runs that share study and environment; what is not a column is in the schema's metadata."""
    first = records[0]
    if any(r.environment != first.environment or r.card != first.card or r.spec != first.spec for r in records):
        raise ValueError("runs of one table must share environment, study card and spec")
    rows = [(record, measurement) for record in records for measurement in record.measurements]
    columns: dict[str, list[Any]] = {name: [getattr(run, name) for run, _ in rows] for name in _OF_THE_RUN}
    columns |= {name: [getattr(run.cell, name) for run, _ in rows] for name in _OF_THE_CELL}
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
        "study_card": json.dumps(dataclasses.asdict(first.card) if first.card else None),
        "spec": json.dumps(first.spec),
        "runs": json.dumps(
            {r.run_id: {"parameters": dict(r.parameters), "notes": dict(r.notes), "error": r.error} for r in records}
        ),
    }
    arrays = [pa.array(columns[column.name], type=column.type) for column in ROWS]
    table = pa.Table.from_arrays(arrays, schema=ROWS)
    return table.replace_schema_metadata(metadata | {"digest": _digest(table, metadata)})


def _digest(table: pa.Table, metadata: Mapping[str, str]) -> str:
    """SHA-256 of everything that is written, as JSON: Parquet's own checksums leave the metadata out.

    As of `json.dumps([sorted(metadata.items()), rows], default=str)`, column by column: values repeat.
    """
    found = hashlib.sha256(f"[{json.dumps(sorted(metadata.items()))}, [".encode())
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        columns = [_said(column) for column in table.slice(start, _ROWS_AT_ONCE).itercolumns()]
        rows = ", ".join(f"[{', '.join(row)}]" for row in zip(*columns, strict=True))
        found.update(f"{', ' if start else ''}{rows}".encode())
    found.update(b"]]")
    return found.hexdigest()


def _said(column: pa.ChunkedArray) -> list[str]:
    """A column's values as JSON."""
    if pa.types.is_floating(column.type):  # 0 and −0 may be one entry of a dictionary
        return [json.dumps(value) for value in column.to_pylist()]
    words, places = _encoded(column)
    said = [json.dumps(word, default=str) for word in words]
    return [said[place] for place in places]


def _encoded(column: pa.ChunkedArray) -> tuple[list[Any], list[int]]:
    """A column's different values, None the last, and the place of each row's among them."""
    encoded = column.combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    return [*words, None], encoded.indices.fill_null(len(words)).to_pylist()


def from_table(table: pa.Table) -> list[RunRecord]:
    """The runs that `to_table` was given.

    Raises UnreadableSchemaError for a version this code does not know, DigestError where anything was changed since.
    """
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    version = metadata.get("schema_version", "none")
    if version != str(SCHEMA_VERSION):
        raise UnreadableSchemaError(f"schema version {version}; this trans4init reads version {SCHEMA_VERSION}")
    if metadata.pop("digest") != _digest(table, metadata):
        raise DigestError("the content does not match its digest")
    card, environment = _card(json.loads(metadata["study_card"])), Environment(**json.loads(metadata["environment"]))
    spec, runs = json.loads(metadata["spec"]), json.loads(metadata["runs"])
    first, measured = _by_run(table)
    if first.keys() != runs.keys():
        raise DigestError("its rows are not those of its runs")
    return [
        RunRecord(
            **{name: first[run_id][name] for name in _OF_THE_RUN},
            cell=CellKey(*(first[run_id][name] for name in _OF_THE_CELL)),
            measurements=tuple(measured[run_id]),
            environment=environment,
            card=card,
            spec=spec,
            **facts,
        )
        for run_id, facts in runs.items()
    ]


def _by_run(table: pa.Table) -> tuple[dict[str, dict[str, Any]], dict[str, list[Measurement]]]:
    """Of every run its first row, and what was measured."""
    ids, places = _encoded(table["run_id"])
    kinds = [_encoded(table[name]) for name in ("metric", "unit", "higher_is_better")]
    metrics: dict[tuple[int, ...], Metric] = {}
    first: dict[int, int] = {}
    measured: list[list[Measurement]] = [[] for _ in ids]
    rows = zip(places, *(own for _, own in kinds), table["value"].to_pylist(), table["step"].to_pylist(), strict=True)
    for number, (place, *kind, value, step) in enumerate(rows):
        first.setdefault(place, number)
        key = tuple(kind)
        if key not in metrics:
            metrics[key] = Metric(*(words[at] for (words, _), at in zip(kinds, kind, strict=True)))
        measured[place].append(Measurement(metrics[key], value, step))
    whole = table.take(list(first.values())).to_pylist()
    return {row["run_id"]: row for row in whole}, {ids[place]: measured[place] for place in first}


def _card(fields: dict[str, Any] | None) -> StudyCard | None:
    if fields is None:
        return None
    fields["reference"] = CellKey(**fields["reference"])
    fields["cells"] = tuple(CellKey(**cell) for cell in fields["cells"])
    fields["arms"] = tuple(ArmDescription(**arm) for arm in fields.get("arms", ()))
    return StudyCard(**fields)
