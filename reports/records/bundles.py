"""Read bundles of runs quickly: their name is the hash of their content, and what a run measured is decoded when asked.

A bundle's table has each run's rows together, in the order of its runs.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa

from trans4init.reports.records.schema import Measurement, Metric, RunRecord

__all__ = [
    "INDEX",
    "StoredMeasurements",
    "bundle_name",
    "index_of",
    "is_what_it_is_named",
    "measurements_of",
    "moment",
    "rows_at",
]

_KINDS: dict[pa.DataType, type] = {pa.int32(): np.int32, pa.int64(): np.int64, pa.float64(): np.float64}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INDEX = "bundle"
"""The key of a bundle's index in its metadata: each run's number of rows and its digest, in order."""
_PREFIX, _SUFFIX = "bundle-", ".parquet"


def bundle_name(content: bytes | memoryview) -> str:
    """Return the name of a bundle's file with this content."""
    return f"{_PREFIX}{hashlib.sha256(content).hexdigest()}{_SUFFIX}"


def is_what_it_is_named(name: str, content: bytes) -> bool:
    """Return whether a file is a bundle whose content is, bit for bit, what its name says."""
    return name.startswith(_PREFIX) and name == bundle_name(content)


def index_of(records: Sequence[RunRecord]) -> str:
    """Return a bundle's index."""
    return json.dumps([[len(record.measurements), record.digest()] for record in records])


@dataclass(frozen=True)
class _Columns:
    """Holds the columns of a bundle that measurements are made of, decoded when the first is asked for."""

    table: pa.Table

    @cached_property
    def metrics(self) -> list[Metric]:
        """The metric of each row."""
        names, units = (_decoded(self.table[name]) for name in ("metric", "unit"))
        better = _decoded(self.table["higher_is_better"].dictionary_encode())
        found: dict[tuple[Any, ...], Metric] = {}
        rows = zip(names, units, better, strict=True)
        return [found[row] if row in found else found.setdefault(row, Metric(*row)) for row in rows]

    @cached_property
    def values(self) -> list[float | None]:
        """The value of each row."""
        return _numbers(self.table["value"])

    @cached_property
    def steps(self) -> list[int]:
        """The step of each row."""
        return _numbers(self.table["step"])


def _decoded(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a dictionary-encoded column; Arrow itself takes many times as long."""
    array = column.combine_chunks()
    different = [*array.dictionary.to_pylist(), None]
    return [different[-1 if index is None else index] for index in _plain(array.indices)]


def _numbers(column: pa.ChunkedArray) -> list[Any]:
    return _plain(column.combine_chunks())


def _plain(array: pa.Array) -> list[Any]:
    """Return the values of an array of numbers. (Arrow's `to_numpy` would import pandas.)"""
    kind = _KINDS.get(array.type)
    if array.null_count or kind is None:
        return list(array.to_pylist())
    first = array.offset
    return list(np.frombuffer(array.buffers()[1], kind)[first : first + len(array)].tolist())


def rows_at(table: pa.Table, columns: Sequence[str], places: Sequence[int]) -> list[dict[str, Any]]:
    """Return some columns of the rows at some places."""
    by_column = [_at(table[name].combine_chunks(), places) for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*by_column, strict=True)]


def moment(microseconds: int) -> datetime:
    """Return the moment so long after the beginning of 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _at(array: pa.Array, places: Sequence[int]) -> list[Any]:
    """Return a column's values at some places.

    Arrow's `take`, and its moments, would import pandas, which takes longer than all else here.
    """
    if pa.types.is_timestamp(array.type):
        microseconds = array.view(pa.int64())
        return [moment(microseconds[place].as_py()) for place in places]
    if not pa.types.is_dictionary(array.type):
        return [array[place].as_py() for place in places]
    different, indices = array.dictionary.to_pylist(), array.indices
    return [different[indices[place].as_py()] for place in places]


class StoredMeasurements(Sequence[Measurement]):
    """Is what one run of a bundle measured: as a tuple of measurements, made when it is looked at."""

    def __init__(self, columns: _Columns, first: int, count: int) -> None:
        self._columns, self._first, self._count = columns, first, count

    @cached_property
    def _made(self) -> tuple[Measurement, ...]:
        rows = slice(self._first, self._first + self._count)
        of = self._columns
        return tuple(map(Measurement, of.metrics[rows], of.values[rows], of.steps[rows]))

    def named(self, metric: str) -> list[Measurement]:
        """Return those of one metric; the others aren't made."""
        of = self._columns
        rows = range(self._first, self._first + self._count)
        return [
            Measurement(of.metrics[row], of.values[row], of.steps[row])
            for row in rows
            if of.metrics[row].name == metric
        ]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self._made)

    @overload
    def __getitem__(self, place: int) -> Measurement: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Measurement, ...]: ...
    def __getitem__(self, place: int | slice) -> Measurement | tuple[Measurement, ...]:
        return self._made[place]

    def __eq__(self, other: object) -> bool:
        return self._made == (other._made if isinstance(other, StoredMeasurements) else other)

    def __hash__(self) -> int:
        return hash(self._made)

    def __repr__(self) -> str:
        return repr(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._made,)


def measurements_of(table: pa.Table, counts: Sequence[int]) -> list[StoredMeasurements]:
    """Return the measurements of each run of a bundle's table, in which it has so many rows."""
    columns = _Columns(table)
    firsts = itertools.accumulate(counts, initial=0)
    return [StoredMeasurements(columns, first, count) for first, count in zip(firsts, counts, strict=False)]
