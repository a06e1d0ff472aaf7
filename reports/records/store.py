"""Store records: one immutable Parquet file per run, written whole or not at all, read with its checksums."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from trans4init.reports.files import write_whole
from trans4init.reports.records.bundles import bundle_name, is_what_it_is_named
from trans4init.reports.records.schema import RunRecord, StudyCard, largest_card
from trans4init.reports.records.tables import UnreadableSchemaError, cards_from_table, cards_table, from_table, to_table

__all__ = [
    "CorruptResultError",
    "Results",
    "bundle",
    "can_be_bundled",
    "load_results",
    "path_of",
    "read_runs",
    "set_failures_aside",
    "write_bundle",
    "write_card",
    "write_cards",
    "write_run",
    "write_together",
]

T = TypeVar("T")
_CARD_NAME = "study.parquet"
"""The file beside the runs that holds the study's card, and no rows."""
_BUNDLE = "bundle-"
"""How the names of files begin that hold finished runs which had files of their own before."""
CORRUPT_SUFFIX = ".corrupt"
"""`load_results` appends it to the name of a file that can't be read; such files are kept and never read again."""


class CorruptResultError(Exception):
    """A results file is torn, or its content does not match its checksums."""


@dataclass(frozen=True)
class Results:
    """Holds the runs of a results folder, and the unreadable files set aside whose runs were not repeated since."""

    records: tuple[RunRecord, ...]
    corrupt: tuple[Path, ...] = ()
    stored_cards: tuple[StudyCard, ...] = ()
    """The card beside the runs, or one for each block of a grid; none for results without, such as single fits."""

    @property
    def stored_card(self) -> StudyCard | None:
        """The card beside the runs, of a grid that of its first block; None for results without one."""
        return self.stored_cards[0] if self.stored_cards else None

    @property
    def card(self) -> StudyCard | None:
        """The study's card, which says what its verdict is about: the stored one, else the runs' largest.

        Of a grid it is that of the first block; `cards` has all.
        """
        return self.cards[0] if self.cards else None

    @cached_property
    def cards(self) -> tuple[StudyCard, ...]:
        """The card of each block of the study, one for a study that isn't a grid; none for single fits."""
        if self.stored_cards:
            return self.stored_cards
        blocks: dict[str, list[RunRecord]] = {}
        for record in self.records:
            if record.card is not None:
                blocks.setdefault(record.spec_hash if record.card.block else "", []).append(record)
        cards = map(largest_card, blocks.values())
        return tuple(card for card in cards if card is not None)


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
    return write_cards([card], folder)


def write_cards(cards: Sequence[StudyCard], folder: Path) -> Path:
    """Write the cards of a grid's blocks beside its runs, as safely as `write_run`; return their path."""
    return _write_table(cards_table(cards), folder / _CARD_NAME)


def write_bundle(records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Write many runs into few files for publication: one for each environment, study card and spec; their paths."""
    return [write_together(group, folder / f"runs-{number}.parquet") for number, group in enumerate(_groups(records))]


def _groups(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the records that can share a file, in groups."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(f"{record.environment}{record.card}{record.spec}", []).append(record)
    return list(groups.values())


def can_be_bundled(record: RunRecord) -> bool:
    """Return whether a run is finished for good: one that failed may be tried again, and speeds are measured together.

    Those keep a file of their own.
    """
    return record.phase != "throughput" and record.status not in ("failed", "oom")


def bundle(records: Sequence[RunRecord], folder: Path) -> None:
    """Write runs into few files, many to a file, and remove the files of their own when these are safe.

    A bundle is named by the hash of its content, so that it is read without being checked row by row.
    Those that can't be bundled have files of their own afterwards. Raises OSError where the disk refuses; nothing is
    lost then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for group in _groups([record for record in records if can_be_bundled(record)]):
        content = _as_parquet(to_table(group, indexed=True))
        write_whole(folder / bundle_name(content), content)
        for record in group:
            path_of(folder, record.run_id).unlink(missing_ok=True)
    for record in records:
        if not can_be_bundled(record) and not path_of(folder, record.run_id).exists():
            write_run(record, folder)


def write_together(records: Sequence[RunRecord], path: Path) -> Path:
    """Write runs that share environment, study card and spec into one file, as safely as `write_run`; its path."""
    return _write_table(to_table(records), path)


def _write_table(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, _as_parquet(table))


def _as_parquet(table: pa.Table) -> memoryview:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getbuffer()


def set_failures_aside(folder: Path) -> None:
    """Rename the results of runs that failed or ran out of memory, so that these count no more.

    Where others share their file, as in a folder that was published, those get files of their own first.
    """
    load_results(folder)  # which sets aside what is damaged
    for path in [path for path in folder.glob("*.parquet") if path.name != _CARD_NAME]:
        runs = read_runs(path)
        whole = [run for run in runs if run.status not in ("failed", "oom")]
        if len(whole) < len(runs):
            for run in whole:
                write_run(run, folder)
            path.replace(path.with_name(path.name + ".retried"))


def read_runs(path: Path) -> list[RunRecord]:
    """Return the runs in a file.

    Raises CorruptResultError where the file is torn or fails its checksums, UnreadableSchemaError where it is whole
    but of another schema version, OSError where the system refuses to read it.
    """
    return _read(path, lambda table, whole: from_table(table, whole=whole))


def _read(path: Path, convert: Callable[[pa.Table, bool], T]) -> T:
    """Return what `convert` makes of a file's table, and of whether its name says that it is what was written.

    Raises errors as `read_runs` does.
    """
    content = path.read_bytes()  # Parquet is given no name, so that no name is taken for damage: it takes UTF-8 alone
    whole = is_what_it_is_named(path.name, content)
    try:
        # No thread of Arrow's is started: a process that ends while one starts is aborted (apache/arrow#34314).
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=not whole, pre_buffer=False)
        return convert(file.read(use_threads=False), whole)
    except UnreadableSchemaError as error:
        raise UnreadableSchemaError(f"{path}: {error}") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptResultError(f"{path}: {error}") from error


def load_results(folder: Path) -> Results:
    """Return every run in a folder. A file that is torn or fails its checksums is renamed to `*.corrupt` and listed.

    Raises UnreadableSchemaError where a file was written by another version of the schema.
    """
    records: list[RunRecord] = []
    cards: tuple[StudyCard, ...] = ()
    bundled: set[str] = set()
    for path in sorted(folder.glob("*.parquet"), key=_bundles_first):
        if path.stem in bundled:  # a process was killed between writing its bundle and removing it
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        try:
            if path.name == _CARD_NAME:
                cards = _read(path, lambda table, _: cards_from_table(table))
            elif path.is_file():
                runs = read_runs(path)
                records += runs
                if path.name.startswith(_BUNDLE):
                    bundled |= {record.run_id for record in runs}
        except CorruptResultError:
            with contextlib.suppress(FileNotFoundError):  # another process has set it aside meanwhile
                path.replace(path.with_name(path.name + CORRUPT_SUFFIX))
        except FileNotFoundError:
            continue  # another process has set it aside, to run it again
    corrupt = sorted(folder.glob(f"*{CORRUPT_SUFFIX}"))
    return Results(tuple(records), tuple(path for path in corrupt if not path.with_suffix("").exists()), cards)


def _bundles_first(path: Path) -> tuple[bool, Path]:
    return not path.name.startswith(_BUNDLE), path
