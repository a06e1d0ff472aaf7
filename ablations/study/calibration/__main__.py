"""Calibrate a study's words: `python -m trans4init.ablations.study.calibration FOLDER`. Takes about half an hour."""

import argparse
import tempfile
from pathlib import Path

from trans4init.ablations.study.calibration.pool import train_pool
from trans4init.ablations.study.calibration.whole_path import run_studies
from trans4init.reports.files import write_whole
from trans4init.reports.records.store import read_runs, write_together
from trans4init.reports.study_report.calibration import as_markdown, calibrate, whole_path


def main() -> None:
    """Train the pool unless it is there, draw studies from it, run some whole; write `calibration.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where pool.parquet and calibration.md are, or are written")
    parser.add_argument("--pool", type=int, default=2000, help="how many models are trained")
    parser.add_argument("--draws", type=int, default=1000, help="how many studies are drawn from them")
    parser.add_argument("--studies", type=int, default=20, help="how many studies are run from file to verdict")
    options = parser.parse_args()
    path = options.folder / "pool.parquet"
    if not path.exists():
        write_together(list(train_pool(options.pool)), path)
    runs = read_runs(path)
    counts = calibrate([run.last("validation_loss") for run in runs], options.draws)
    with tempfile.TemporaryDirectory() as folder:
        counts += whole_path(list(run_studies(options.studies, Path(folder))))
    text = as_markdown(counts, runs[0], len(runs))
    write_whole(options.folder / "calibration.md", text)
    print(text)


if __name__ == "__main__":
    main()
