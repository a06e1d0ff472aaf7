"""`trans4init reproduce`: make one run of a study again, and compare."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from trans4init.ablations.study.reproduce import Reproduction

__all__ = ["Reproduce"]


@dataclass(frozen=True)
class Reproduce:
    """Make one run of a study again, from its record alone, and compare: the exit code is 1 if the numbers differ."""

    run_id: Annotated[Positional[str], arg(metavar="RUN_ID")]
    """The run's id, as in a report, in MLflow, or as its file in runs/STUDY/results is called."""
    study: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: all in runs)")] = None
    """The folder of the study that the run belongs to."""
    data: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: the study's)")] = None
    """The user's file that the run was made with, of which the record has the name alone."""

    allow_code: bool = False
    """Run code that the record names (FILE.py:NAME)."""

    def run(self, command: str) -> int:
        """Run it, and print what differs."""
        from tempfile import TemporaryDirectory

        from trans4init.ablations.code_policy import code_policy
        from trans4init.ablations.study.reproduce import find_run, made_again

        folders = [self.study] if self.study else sorted(path.parent for path in Path("runs").glob("*/results"))
        record = find_run(self.run_id, folders)
        cell = record.cell.label(record.card.reference.function if record.card else record.cell.function)
        print(f"{record.phase} {cell} seed {record.seed}, of {record.study}, made {record.created_at:%Y-%m-%d}")
        with code_policy(allowed=self.allow_code), TemporaryDirectory(prefix="trans4init-reproduce-") as room:
            return _compared(made_again(record, Path(room), self.data))


def _compared(made: "Reproduction") -> int:
    """Print how the two runs compare; return the exit code."""
    import math

    from rich.table import Table

    from trans4init.ablations.console import plain_console
    from trans4init.ablations.study.reproduce import ROUNDING

    if made.again.status != made.before.status and made.before.status != "pruned":
        print(f"It was {made.before.status}, and is now {made.again.status}: {made.again.error or 'it went through'}")
        return 1
    differences, largest = made.differences(), made.largest()
    for reason in made.unlike():
        print(f"Made with other {reason}.")
    if array := made.before.notes.get("array"):
        print(f"It was made in an array of {array} runs, and alone now: sums are taken in another order.")
    if largest == 0:
        print(f"All {len(differences)} numbers are the same, bit by bit.")
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("metric", "step", "then", "now", "relative difference"):
        table.add_column(title, justify="left" if title == "metric" else "right", no_wrap=True)
    for measured, value, difference in sorted(differences, key=lambda row: -row[2])[:10]:
        now = "missing" if value is None or math.isnan(value) else f"{value:.9g}"
        then = "missing" if measured.value is None else f"{measured.value:.9g}"
        table.add_row(measured.metric.name, str(measured.step), then, now, f"{difference:.1e}")
    plain_console().print(table)
    unequal = sum(difference > 0 for _, _, difference in differences)
    counted = f"{unequal} of {len(differences)} numbers differ, by {largest:.1e} at most (relative)"
    if largest <= ROUNDING:
        print(f"{counted}: the same within rounding.")
        return 0
    print(f"{counted}: not the same.")
    return 1
