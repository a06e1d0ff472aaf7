"""Keep the files of a study's results few: finished runs are written together, many to a file, as they become many."""

from collections.abc import Iterable
from pathlib import Path

from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.store import bundle, can_be_bundled

__all__ = ["Bundles"]

_FULL, _AT_END = 512, 64
"""How many runs with a file of their own are written together, while a study runs and at its end. Opening a file takes
as long as reading 50 runs in it."""


class Bundles:
    """Knows which runs in a folder have files of their own."""

    def __init__(self, folder: Path, records: Iterable[RunRecord]) -> None:
        """records: all that are in the folder."""
        self._folder = folder
        names = {path.stem for path in folder.glob("*.parquet")}
        self._single = [record for record in records if record.run_id in names and can_be_bundled(record)]

    def add(self, record: RunRecord) -> None:
        """Note that a run has got a file of its own; raises OSError if they are to be bundled and the disk refuses."""
        if can_be_bundled(record):
            self._single.append(record)
        if len(self._single) >= _FULL:
            self._bundle()

    def finish(self) -> None:
        """Bundle what is left if it is worth a file; raises OSError if the disk refuses."""
        if len(self._single) >= _AT_END:
            self._bundle()

    def _bundle(self) -> None:
        bundle(self._single, self._folder)
        self._single.clear()
