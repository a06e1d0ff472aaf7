"""`trans4init report`: render a study's report from its Parquet files. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from trans4init.reports.records.store import Results

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Render report.html, report.md and report.svg from a study's Parquet files, or bench.html from benchmarks."""

    folder: Positional[Path]
    """The folder of the study, such as runs/positional-text, or of benchmarks, runs/bench."""
    publish: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: nowhere)")] = None
    """Also write the results, bundled into few files, and their report to this folder."""

    def run(self, command: str) -> int:
        """Render the report, and print the verdict and the paths."""
        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.reports.records.store import load_results, write_bundle, write_cards
        from trans4init.reports.records.tables import UnreadableSchemaError
        from trans4init.reports.speed.speeds import STUDY
        from trans4init.reports.study_report.report import NoResultsError, write_report

        try:
            results = load_results(self.folder / "results")
            if results.records and results.records[0].study == STUDY:
                return self._benchmarks(results)
            report = write_report(self.folder, results)
            if self.publish is not None:
                write_bundle(report.results.records, self.publish / "results")
                if report.results.cards:
                    write_cards(report.results.cards, self.publish / "results")
                report = write_report(self.publish, kept_in=self.folder)
        except (NoResultsError, UnreadableSchemaError) as error:
            raise InputError(str(error)) from None
        except OSError as error:
            raise FaultError(f"the report can't be written: {error.filename}: {error.strerror}.") from error
        if lines := report.text.lines():
            print(*lines, "", sep="\n")
        for path in report.files():
            print(path)
        return 0

    def _benchmarks(self, results: "Results") -> int:
        """Render the benchmarks' page, in the folder that is published to if there is one.

        Raises InputError, and publishes nothing, if too many rounds of a suite were contended.
        """
        from trans4init.ablations.errors import InputError
        from trans4init.reports.machine import MOST_CONTENDED
        from trans4init.reports.records.store import load_results, write_bundle
        from trans4init.reports.speed.page import write_speed_page
        from trans4init.reports.speed.speeds import speeds

        if self.publish is None:
            print(write_speed_page(self.folder, results))
            return 0
        # Suites that were measured again replace the published ones; other suites and devices stay.
        for suite in speeds(results.records):
            if (contention := suite.contention()).too_many():
                raise InputError(
                    f"nothing is published: suite {suite.suite} has {contention}, and a published one may have "
                    f"{MOST_CONTENDED:.0%}; measure it again when nothing else runs: trans4init bench --suite "
                    f"{suite.suite}"
                )
        folder = self.publish / "results"
        newest = speeds([*load_results(folder).records, *results.records])
        written = write_bundle([record for suite in newest for record in suite.records], folder)
        for path in set(folder.glob("*.parquet")) - set(written):
            path.unlink()
        for suite in newest:
            contention = suite.contention()
            again = f"; to be measured again: {contention}" if contention.too_many() else ""
            print(f"{suite.suite} on {suite.machine}: {len(suite.cases)} cases{again}")
        print(write_speed_page(self.publish, load_results(folder)))
        return 0
