"""`trans4init sync`: bring MLflow up to date with a study's Parquet files."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

__all__ = ["Sync"]


@dataclass(frozen=True)
class Sync:
    """Write to MLflow what it lacks of a study, or of benchmarks, from their Parquet files."""

    folder: Positional[Path]
    """The folder of the study, such as runs/positional-text, or of benchmarks, runs/bench."""

    def run(self, command: str) -> int:
        """Write what MLflow doesn't have yet, and print where it is."""
        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.reports.mirror.runs import sync
        from trans4init.reports.mirror.speeds import mirror_speeds
        from trans4init.reports.mirror.store import MirrorError, tracking_uri
        from trans4init.reports.records.store import load_results
        from trans4init.reports.records.tables import UnreadableSchemaError
        from trans4init.reports.speed.speeds import STUDY
        from trans4init.reports.study_report.blocks import study_text, summaries

        try:
            results = load_results(self.folder / "results")
        except UnreadableSchemaError as error:
            raise InputError(str(error)) from None
        records = results.records
        if not records:
            raise InputError(f"{self.folder} has no results: there is no readable {self.folder / 'results'}/*.parquet.")
        try:
            if records[0].study == STUDY:
                new, mended = mirror_speeds(self.folder.resolve().parent, records)
                written = f"all suites of {self.folder}, {new} of them new,"
            else:
                mended = sync(self.folder, results, study_text(summaries(results), results.cards))
                written = f"{len(records)} runs of {records[0].study}"
        except MirrorError as error:
            raise FaultError(f"can't write to MLflow: {error}") from error
        for sentence in mended:
            print(f"In MLflow, {sentence}.")
        print(f"{written} are in {tracking_uri(self.folder.resolve().parent)}")
        return 0
