"""`trans4init report`: render a study's report from its Parquet files. Works without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Render report.html, report.md and report.svg from the Parquet files of a study."""

    folder: Positional[Path]
    """The study's folder, such as runs/positional-text."""
    publish: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: nowhere)")] = None
    """Also copy the results, bundled into few files, and their report into this folder."""

    def run(self, command: str) -> int:
        """Render, and say where."""
        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.reports.pages import verdict_in
        from trans4init.reports.report import NoResultsError, write_report
        from trans4init.reports.schema import UnreadableSchemaError
        from trans4init.reports.store import write_bundle

        try:
            report = write_report(self.folder)
            if self.publish is not None:
                write_bundle(report.results.records, self.publish / "results")
                report = write_report(self.publish)
        except (NoResultsError, UnreadableSchemaError) as error:
            raise InputError(str(error)) from None
        except OSError as error:
            raise FaultError(f"the report can't be written: {error.filename}: {error.strerror}.") from error
        if verdict := verdict_in(report.markdown.parent):
            print(f"{verdict}\n")
        for path in report.files():
            print(path)
        return 0
