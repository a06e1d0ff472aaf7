"""Say what a reader of a study's numbers should know of how its runs were made."""

from collections.abc import Sequence

from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.vocabulary import ANEW_NOTE

__all__ = ["remarks"]


def remarks(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return a sentence for each thing that isn't as usual; none for runs of one machine that all went through."""
    notes = []
    hashes = {record.spec_hash for record in records}
    if len(hashes) > 1:
        notes.append(f"The results are of {len(hashes)} different conditions ({', '.join(sorted(hashes))}).")
    if len({record.environment.fingerprint() for record in records}) > 1:
        notes.append("Not all runs were made in the same environment; see below.")
    anew = {record.run_id: record.notes[ANEW_NOTE] for record in records if ANEW_NOTE in record.notes}
    if anew:
        run_id, why = next(iter(anew.items()))
        runs = f"{len(anew)} runs were" if len(anew) > 1 else "1 run was"
        notes.append(f"{runs} begun anew, {'such as ' if len(anew) > 1 else ''}{run_id}: {why}")
    unkept = {record.run_id: record.notes["slots"] for record in records if "slots" in record.notes}
    if unkept:
        run_id, why = next(iter(unkept.items()))
        notes.append(f"The slots of {len(unkept)} runs aren't drawn: that of {run_id} was {why}.")
    return tuple(notes)
