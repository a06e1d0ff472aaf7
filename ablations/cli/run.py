"""`trans4init run`: run a study, or continue it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """Run a study, or continue one that was interrupted: finished runs are never repeated."""

    study: Positional[str]
    """The name of a study that comes with the project (trans4init ls studies), or the path of a TOML file."""
    dry_run: bool = False
    """Print the cells and an estimate of time, memory and disk; run nothing."""
    seeds: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the study's)")] = None
    """Number of runs of each cell that the verdict is about; they differ in their seeds."""
    trials: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the study's)")] = None
    """Number of trials: the first uses the study's own settings, the others are spread over the space."""
    tunings: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the study's)")] = None
    """How often the study is tuned: the second time as with the next `seed`, and so on."""
    data: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: the study's)")] = None
    """A text file to use instead of the study's data; this is a study of its own, named after both."""
    function: Annotated[str | None, arg(metavar="F", help_behavior_hint="(default: the study's)")] = None
    """The function to study instead of the study's own; this is a study of its own, named after both."""
    executor: Literal["inline", "process", "ray"] = "process"
    """Where runs happen: in this process, in a process each (one at a time on a GPU), or on a Ray cluster."""
    address: Annotated[
        str | None, arg(metavar="HOST:PORT", help_behavior_hint="(default: RAY_ADDRESS, else a new one here)")
    ] = None
    """The Ray cluster for --executor ray; `auto` is one that runs on this machine."""
    gpus_per_run: Annotated[float | None, arg(metavar="X", help_behavior_hint="(default: 1, if there are any)")] = None
    """With --executor ray: the GPUs that a run, or an array of runs, takes; 0.25 puts four on each."""
    device: Annotated[str | None, arg(metavar="D", help_behavior_hint="(default: all GPUs, else the CPU)")] = None
    """The device to use, as torch calls it: cpu, cuda:1, mps."""
    allow_code: bool = False
    """Run code that the study's file names (FILE.py:NAME) where it is neither beside that file nor below it."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/STUDY)")] = None
    """The folder to write the study to."""
    storage: Annotated[str | None, arg(metavar="URL", help_behavior_hint="(default: optuna.db in that folder)")] = None
    """Optuna's database: postgresql://USER@HOST/DATABASE, or of MySQL; ${NAME} stands for an environment variable."""
    no_arrays: bool = False
    """Train every run by itself, never several alike as one tensor program: for comparison, and for doubt."""
    array_size: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 8, on a GPU 64)")] = None
    """How many runs that are alike are trained together at most. One by one where that is faster; the log says why."""
    retry_failed: bool = False
    """Run again those runs that failed or ran out of memory."""
    fail_fast: bool = False
    """Stop at the first run that fails or runs out of memory; the same command goes on after it."""
    keep_going: bool = False
    """Go on when runs fail, as without this option: each failed run is a row of the results."""

    def run(self, command: str) -> int:
        """Run the study, or print its plan."""
        from trans4init.ablations.code_policy import code_policy
        from trans4init.ablations.console import plain_console
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.settings.memory import check_memory
        from trans4init.ablations.study.grid import load_grid
        from trans4init.ablations.study.run import Options, run_study

        if self.executor != "ray" and (self.address is not None or self.gpus_per_run is not None):
            raise InputError("--address and --gpus-per-run are for --executor ray.")
        if self.gpus_per_run is not None and not self.gpus_per_run >= 0:
            raise InputError(f"--gpus-per-run must be 0 or more, not {self.gpus_per_run:g}.")
        if self.fail_fast and self.keep_going:
            raise InputError("--fail-fast and --keep-going are opposites; name one.")
        if self.array_size is not None and self.array_size < 1:
            raise InputError(f"--array-size must be at least 1, not {self.array_size}.")
        if self.array_size is not None and self.no_arrays:
            raise InputError("--no-arrays and --array-size are opposites; name one.")
        with code_policy(allowed=self.allow_code, say=print):
            grid = load_grid(
                self.study,
                seeds=self.seeds,
                trials=self.trials,
                tunings=self.tunings,
                data=self.data,
                function=self.function,
                storage=self.storage,
            )
        console = plain_console()
        if self.device is not None:
            from trans4init.ablations.device import use_device

            use_device(self.device)
        if self.dry_run:
            from trans4init.ablations.study.estimate import print_plan

            print_plan(grid, self.study, self.executor, console, 1 if self.no_arrays else self.array_size)
            return 0
        for block in grid.blocks:
            check_memory(block.spec.model, block.spec.training)
        folder = self.out or Path("runs") / grid.name
        size = 1 if self.no_arrays else self.array_size
        options = Options(
            self.study,
            command,
            folder,
            executor=self.executor,
            retry_failed=self.retry_failed,
            fail_fast=self.fail_fast,
            array_size=size,
            address=self.address,
            gpus_per_run=self.gpus_per_run,
        )
        return run_study(grid, options, console)
