"""Compare two sets of measurements, or two states of the source: what became slower?

States of the source are measured by processes that take turns, A B B A A B …, so that drift of the machine hits both.
"""

import itertools
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trans4init.ablations.errors import FaultError, InputError
from trans4init.bench.comparing.regression import TimeRatio, compare_timings, enough
from trans4init.bench.measuring.inherited import without_test_runner
from trans4init.bench.suite import suite_files
from trans4init.reports.machine import git_environment
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.store import Results, load_results
from trans4init.reports.records.tables import UnreadableSchemaError
from trans4init.reports.speed.speeds import MISSING_NOTE, THREADS_NOTE

__all__ = ["Outcome", "Request", "compare_sides", "timings_of"]

FLOORS = ("ablations", "bench", "kernels", "reports")
"""The packages' folders in a source tree."""
_EVERY_QUICK_CASE = ("--quick", "--minutes", "10")
"""Options for a process: the minutes suffice for every quick case on a slow machine too."""


@dataclass(frozen=True)
class Request:
    """Names the two sides to compare, and how many processes measure them if they are sources."""

    a: str
    b: str
    suites: tuple[str, ...]
    processes: int
    any_machine: bool
    keep: Path | None = None
    """Folder that the measurements are kept in: its subfolders `a` and `b` are folders of results."""


@dataclass(frozen=True)
class Outcome:
    """Holds the result of comparing two sides."""

    ratios: dict[str, TimeRatio]
    """How much longer B takes, by the name of each measurement that both sides have."""
    lost: dict[str, str]
    """Measurements that A has and B lacks in some process or in all, by name, with the error."""
    remarks: list[str]
    """Other facts about the comparison, a sentence each."""
    stopped: bool = False
    """Whether Ctrl-C ended the measuring early."""


def compare_sides(request: Request) -> Outcome:
    """Compare the measurements that both sides have.

    A side is a folder of results, a folder of sources, or a git revision. Raises InputError for anything else, for
    results against sources, and for results of different machines unless the request allows them.
    """
    if request.processes < 1:
        raise InputError(f"--processes {request.processes}: at least one process of each side has to measure.")
    stored, stopped = [_stored(side) for side in (request.a, request.b)], False
    if None not in stored:
        a, b = (results or Results(()) for results in stored)
    elif stored == [None, None]:
        a, b, stopped = _measure(request)
    else:
        raise InputError("compare two sets of results, or two states of the source, not one with the other.")
    return _compare(a, b, request, stopped)


def _compare(a: Results, b: Results, request: Request, stopped: bool) -> Outcome:
    if not request.any_machine:
        _check_machines(a.records, b.records, request)
    left, right = timings_of(a.records), timings_of(b.records)
    shared = [name for name in left if name in right]
    if not shared:
        raise InputError(f"{request.a} and {request.b} have no measurement in common.")
    failures_of_a, failures_of_b = _failures(a.records), _failures(b.records)
    lost = {
        name: error
        for name, error in failures_of_b.items()
        if name in left and (name not in right or name not in failures_of_a)
    }
    remarks = [f"{path} could not be read and was set aside." for side in (a, b) for path in side.corrupt]
    versions = [_torch(side.records) for side in (a, b)]
    if versions[0] != versions[1]:
        remarks.append(f"{request.a} was measured with torch {versions[0]}, {request.b} with torch {versions[1]}.")
    for side, other, names in ((request.a, right, left), (request.b, left, right)):
        if only := [name for name in names if name not in other and name not in lost]:
            remarks.append(f"Only {side} has {len(only)} of its measurements, such as {only[0]}.")
    if any(not enough(len(left[name]), len(right[name])) for name in shared):
        needed = next(count for count in itertools.count(1) if enough(count, count))
        remarks.append(f"Too few for a word: at least {needed} processes have to measure each side.")
    if stopped:
        remarks.append("Stopped: this is what was measured until then.")
    return Outcome({name: compare_timings(left[name], right[name]) for name in shared}, lost, remarks, stopped)


def _torch(records: Iterable[RunRecord]) -> str:
    """Return the versions of PyTorch that the records were made with."""
    return " and ".join(sorted({record.environment.versions.get("torch", "unknown") for record in records}))


def timings_of(records: Iterable[RunRecord]) -> dict[str, list[list[float]]]:
    """Return the times of each implementation of each case by name, a list for each process; failures are left out.

    Samples that were interrupted are left out too, unless all of that process's were.
    """
    timings: dict[str, list[list[float]]] = {}
    for record in records:
        times = record.by_step(metrics.LATENCY.name)
        if record.status == "ok" and times:
            interrupted = record.by_step(metrics.INTERRUPTED.name)
            undisturbed = [time for number, time in times.items() if not interrupted.get(number)]
            timings.setdefault(_name(record), []).append(undisturbed or list(times.values()))
    return timings


