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
    """Number of evaluation seeds of each cell."""
    trials: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the study's)")] = None
    """Number of tuning trials of each cell; each is run with the study's number of tuning seeds."""
    tunings: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the study's)")] = None
    """How often the study is tuned, with other settings and seeds: the report says which words depend on that."""
    data: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: the study's)")] = None
    """A text file to use instead of the study's data; this is a study of its own, named after both."""
    function: Annotated[str | None, arg(metavar="F", help_behavior_hint="(default: the study's)")] = None
    """The function to study instead of the study's own; this is a study of its own, named after both."""
    executor: Literal["inline", "process", "ray"] = "process"
    """Where runs happen: in this process, in a process each (one at a time on a GPU), or on a Ray cluster."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/STUDY)")] = None
    """The folder to write the study to."""
    retry_failed: bool = False
    """Run again those runs that failed or ran out of memory."""

    def run(self, command: str) -> int:
        """Run the study, or print its plan."""
        from trans4init.ablations.console import plain_console
        from trans4init.ablations.settings.memory import check_memory
        from trans4init.ablations.study.run import Options, run_study
        from trans4init.ablations.study.spec import load_study

        spec = load_study(
            self.study,
            seeds=self.seeds,
            trials=self.trials,
            tunings=self.tunings,
            data=self.data,
            function=self.function,
        )
        console = plain_console()
        if self.dry_run:
            from trans4init.ablations.study.estimate import print_plan

            print_plan(spec, self.study, self.executor, console)
            return 0
        check_memory(spec.model, spec.training)
        folder = self.out or Path("runs") / spec.name
        return run_study(spec, Options(self.study, command, folder, self.executor, self.retry_failed), console)
