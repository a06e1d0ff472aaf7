"""`trans4init pack`: write a study's results into one file, for another machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

__all__ = ["Pack"]


@dataclass(frozen=True)
class Pack:
    """Write the results of a study, or of benchmarks, into one file; `trans4init sync FILE` takes it elsewhere."""

    folder: Positional[Path]
    """The folder of the study, such as runs/positional-text, or of benchmarks, runs/bench."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: DIR.zip)")] = None
    """The file to write."""

    def run(self, command: str) -> int:
        """Write the file, and print what is in it."""
        from trans4init.ablations.errors import FaultError, InputError, shown
        from trans4init.reports.records.packed import SUFFIX, pack
        from trans4init.reports.records.store import load_results
        from trans4init.reports.records.tables import UnreadableSchemaError

        try:
            results = load_results(self.folder / "results")
        except UnreadableSchemaError as error:
            raise InputError(str(error)) from None
        if not results.records:
            raise InputError(f"{self.folder} has no results: there is no readable {self.folder / 'results'}/*.parquet.")
        folder = self.folder.resolve()
        path = self.out or folder.with_name(folder.name + SUFFIX)
        try:
            pack(folder, results, path)
        except OSError as error:
            raise FaultError(f"{shown(path)} can't be written: {error.strerror}.") from error
        for damaged in results.corrupt:
            print(f"{damaged.name} is damaged and left out.")
        runs = f"{len(results.records)} runs of {results.records[0].study}"
        print(f"{runs} are in {shown(path)} ({path.stat().st_size / 1e6:.1f} MB); trans4init sync takes them elsewhere")
        return 0