def _failures(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the error of each implementation without a time; those that the machine can't run are left out."""
    return {
        _name(record): record.error.strip().splitlines()[-1]
        for record in records
        if record.status != "ok" and MISSING_NOTE not in record.notes and record.error.strip()
    }


def _name(record: RunRecord) -> str:
    """Return the name of a measurement: suite, case and implementation."""
    case = f"{record.cell.function} {record.model}".strip()
    return f"{record.task}: {case}: {record.cell.arm}"


def _stored(side: str) -> Results | None:
    """Return the results in a folder; None if the side isn't a folder of results."""
    folder = Path(side) / "results"
    if not folder.is_dir():
        return None
    try:
        return load_results(folder)
    except UnreadableSchemaError as error:
        raise InputError(str(error)) from None


def _check_machines(a: Sequence[RunRecord], b: Sequence[RunRecord], request: Request) -> None:
    """Raise InputError if the sides were measured on different machines, or with different numbers of threads."""
    with_threads = all(THREADS_NOTE in record.notes for record in (*a, *b))
    machines = [{_machine(record, with_threads) for record in side} for side in (a, b)]
    if machines[0] != machines[1]:
        of_a, of_b = ("; ".join(sorted(side)) or "no machine" for side in machines)
        raise InputError(
            f"{request.a} was measured on {of_a}, {request.b} on {of_b}; --any-machine compares them nevertheless"
        )


def _machine(record: RunRecord, with_threads: bool) -> str:
    environment = record.environment
    machine = f"{environment.processor} ({environment.cores} cores) {environment.accelerator}".strip()
    return f"{machine} on {record.notes[THREADS_NOTE]} threads" if with_threads else machine


def _measure(request: Request) -> tuple[Results, Results, bool]:
    """Measure both states of the source in turn; also return whether Ctrl-C stopped it after both had some results."""
    with ExitStack() as stack:
        folder = request.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trans4init-compare-")))
        if any((folder / name).exists() for name in "ab"):
            raise InputError(f"--keep {folder} has measurements already; name another folder.")
        sides = [
            stack.enter_context(_state(side, request.suites, (folder / name).resolve()))
            for name, side in (("a", request.a), ("b", request.b))
        ]
        stopped = False
        try:
            for turn in range(request.processes):
                for side in sides if turn % 2 == 0 else reversed(sides):
                    print(f"process {turn + 1} of {request.processes}: {side.name}", file=sys.stderr, flush=True)
                    side.measure()
        except KeyboardInterrupt:
            stopped = True
        a, b = (load_results(side.out / "results") for side in sides)
        if stopped and not (a.records and b.records):
            raise KeyboardInterrupt
        return a, b, stopped


@dataclass(frozen=True)
class _State:
    """Holds a state of the source, ready to be measured."""

    name: str
    python: Path
    links: Path
    hooks: Path
    """Folder of the conftest.py that loads the benchmark's plugin."""
    files: tuple[str, ...]
    out: Path

    def measure(self) -> None:
        """Measure every suite in one new process; raise FaultError if it leaves no results."""
        options = ["--confcutdir", str(self.hooks), "--out", str(self.out)]
        pytest = ["-P", "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider", "-q", "--benchmark-quiet"]
        results = self.out / "results"
        before = len(list(results.glob("*")))
        done = subprocess.run(
            [str(self.python), *pytest, *_EVERY_QUICK_CASE, *options, *self.files],
            env=without_test_runner() | {"PYTHONPATH": str(self.links)},
            capture_output=True,
            text=True,
            check=False,
        )
        # Exit code 1: some implementation has no time; its row says why.
        if done.returncode not in (0, 1) or len(list(results.glob("*"))) == before:
            output = (done.stdout + done.stderr).strip().splitlines()
            reason = output[-1] if output else f"exit code {done.returncode}"
            raise FaultError(f"{self.name} could not be measured: {reason}")


@contextmanager
def _state(side: str, suites: tuple[str, ...], out: Path) -> Iterator[_State]:
    """Prepare the sources in a folder, or a git revision's in a temporary work tree."""
    with tempfile.TemporaryDirectory(prefix="trans4init-compare-") as temporary:
        scratch = Path(temporary)
        if (Path(side) / "pyproject.toml").is_file():
            yield _prepare(side, Path(side).resolve(), scratch, suites, out)
            return
        commit = _git("rev-parse", "--verify", "--quiet", f"{side}^{{commit}}")
        if not commit:
            raise InputError(
                f"{side!r} is neither a folder of results or sources, nor a revision of the git repository here."
            )
        tree = scratch / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        if not tree.is_dir():
            raise FaultError(f"git can't make a work tree of {side} in {scratch}.")
        try:
            yield _prepare(f"{side} ({commit[:10]})", tree, scratch, suites, out)
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _prepare(name: str, tree: Path, scratch: Path, suites: tuple[str, ...], out: Path) -> _State:
    """Give a source tree its import name by a folder of links, and find its suites and a Python for it."""
    files = suite_files(tree / "bench" / "suites")
    missing = [suite for suite in suites if suite not in files]
    if not files or missing:
        raise InputError(f"{name} has no suite {missing[0] if missing else ''}".rstrip() + ".")
    links = scratch / "links" / "trans4init"
    links.mkdir(parents=True)
    for floor in FLOORS:
        (links / floor).symlink_to(tree / floor)
    linked_files = tuple(str(links / files[suite].relative_to(tree)) for suite in suites or files)
    return _State(name, _python(tree, scratch), links.parent, links / "bench", linked_files, out)


def _python(tree: Path, scratch: Path) -> Path:
    """Return this Python if the tree needs the same packages as this source, else one in a new environment."""
    requirements = _requirements(tree)
    if requirements is not None and requirements == _requirements(Path(__file__).resolve().parents[2]):
        return Path(sys.executable)
    print(f"{tree} needs other packages than this source: installing them in a new environment.", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(scratch / "venv")], check=True)
    python = scratch / "venv" / "bin" / "python"
    install = ["-m", "pip", "install", "-q", "-c", str(tree / "constraints.txt"), "-e", str(tree)]
    if subprocess.run([str(python), *install], check=False).returncode:
        raise FaultError(f"the packages that {tree} needs could not be installed.")
    return python


def _requirements(tree: Path) -> tuple[list[str], str] | None:
    """Return the packages that a source tree depends on and their pinned versions; None if its files don't say."""
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
        return project["dependencies"], (tree / "constraints.txt").read_text()
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None


def _git(*arguments: str) -> str:
    """Run git and return its output; empty if it fails or isn't installed."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(
        ["git", *arguments], env=git_environment(), capture_output=True, text=True, check=False
    ).stdout.strip()
