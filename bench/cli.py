"""The command `trans4init bench`: measure the suites, compare two sets of measurements, estimate a study."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from trans4init.ablations.cli import execute
from trans4init.ablations.errors import FaultError, InputError, unknown_name
from trans4init.bench.measuring.inherited import without_test_runner

__all__ = ["main"]

_PROGRAM = "trans4init bench"
_DESCRIPTION = "Measure speed and memory beside peers."


@dataclass(frozen=True)
class MeasureSuites:
    """Measure suites: every implementation is checked, then all take turns. There are two more commands:

    trans4init bench compare A B: is B slower than A? trans4init bench estimate STUDY: what will a study take here?
    """

    suite: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME", help_behavior_hint="(default: all)")] = ()
    """A suite to measure; may be given several times."""
    quick: bool = False
    """Measure few cases in short rounds: under two minutes."""
    minutes: Annotated[
        float | None, arg(metavar="MINUTES", help_behavior_hint="(default: 10, or 1.25 with --quick)")
    ] = None
    """Begin no case after this many minutes, and name those left out."""
    out: Path = Path("runs/bench")
    """Folder for the results and the page."""

    def run(self, command: str) -> int:
        """Measure, then write the page and the MLflow mirror."""
        import pytest

        from trans4init.bench.suite import HOOKS, suite_files

        if self.minutes is not None and not self.minutes >= 0:
            raise InputError(f"--minutes {self.minutes:g}: must be 0 or more.")
        try:
            (self.out / "results").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {self.out} can't be a folder of results: {error.strerror}.") from None
        files = suite_files()
        for name in self.suite:
            if name not in files:
                raise unknown_name("suite", name, files)
        command_line = [
            *(
                sys.executable,
                "-P",
                "-m",
                "trans4init.bench.pytest_process",
                "--import-mode=importlib",
                "-p",
                "no:cacheprovider",
                "-q",
                "-rf",
                "--continue-on-collection-errors",
            ),
            *("--benchmark-quiet", "--no-header", "--confcutdir", str(HOOKS), "--out", str(self.out)),
            *(["--quick"] if self.quick else []),
            *([] if self.minutes is None else ["--minutes", str(self.minutes)]),
            *(str(files[name]) for name in self.suite or files),
        ]
        code = _run(command_line)
        self._present()
        if code in (pytest.ExitCode.INTERRUPTED, 128 + signal.SIGINT):
            raise KeyboardInterrupt
        return int(code != 0)

    def _present(self) -> None:
        """Write the page of all results in the folder, and mirror them to MLflow."""
        from trans4init.reports.mirror.speeds import mirror_speeds
        from trans4init.reports.mirror.store import MirrorError
        from trans4init.reports.records.store import load_results
        from trans4init.reports.records.tables import UnreadableSchemaError
        from trans4init.reports.speed.page import write_speed_page

        try:
            results = load_results(self.out / "results")
        except UnreadableSchemaError as error:
            raise InputError(str(error)) from None
        if not results.records:
            return
        try:
            print(f"page     {write_speed_page(self.out, results)}")
        except OSError as error:
            raise FaultError(f"the page can't be written: {error.filename}: {error.strerror}.") from None
        try:
            for sentence in mirror_speeds(self.out.resolve().parent, results.records)[1]:
                print(f"In MLflow, {sentence}.")
        except MirrorError as error:
            print(f"MLflow was not updated ({error}); to do it later: trans4init sync {shlex.quote(str(self.out))}")


@dataclass(frozen=True)
class CompareSides:
    """Is B slower than A? The exit code is 1 if anything is: by 3 % or more, with the whole 99 % interval above 1."""

    a: Annotated[Positional[str], arg(metavar="A")]
    """A folder of results (such as runs/bench), a folder of sources, or a git revision."""
    b: Annotated[Positional[str], arg(metavar="B")] = "."
    """The same for the other side; by default the sources in this folder."""
    suite: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME", help_behavior_hint="(default: all)")] = ()
    """A suite to compare; may be given several times."""
    processes: int = 24
    """How many processes measure each side, in turn, if sources are compared; each measures the quick cases."""
    any_machine: bool = False
    """Compare results even if they are from different machines."""
    keep: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: nowhere)")] = None
    """Keep the measurements: DIR/a and DIR/b become folders of results, to compare again or to publish."""

    def run(self, command: str) -> int:
        """Compare, and print a line for each measurement that both sides have."""
        from rich.table import Table

        from trans4init.ablations.console import plain_console
        from trans4init.bench.comparing.regression import CONFIDENCE
        from trans4init.bench.comparing.sides import Request, compare_sides

        outcome = compare_sides(Request(self.a, self.b, self.suite, self.processes, self.any_machine, self.keep))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(f"time of {self.b} over {self.a}")
        for title in ("ratio", f"{CONFIDENCE:.0%} interval".replace("%", " %")):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for name, ratio in outcome.ratios.items():
            interval = ratio.interval
            limits = f"{interval.low:.3f} to {interval.high:.3f}" if interval else ""
            table.add_row(name, f"{ratio.ratio:.3f}", limits, ratio.word)
        for name, error in outcome.lost.items():
            table.add_row(name, "", "", f"no time: {error}")
        console = plain_console()
        console.print(table, width=max(100, console.width))
        for remark in outcome.remarks:
            print(remark)
        if outcome.stopped:
            raise KeyboardInterrupt
        return int(bool(outcome.lost) or any(ratio.word == "slower" for ratio in outcome.ratios.values()))


@dataclass(frozen=True)
class EstimateStudy:
    """Estimate what a study will take on this machine: time, memory and disk, from a few of its steps measured now."""

    study: Positional[str]
    """The name of a shipped study, or the path of a TOML file."""

    def run(self, command: str) -> int:
        """Print the cells and the estimate."""
        from trans4init.ablations.console import plain_console
        from trans4init.ablations.study.estimate import print_plan
        from trans4init.ablations.study.grid import load_grid

        print_plan(load_grid(self.study), self.study, "process", plain_console())
        return 0


def _run(command_line: Sequence[str]) -> int:
    """Run the process and return its exit code. At Ctrl-C it stops and prints its results so far, and is waited for."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # it unblocks the signal when it can answer it
    process = subprocess.Popen(command_line, env=without_test_runner())
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # a terminal has told it already, `kill` has not
        return process.wait()
    finally:
        process.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with the codes of `trans4init`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"compare": CompareSides, "estimate": EstimateStudy}
    if words and words[0] in commands:
        command = commands[words[0]]
        execute(words[1:], lambda: command, (), f"{_PROGRAM} {words[0]}", command.__doc__ or "")
    if words and not words[0].startswith("-"):
        print(f"trans4init: {unknown_name('command', words[0], commands)}", file=sys.stderr)
        sys.exit(2)
    execute(words, lambda: MeasureSuites, (), _PROGRAM, _DESCRIPTION)


if __name__ == "__main__":
    main()
