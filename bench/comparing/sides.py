"""Two sets of measurements, or two states of the source, side by side: what became slower?

States of the source take turns, a process each, A B B A A B …, so that whatever drifts drifts for both.
"""

import itertools
import os
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
from trans4init.bench.suite import suite_files
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord, UnreadableSchemaError
from trans4init.reports.records.store import Results, load_results
from trans4init.reports.speed.speeds import MISSING_NOTE, THREADS_NOTE

__all__ = ["Outcome", "Request", "compare_sides", "timings_of"]

FLOORS = ("ablations", "bench", "kernels", "reports")
_EVERY_QUICK_CASE = ("--quick", "--minutes", "10")
"""On a slow machine too."""


@dataclass(frozen=True)
class Request:
    """What to compare, and how much to measure where it has to be measured."""

    a: str
    b: str
    suites: tuple[str, ...]
    processes: int
    any_machine: bool
    keep: Path | None = None
    """Folder for what is measured: `a` and `b` in it are folders of results."""


@dataclass(frozen=True)
class Outcome:
    """What is known of two sides."""

    ratios: dict[str, TimeRatio]
    """How much longer B takes, by the name of what both have."""
    lost: dict[str, str]
    """What A can do and B can't, or can't always, with the reason."""
    remarks: list[str]
    """What else is to be known of the comparison, a sentence each."""
    stopped: bool = False
    """By Ctrl-C, before all was measured."""


def compare_sides(request: Request) -> Outcome:
    """Compare what both sides have.

    A side is a folder of results, a folder of sources, or a git revision. Raises InputError for another, for sides
    that can't be compared, and for results of different machines unless that is asked for.
    """
    if request.processes < 1:
        raise InputError(f"--processes {request.processes}: at least one process of each side has to measure.")
    stored, stopped = [_stored(side) for side in (request.a, request.b)], False
    if None not in stored:
        a, b = (found or Results(()) for found in stored)
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
    already, now = _failures(a.records), _failures(b.records)
    lost = {name: why for name, why in now.items() if name in left and (name not in right or name not in already)}
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
    return " and ".join(sorted({record.environment.versions.get("torch", "unknown") for record in records}))


def timings_of(records: Iterable[RunRecord]) -> dict[str, list[list[float]]]:
    """Times of each implementation of each case, a list per process that measured it; what has no time is left out.

    Of a process that had to wait for a processor, the samples in which it didn't; all where it always did.
    """
    found: dict[str, list[list[float]]] = {}
    for record in records:
        times = record.by_step(metrics.LATENCY.name)
        if record.status == "ok" and times:
            interrupted = record.by_step(metrics.INTERRUPTED.name)
            undisturbed = [time for number, time in times.items() if not interrupted.get(number)]
            found.setdefault(_name(record), []).append(undisturbed or list(times.values()))
    return found


def _failures(records: Iterable[RunRecord]) -> dict[str, str]:
    """Why what has no time has none, by name; what this machine can't run at all is none of it."""
    return {
        _name(record): record.error.strip().splitlines()[-1]
        for record in records
        if record.status != "ok" and MISSING_NOTE not in record.notes and record.error.strip()
    }


def _name(record: RunRecord) -> str:
    case = f"{record.cell.function} {record.model}".strip()
    return f"{record.task}: {case}: {record.cell.arm}"


def _stored(side: str) -> Results | None:
    folder = Path(side) / "results"
    if not folder.is_dir():
        return None
    try:
        return load_results(folder)
    except UnreadableSchemaError as error:
        raise InputError(str(error)) from None


def _check_machines(a: Sequence[RunRecord], b: Sequence[RunRecord], request: Request) -> None:
    known = all(THREADS_NOTE in record.notes for record in (*a, *b))
    machines = [{_machine(record, known) for record in side} for side in (a, b)]
    if machines[0] != machines[1]:
        one, other = ("; ".join(sorted(side)) for side in machines)
        raise InputError(
            f"{request.a} was measured on {one or 'nothing'}, {request.b} on {other or 'nothing'}; "
            "to compare them all the same: --any-machine"
        )


