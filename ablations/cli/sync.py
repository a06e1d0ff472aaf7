"""`trans4init sync`: bring MLflow up to date with a study's Parquet files, or with a packed file of another machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from trans4init.reports.records.schema import RunRecord
    from trans4init.reports.records.store import Results

__all__ = ["Sync"]


@dataclass(frozen=True)
class Sync:
    """Write to MLflow what it lacks of a study, or of benchmarks, from their Parquet files."""

    source: Annotated[Positional[Path], arg(metavar="DIR|FILE")]
    """The folder of a study, such as runs/positional-text, or of benchmarks, runs/bench; or a file of `pack`.

    Such a file is unpacked first: what runs/STUDY lacks of it is added there.
    """

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
            folder = self._unpacked() if self.source.is_file() else self.source
            results = load_results(folder / "results")
        except UnreadableSchemaError as error:
            raise InputError(str(error)) from None
        records = results.records
        if not records:
            raise InputError(f"{folder} has no results: there is no readable {folder / 'results'}/*.parquet.")
        try:
            if records[0].study == STUDY:
                new, mended = mirror_speeds(folder.resolve().parent, records)
                written = f"all suites of {folder}, {new} of them new,"
            else:
                mended = sync(folder, results, study_text(summaries(results), results.cards))
                written = f"{len(records)} runs of {records[0].study}"
        except MirrorError as error:
            raise FaultError(f"can't write to MLflow: {error}") from error
        for sentence in mended:
            print(f"In MLflow, {sentence}.")
        print(f"{written} are in {tracking_uri(folder.resolve().parent)}")
        return 0

    def _unpacked(self) -> Path:
        """Add what a packed file holds to the folder of its study, write the report anew, and return the folder."""
        import shutil
        import tempfile

        from trans4init.ablations.errors import FaultError, InputError, shown
        from trans4init.ablations.lock import held
        from trans4init.ablations.study.spec import checked_name
        from trans4init.reports.records.packed import UnreadablePackError, unpacked

        try:
            Path("runs").mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir="runs", prefix=".unpacked-") as room:
                results = unpacked(self.source, Path(room))
                name = results.records[0].study
                folder = Path("runs") / checked_name(name)
                with held(folder):
                    new = _add(results, folder)
                    for kept in (Path(room) / "slots").glob("*"):
                        (folder / "slots").mkdir(exist_ok=True)
                        if not (folder / "slots" / kept.name).exists():
                            shutil.move(kept, folder / "slots" / kept.name)
        except (UnreadablePackError, ValueError) as error:
            raise InputError(f"{shown(self.source)} can't be unpacked: {error}.") from None
        except OSError as error:
            raise FaultError(f"{shown(self.source)} can't be unpacked: {error.strerror}.") from error
        print(f"{len(new)} of {len(results.records)} runs in {shown(self.source)} are new in {folder}")
        return folder


def _add(results: "Results", folder: Path) -> "list[RunRecord]":
    """Add the runs that a folder lacks, with their card, and write its report anew; return them.

    Raises ValueError for results of a study of the same name under other conditions.
    """
    from trans4init.reports.records.store import bundle, load_results, write_cards
    from trans4init.reports.speed.speeds import STUDY
    from trans4init.reports.study_report.report import write_report

    before = load_results(folder / "results")
    known = {record.run_id for record in before.records}
    hashes = {record.spec_hash for record in before.records}
    is_study = results.records[0].study != STUDY
    if is_study and hashes and hashes.isdisjoint({record.spec_hash for record in results.records}):
        raise ValueError(f"{folder} holds runs of another study of that name; rename the folder")
    new = [record for record in results.records if record.run_id not in known]
    if new:
        (folder / "results").mkdir(exist_ok=True)
        bundle(new, folder / "results")
        if results.cards:
            write_cards(results.cards, folder / "results")
        if is_study:
            write_report(folder)
    return new
