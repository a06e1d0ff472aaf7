"""Run studies without a true difference through the whole path, from their files to their words."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trans4init.ablations.errors import FaultError
from trans4init.ablations.study.calibration.pool import FILE
from trans4init.reports.records.store import load_results
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["run_studies"]

_ARMS, _SEEDS = 8, 9
"""Arms beside the reference, and the seed floor of so many comparisons."""


def run_studies(count: int, folder: Path) -> Iterator[tuple[Comparison, ...]]:
    """Run `count` studies of arms without a difference in a folder; yield the comparisons of each.

    Each has a model of another width, hence other initial values and other orders of its dimensions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = folder / f"no-difference-{number}.toml"
        file.write_text(_study(number))
        words = [sys.executable, "-c", "from trans4init.ablations.cli import main; main()", "run", file.name]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FaultError(f"{file} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        results = load_results(folder / "runs" / file.stem / "results")
        summary = summarise(results.records, results.card)
        yield tuple(cell.comparison for cell in summary.cells if cell.comparison is not None)


def _study(number: int) -> str:
    permuted = Path(__file__).with_name("permuted.py").as_posix()
    arms = ", ".join(['"analytic"', *(f'"{permuted}:permuted-{arm}"' for arm in range(1, _ARMS + 1))])
    return (
        FILE.read_text()
        .replace('name = "calibration"', f'name = "no-difference-{number}"')
        .replace('arms = ["analytic"]', f"arms = [{arms}]")
        .replace("width = 16", f"width = {12 + 2 * number}")
        .replace("seeds = 10", f"seeds = {_SEEDS}")
    )