def _machine(record: RunRecord, with_threads: bool) -> str:
    environment = record.environment
    words = f"{environment.processor} ({environment.cores} cores) {environment.accelerator}".strip()
    return f"{words} on {record.notes[THREADS_NOTE]} threads" if with_threads else words


def _measure(request: Request) -> tuple[Results, Results, bool]:
    """Both states of the source, measured in turn; and whether Ctrl-C stopped it, after some of both was measured."""
    with ExitStack() as stack:
        kept = request.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trans4init-compare-")))
        if any((kept / name).exists() for name in "ab"):
            raise InputError(f"--keep {kept} has measurements already; name another folder.")
        sides = [
            stack.enter_context(_state(side, request.suites, (kept / name).resolve()))
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
    """A state of the source that can be measured."""

    name: str
    python: Path
    links: Path
    hooks: Path
    """Folder of the conftest.py that measures."""
    files: tuple[str, ...]
    out: Path

    def measure(self) -> None:
        """One process of every suite; raises FaultError where that fails."""
        known = ["--confcutdir", str(self.hooks), "--out", str(self.out)]
        words = ["-P", "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider", "-q", "--benchmark-quiet"]
        results = self.out / "results"
        before = len(list(results.glob("*")))
        done = subprocess.run(
            [str(self.python), *words, *_EVERY_QUICK_CASE, *known, *self.files],
            env=os.environ | {"PYTHONPATH": str(self.links)},
            capture_output=True,
            text=True,
            check=False,
        )
        # 1: some implementation has no time, which its row says.
        if done.returncode not in (0, 1) or len(list(results.glob("*"))) == before:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise FaultError(f"{self.name} could not be measured: {said[-1] if said else done.returncode}")


@contextmanager
def _state(side: str, suites: tuple[str, ...], out: Path) -> Iterator[_State]:
    """The sources in a folder, or those of a revision in a work tree of their own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="trans4init-compare-") as temporary:
        room = Path(temporary)
        if (Path(side) / "pyproject.toml").is_file():
            yield _prepare(side, Path(side).resolve(), room, suites, out)
            return
        commit = _git("rev-parse", "--verify", "--quiet", f"{side}^{{commit}}")
        if not commit:
            raise InputError(f"{side!r} is no folder of results or of sources, and no revision of the git here.")
        tree = room / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        if not tree.is_dir():
            raise FaultError(f"git can't make a work tree of {side} in {room}.")
        try:
            yield _prepare(f"{side} ({commit[:10]})", tree, room, suites, out)
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _prepare(name: str, tree: Path, room: Path, suites: tuple[str, ...], out: Path) -> _State:
    files = suite_files(tree / "bench" / "suites")
    missing = [suite for suite in suites if suite not in files]
    if not files or missing:
        raise InputError(f"{name} has no suite {missing[0] if missing else ''}".rstrip() + ".")
    links = room / "links" / "trans4init"
    links.mkdir(parents=True)
    for floor in FLOORS:
        (links / floor).symlink_to(tree / floor)
    chosen = [files[suite] for suite in suites or files]
    placed = tuple(str(links / path.relative_to(tree)) for path in chosen)
    return _State(name, _python(tree, room), links.parent, links / "bench", placed, out)


def _python(tree: Path, room: Path) -> Path:
    """This Python where the state needs what is installed here, else one of its own with what it needs."""
    requirements = _requirements(tree)
    if requirements is not None and requirements == _requirements(Path(__file__).resolve().parents[2]):
        return Path(sys.executable)
    print("It needs other packages than this source: they are installed in an environment of its own.", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(room / "venv")], check=True)
    python = room / "venv" / "bin" / "python"
    words = ["-m", "pip", "install", "-q", "-c", str(tree / "constraints.txt"), "-e", str(tree)]
    if subprocess.run([str(python), *words], check=False).returncode:
        raise FaultError(f"what {tree.name} needs could not be installed.")
    return python


def _requirements(tree: Path) -> tuple[list[str], str] | None:
    """Return the packages that a source tree depends on and their pinned versions; None if its files don't say."""
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
        return project["dependencies"], (tree / "constraints.txt").read_text()
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None


def _git(*words: str) -> str:
    """What git says, empty where it refuses or isn't there."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
