"""Declare a benchmark: operators at given sizes, their implementations, and how a result is checked.

A suite is declared in one file of `suites/`; how it is timed, and in which process, is left to `measuring/`.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "HOOKS",
    "SCRATCH",
    "Call",
    "Case",
    "Implementation",
    "MissingError",
    "Suite",
    "scratch_folder",
    "suite_files",
]

Call = Callable[[], Any]
"""Runs an implementation once on inputs that were made before, and returns the result to check."""


SCRATCH = "TRANS4INIT_BENCH_SCRATCH"
"""Environment variable that names, in a worker, a folder that is deleted when its case has been measured."""


def scratch_folder() -> Path:
    """Make a new folder for a case's files; in a worker it is deleted at the end, even if the worker crashes."""
    return Path(tempfile.mkdtemp(prefix="trans4init-bench-", dir=os.environ.get(SCRATCH)))


class MissingError(Exception):
    """This machine can't run an implementation, such as a GPU kernel without a GPU; the message names what it needs."""


@dataclass(frozen=True)
class Case:
    """Describes an operator at one size."""

    operator: str
    size: str = ""
    """The size as readers see it, such as `L=512 D=64`."""
    shape: Mapping[str, int] = field(default_factory=dict)
    flop: float | None = None
    """The fewest floating-point operations that the operator needs; None if their number says nothing of its time."""
    bytes: float | None = None
    """The fewest bytes that must move to or from memory: every input read once, every output written once."""
    tokens: int | None = None
    """How many tokens one call handles: the speed is then given in tokens per second."""
    runs: int | None = None
    """How many runs of a study one call makes: the speed is then given in runs per hour."""
    quick: bool = False
    """Whether `--quick` measures it too."""
    rounds: int | None = None
    """The largest number of rounds, for operators whose calls are long; None leaves it to the plan."""
    cold: bool = False
    """Whether every call is a process of its own: none is a warm-up, and each of the `rounds` is timed and checked."""
    counts_prepared: bool = False
    """Whether peak memory includes what an implementation keeps between calls: the values that a forward pass saves for
    its backward pass, or a model with its optimiser's state."""

    def __str__(self) -> str:
        return f"{self.operator} {self.size}".strip()


@dataclass(frozen=True)
class Implementation:
    """Describes one way to compute an operator."""

    name: str
    prepare: Callable[[Any], Call]
    """Makes the call from the case's inputs; raises MissingError if this machine can't run it."""
    operators: frozenset[str] | None
    """The operators that it computes; None for all."""
    counts_memory: bool
    """Whether its peak memory can be counted: a CUDA graph's can't, its pool is allocated before the call."""
    colour: str = ""
    """Its colour in figures, #RRGGBB; empty takes the next colour of the figure's palette."""


class Suite:
    """Describes a benchmark: cases, the inputs of each, and the implementations that take turns.

    inputs: makes a case's inputs, the same every time. check: says what is wrong with an implementation's result on the
    inputs, in a few words; empty if it is right. baseline: the implementation that the others are compared with.
    counts_memory: False if the work is done in other processes, whose memory isn't seen.
    """

    def __init__(
        self,
        name: str,
        cases: Callable[[], Iterable[Case]],
        inputs: Callable[[Case], Any],
        check: Callable[[Any, str, Any], str],
        *,
        baseline: str,
        counts_memory: bool = True,
    ) -> None:
        self.name, self.inputs, self.check, self.baseline = name, inputs, check, baseline
        self._cases, self._counts_memory = cases, counts_memory
        self._implementations: dict[str, Implementation] = {}

    def implementation(
        self, name: str, *, operators: Iterable[str] | None = None, counts_memory: bool = True, colour: str = ""
    ) -> Callable[[Callable[[Any], Call]], Callable[[Any], Call]]:
        """Declare an implementation: the decorated function makes the call from the inputs."""

        def register(prepare: Callable[[Any], Call]) -> Callable[[Any], Call]:
            if name in self._implementations:
                raise ValueError(f"suite {self.name} has two implementations called {name!r}")
            only = None if operators is None else frozenset(operators)
            counts = counts_memory and self._counts_memory
            self._implementations[name] = Implementation(name, prepare, only, counts, colour)
            return prepare

        return register

    def cases(self, *, quick: bool) -> list[Case]:
        """Return all cases, or only the quick ones."""
        return [case for case in self._cases() if case.quick or not quick]

    def implementations(self, case: Case) -> list[Implementation]:
        """Return the implementations of the case's operator, the baseline first."""
        matching = [
            implementation
            for implementation in self._implementations.values()
            if implementation.operators is None or case.operator in implementation.operators
        ]
        return sorted(matching, key=lambda implementation: implementation.name != self.baseline)


HOOKS = Path(__file__).parent
"""The folder whose conftest.py loads the plugin. It is given to pytest as --confcutdir: pytest, started outside the
sources, would look for a conftest.py only from the first suite file's folder on."""
_FOLDER = HOOKS / "suites"
_PREFIX = "bench_"


def suite_files(folder: Path = _FOLDER) -> dict[str, Path]:
    """Return the suites' files in a folder by name, first the suite that measures the machine's own rates."""
    files = sorted(folder.glob(f"{_PREFIX}*.py"), key=lambda path: (path.stem != f"{_PREFIX}machine", path.stem))
    return {path.stem.removeprefix(_PREFIX).replace("_", "-"): path for path in files}
