"""Tables of the user's: rows of named columns from a .csv or .tsv file, read exactly or refused. Imports no torch.

A table can often be read in two ways: a quote may enclose a field, or be part of its text. What both readings agree on
is read; where they differ, the sentence asks which is meant.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trans4init.ablations.errors import InputError, shown, unknown_name
from trans4init.ablations.user_files import check_file

__all__ = ["DELIMITERS", "LARGEST_TABLE", "Table", "read_table"]

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}
"""The delimiters by the names that they may be given by, in the order in which they are tried."""

LARGEST_TABLE = 2**30
"""The most bytes of a file that is read as a table."""


@dataclass(frozen=True)
class Table:
    """Holds the rows of some columns of a file, as text."""

    rows: list[tuple[str, ...]]
    incomplete: list[int]
    """The numbers of the rows, counted from 1 below the header, that were left out since a cell is empty."""


class _UnreadError(Exception):
    """Says why a reading of the text fails."""


def read_table(path: Path, columns: Sequence[str], delimiter: str = "auto", quote: str = "auto") -> Table:
    """Read those columns of a .csv or .tsv file.

    delimiter: a character, one of `DELIMITERS`, or "auto": a tab in a .tsv file, elsewhere the one by which the header
    has the columns. quote: the character that encloses fields, "none", or "auto". Raises InputError, in one sentence
    with the row where there is one, for what can't be read in one way only.
    """
    text, name = _text(path), shown(path)
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # as Excel marks a table
        text, delimiter = rest, first.strip()[4] if delimiter == "auto" else delimiter
    if not text.strip():
        raise InputError(f"{name} is empty: its first line must name the columns.")
    delimiter = _delimiter(path, text, columns, delimiter)
    readings: list[list[list[str]]] = []
    odd: dict[str, str] = {}
    for mark, how in (('"', "with quotes"), ("none", "without")) if quote == "auto" else ((quote, ""),):
        try:
            readings.append(_fields(text, delimiter, mark))
        except _UnreadError as error:
            odd.setdefault(str(error), how)
    if not readings:
        reasons = [f"{how}, {reason}" if len(odd) > 1 else reason for reason, how in odd.items()]
        advice = "; enclose fields that hold the delimiter in quotes, or give --delimiter or --quote."
        raise InputError(f"{name} can't be read as a table: {'; '.join(reasons)}{advice}")
    if len({len(reading) for reading in readings}) > 1:
        counts = " or ".join(str(len(reading) - 1) for reading in readings)
        raise InputError(
            f"{name} has {counts} rows, as its quotes enclose fields or are part of them: give --quote '\"' or none."
        )
    header, *rows = readings[0]
    names = [column.strip() for column in header]
    for column in columns:
        if column not in names:
            raise InputError(f"{name}: {unknown_name('column', column, names)}")
        if names.count(column) > 1:
            raise InputError(f"{name} has {names.count(column)} columns called {column!r}.")
    places = [names.index(column) for column in columns]
    cells = [tuple(row[place].strip() for place in places) for row in rows]
    return Table(
        [row for row in cells if all(row)], [number for number, row in enumerate(cells, start=1) if not all(row)]
    )


def _text(path: Path) -> str:
    """Read a file as UTF-8, without the mark that spreadsheets put before it, its lines ended by newlines."""
    try:
        check_file(path, LARGEST_TABLE)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{shown(path)} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)} is not UTF-8 (byte {error.start}).") from None


def _delimiter(path: Path, text: str, columns: Sequence[str], wanted: str) -> str:
    """Return the character between fields."""
    if wanted != "auto":
        character = DELIMITERS.get(wanted, wanted.replace("\\t", "\t"))
        if len(character) != 1 or character in '"\r\n':
            raise InputError(f"--delimiter is one character or {', '.join(DELIMITERS)}, not {wanted!r}.")
        return character
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = next(line for line in text.splitlines() if line.strip())
    for character in DELIMITERS.values():
        names = [name.strip().strip('"') for name in header.split(character)]
        if all(column in names for column in columns):
            return character
    return max(DELIMITERS.values(), key=header.count)


def _fields(text: str, delimiter: str, quote: str) -> list[list[str]]:
    """Return the fields of the header and of each row that isn't blank; raises _UnreadError with what is odd."""
    if quote != "none" and (len(quote) != 1 or quote in "\r\n" or quote == delimiter):
        raise InputError(f"--quote is one character other than the delimiter, or none, not {quote!r}.")
    limit = csv.field_size_limit(len(text) + 1)
    lines = io.StringIO(text, newline="")
    if quote == "none":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if rows and len(row) != len(rows[0]):
                raise _UnreadError(
                    f"row {len(rows)} (it ends on line {reader.line_num}) has {_count(len(row), 'field')} "
                    f"where the header has {len(rows[0])}"
                )
            rows.append(row)
    except csv.Error as error:
        raise _UnreadError(f"row {len(rows)} (at line {reader.line_num}): {error}") from None
    finally:
        csv.field_size_limit(limit)
    return rows


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
