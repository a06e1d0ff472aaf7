"""Store records: one immutable Parquet file per run, written whole or not at all, read with its checksums."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from trans4init.reports.files import write_whole
from trans4init.reports.records.schema import RunRecord, StudyCard, largest_card
from trans4init.reports.records.tables import UnreadableSchemaError, card_from_table, card_table, from_table, to_table

__all__ = [
    "CorruptResultError",
    "Results",
    "load_results",
    "path_of",
    "read_runs",
    "write_bundle",
    "write_card",
    "write_run",
    "write_together",
]

T = TypeVar("T")
_CARD_NAME = "study.parquet"
"""The file beside the runs that holds the study's card, and no rows."""
CORRUPT_SUFFIX = ".corrupt"
"""`load_results` appends it to the name of a file that can't be read; such files are kept and never read again."""


class CorruptResultError(Exception):
    """A results file is torn, or its content does not match its checksums."""


@dataclass(frozen=True)
class Results:
    """Holds the runs of a results folder, and the unreadable files set aside whose runs were not repeated since."""

    records: tuple[RunRecord, ...]
    corrupt: tuple[Path, ...] = ()
    stored_card: StudyCard | None = None
    """The card beside the runs; None for results that have none, such as single fits."""

    @property
    def card(self) -> StudyCard | None:
        """The study's card, which says what its verdict is about: the stored one, else the runs' largest."""
        return self.stored_card or largest_card(self.records)


def path_of(folder: Path, run_id: str) -> Path:
    """Return the path of a run's file, which need not exist yet."""
    return folder / f"{run_id}.parquet"


def write_run(record: RunRecord, folder: Path) -> Path:
    """Write a run's file in one step, and return its path: after a crash it is whole, or not there.

    Raises OSError where the disk refuses, and leaves nothing behind.
    """
    return write_together([record], path_of(folder, record.run_id))


def write_card(card: StudyCard, folder: Path) -> Path:
    """Write the study's card beside its runs, as safely as `write_run`; return its path."""
    return _write_table(card_table(card), folder / _CARD_NAME)


def write_bundle(records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Write many runs into few files for publication: one for each environment, study card and spec; their paths."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(f"{record.environment}{record.card}{record.spec}", []).append(record)
    return [write_together(group, folder / f"runs-{number}.parquet") for number, group in enumerate(groups.values())]


def write_together(records: Sequence[RunRecord], path: Path) -> Path:
    """Write runs that share environment, study card and spec into one file, as safely as `write_run`; its path."""
    return _write_table(to_table(records), path)


def _write_table(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return write_whole(path, sink.getbuffer())


def read_runs(path: Path) -> list[RunRecord]:
    """Return the runs in a file.

    Raises CorruptResultError where the file is torn or fails its checksums, UnreadableSchemaError where it is whole
    but of another schema version, OSError where the system refuses to read it.
    """
    return _read(path, from_table)


def _read(path: Path, convert: Callable[[pa.Table], T]) -> T:
    """Return what `convert` makes of a file's table; raises errors as `read_runs` does."""
    content = path.read_bytes()  # Parquet is given no name, so that no name is taken for damage: it takes UTF-8 alone
    try:
        return convert(pq.read_table(pa.BufferReader(content), page_checksum_verification=True, partitioning=None))
    except UnreadableSchemaError as error:
        raise UnreadableSchemaError(f"{path}: {error}") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptResultError(f"{path}: {error}") from error


def load_results(folder: Path) -> Results:
    """Return every run in a folder. A file that is torn or fails its checksums is renamed to `*.corrupt` and listed.

    Raises UnreadableSchemaError where a file was written by another version of the schema.
    """
    records: list[RunRecord] = []
    card: StudyCard | None = None
    for path in sorted(path for path in folder.glob("*.parquet") if path.is_file()):
        try:
            if path.name == _CARD_NAME:
                card = _read(path, card_from_table)
            else:
                records += read_runs(path)
        except CorruptResultError:
            with contextlib.suppress(FileNotFoundError):  # another process has set it aside meanwhile
                path.replace(path.with_name(path.name + CORRUPT_SUFFIX))
        except FileNotFoundError:
            continue  # another process has set it aside, to run it again
    corrupt = sorted(folder.glob(f"*{CORRUPT_SUFFIX}"))
    return Results(tuple(records), tuple(path for path in corrupt if not path.with_suffix("").exists()), card)
