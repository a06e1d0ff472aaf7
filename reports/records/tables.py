"""Turn records and cards into Arrow tables and back: tidy rows, with the rest in the schema's metadata."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from trans4init.reports.machine import Environment
from trans4init.reports.records.bundles import INDEX, index_of, measurements_of, moment, rows_at
from trans4init.reports.records.error_budget import BudgetDesign
from trans4init.reports.records.schema import (
    KNOWN_DIGEST,
    RUN_COLUMNS,
    ArmDescription,
    CellKey,
    DroppedBlock,
    Measurement,
    Metric,
    Plan,
    RunRecord,
    StudyCard,
)
from trans4init.reports.records.tuning_design import TuningDesign

__all__ = [
    "ROWS",
    "SCHEMA_VERSION",
    "DigestError",
    "UnreadableSchemaError",
    "cards_from_table",
    "cards_table",
    "from_table",
    "to_table",
]

SCHEMA_VERSION = 5
"""Written into every file but those of grids; raise it when older code would misread new files, which it then refuses.
"""
_GRID_VERSION = 6
"""Written into files of grids, whose cards say more than code that reads version 5 alone takes."""
_READABLE_VERSIONS = ("2", "3", "4", "5", "6")
"""Read by `from_table`. Study cards had no arms in version 2, no trials and ids in 3, no roles in 4, no blocks in 5."""
_OF_GRIDS = ("block", "together", "dropped")
"""Fields of cards that are left out of the files of studies that are no grid, which stay as they were."""

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


_CELL_COLUMNS = ("function", "arm", "net")
_ROWS_AT_ONCE = 100_000
"""How many rows `_digest` turns into text at a time: the text takes several times the memory of the table."""


def to_table(records: Sequence[RunRecord], *, indexed: bool = False) -> pa.Table:
    """Return runs as a table; what they share and what is not a column is in the schema's metadata.

    indexed: whether the metadata have the index of a bundle. Raises ValueError for runs that differ in environment,
    study card or spec: a table has each of these once.
    """
    first = records[0]
    if any(r.environment != first.environment or r.card != first.card or r.spec != first.spec for r in records):
        raise ValueError("runs of one table must share environment, study card and spec")
    rows = [(record, measurement) for record in records for measurement in record.measurements]
    columns: dict[str, list[Any]] = {name: [getattr(run, name) for run, _ in rows] for name in RUN_COLUMNS}
    columns |= {name: [getattr(run.cell, name) for run, _ in rows] for name in _CELL_COLUMNS}
    columns |= {
        "metric": [m.metric.name for _, m in rows],
        "unit": [m.metric.unit for _, m in rows],
        "higher_is_better": [m.metric.higher_is_better for _, m in rows],
        "value": [m.value for _, m in rows],
        "step": [m.step for _, m in rows],
    }
    metadata = {
        "schema_version": str(_version([first.card])),
        "environment": json.dumps(dataclasses.asdict(first.environment)),
        "git_commit": first.environment.git_commit,
        "study_card": json.dumps(_fields(first.card)),
        "spec": json.dumps(first.spec),
        "runs": json.dumps(
            {r.run_id: {"parameters": dict(r.parameters), "notes": dict(r.notes), "error": r.error} for r in records}
        ),
    }
    if indexed:
        metadata[INDEX] = index_of(records)
    arrays = [pa.array(columns[column.name], type=column.type) for column in ROWS]
    return _sealed(pa.Table.from_arrays(arrays, schema=ROWS), metadata)


def cards_table(cards: Sequence[StudyCard]) -> pa.Table:
    """Return a study's card, or the cards of a grid's blocks, as a table without rows."""
    fields = [_fields(card) for card in cards]
    content = json.dumps(fields[0] if len(fields) == 1 else fields)
    return _sealed(ROWS.empty_table(), {"schema_version": str(_version(cards)), "study_card": content})


def cards_from_table(table: pa.Table) -> tuple[StudyCard, ...]:
    """Return the cards that a table was made of by `cards_table`; raises errors as `from_table` does."""
    content = json.loads(_checked_metadata(table)["study_card"])
    cards = map(_card, content if isinstance(content, list) else [content])
    return tuple(card for card in cards if card is not None)


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
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())  # Arrow's moments would import pandas, which takes longer than a small file
        numbers, indices = _encoded(column)
        return [None if number is None else moment(number) for number in numbers], indices
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    last = len(values)  # `fill_null` would import it too
    return [*values, None], [last if index is None else index for index in encoded.indices.to_pylist()]


def from_table(table: pa.Table, *, whole: bool = False) -> list[RunRecord]:
    """Return the runs that a table was made of by `to_table`.

    whole: whether the table is an indexed one that is known to be what was written: then nothing is checked, and what
    runs measured is decoded when it is looked at. Raises UnreadableSchemaError for a version that this code does not
    know, and DigestError where rows or metadata were changed.
    """
    metadata = _metadata(table) if whole else _checked_metadata(table)
    card, environment = _card(json.loads(metadata["study_card"])), Environment(**json.loads(metadata["environment"]))
    spec, runs = json.loads(metadata["spec"]), json.loads(metadata["runs"])
    first: Mapping[str, dict[str, Any]]
    measured: Mapping[str, Sequence[Measurement]]
    digests: Sequence[str | None] = [None] * len(runs)
    if whole:
        counts, digests = zip(*json.loads(metadata[INDEX]), strict=True)
        first, measured = _in_bundle(table, counts)
    else:
        first, measured = _by_run(table)
    if first.keys() != runs.keys():
        raise DigestError("its rows are not those of its runs")
    records = [
        RunRecord(
            **{name: first[run_id][name] for name in RUN_COLUMNS},
            cell=CellKey(*(first[run_id][name] for name in _CELL_COLUMNS)),
            measurements=measured[run_id],
            environment=environment,
            card=card,
            spec=spec,
            **facts,
        )
        for run_id, facts in runs.items()
    ]
    for record, digest in zip(records, digests, strict=True):
        if digest is not None:
            object.__setattr__(record, KNOWN_DIGEST, digest)
    return records


def _checked_metadata(table: pa.Table) -> dict[str, str]:
    """Return the metadata without the digest; raises errors as `from_table` does."""
    metadata = _metadata(table)
    if metadata.pop("digest") != _digest(table, metadata):
        raise DigestError("the content does not match its digest")
    return metadata


def _metadata(table: pa.Table) -> dict[str, str]:
    """Return the metadata; raises UnreadableSchemaError for a version that this code does not know."""
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    version = metadata.get("schema_version", "none")
    if version not in _READABLE_VERSIONS:
        readable = f"{', '.join(_READABLE_VERSIONS[:-1])} and {_READABLE_VERSIONS[-1]}"
        raise UnreadableSchemaError(f"schema version {version}; this trans4init reads versions {readable}")
    return metadata


def _in_bundle(
    table: pa.Table, counts: Sequence[int]
) -> tuple[dict[str, dict[str, Any]], dict[str, Sequence[Measurement]]]:
    """Return the first row of every run of a bundle, which has so many rows of each, and what it measured, by id."""
    rows = rows_at(table, (*RUN_COLUMNS, *_CELL_COLUMNS), list(itertools.accumulate(counts[:-1], initial=0)))
    measured = measurements_of(table, counts)
    return {row["run_id"]: row for row in rows}, {
        row["run_id"]: of_run for row, of_run in zip(rows, measured, strict=True)
    }


def _by_run(table: pa.Table) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[Measurement, ...]]]:
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
    rows = rows_at(table, (*RUN_COLUMNS, *_CELL_COLUMNS), list(first_rows.values()))
    return {row["run_id"]: row for row in rows}, {ids[run]: tuple(measurements[run]) for run in first_rows}


def _version(cards: Sequence[StudyCard | None]) -> int:
    """Return the schema version of a file with these cards."""
    return _GRID_VERSION if any(_OF_GRIDS[0] in (_fields(card) or {}) for card in cards) else SCHEMA_VERSION


def _fields(card: StudyCard | None) -> dict[str, Any] | None:
    """Return what is written of a card."""
    if card is None:
        return None
    fields = card.as_fields()
    if not any(fields[name] for name in _OF_GRIDS):
        fields = {name: value for name, value in fields.items() if name not in _OF_GRIDS}
    return fields


def _card(fields: dict[str, Any] | None) -> StudyCard | None:
    if fields is None:
        return None
    fields["reference"] = CellKey(**fields["reference"])
    fields["cells"] = tuple(CellKey(**cell) for cell in fields["cells"])
    fields["arms"] = tuple(ArmDescription(**arm) for arm in fields.get("arms", ()))
    stated = fields.get("stated")
    if stated is not None:
        fields["stated"] = Plan(
            tuple(CellKey(**cell) for cell in stated["cells"]),
            stated["seeds"],
            tuple((name, margin) for name, margin in stated["margins"]),
            tuple(stated["looks"]),
            stated.get("trials"),
        )
    fields["margins"] = tuple((name, margin) for name, margin in fields.get("margins", ()))
    if fields.get("controls_left_out") is not None:
        fields["controls_left_out"] = tuple(fields["controls_left_out"])
    for name in ("throughput_runs", "looks"):
        fields[name] = tuple(fields.get(name, ()))
    fields["tuning"] = TuningDesign.of(fields.get("tuning", {}))
    fields["error_budget"] = BudgetDesign.of(fields.get("error_budget"))
    fields["dropped"] = tuple(DroppedBlock(**block) for block in fields.get("dropped", ()))
    if fields.get("target") is not None:
        fields["target"] = (str(fields["target"][0]), float(fields["target"][1]))
    return StudyCard(**fields)
