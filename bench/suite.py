"""What a benchmark is made of: operators at given sizes, their implementations, how a wrong result is told.

A suite is declared in one file and knows nothing of clocks or processes.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["HOOKS", "ROOM", "Call", "Case", "Implementation", "MissingError", "Suite", "scratch_folder", "suite_files"]

Call = Callable[[], Any]
"""One run of an implementation on inputs that are already there; its result is what is checked."""


ROOM = "TRANS4INIT_BENCH_ROOM"
"""The variable that names, in a worker, the folder that goes when its case has been measured."""


def scratch_folder() -> Path:
    """A new folder for a case's inputs; in a worker it is gone afterwards, however that ends."""
    return Path(tempfile.mkdtemp(prefix="trans4init-bench-", dir=os.environ.get(ROOM)))


class MissingError(Exception):
    """An implementation that this machine can't run, such as a GPU's kernel without a GPU; says what it needs."""


@dataclass(frozen=True)
class Case:
    """An operator at one size."""

    operator: str
    size: str = ""
    """The size in words, such as `L=512 D=64`."""
    shape: Mapping[str, int] = field(default_factory=dict)
    flop: float | None = None
    """Floating-point operations that the operator needs, at least; None where counting them says nothing."""
    bytes: float | None = None
    """Bytes that must move to or from memory, at least: every input read once, every output written once."""
    tokens: int | None = None
    """How many tokens one call handles, for operators whose speed is given in tokens per second."""
    runs: int | None = None
    """How many runs of a study one call makes: speed is given in runs per hour."""
    quick: bool = False
    """Whether it is measured in the quick pass too."""
    rounds: int | None = None
    """The most rounds that are worth their time, where calls are long."""
    cold: bool = False
    """Whether every call is a process of its own, and nothing warms up: each is timed and checked, `rounds` in all."""
    counts_prepared: bool = False
    """Whether peak memory counts what an implementation keeps between calls, where that is part of the operator: the
    values that a forward pass saves for its backward pass, a model with its optimiser's state."""

    def __str__(self) -> str:
        return f"{self.operator} {self.size}".strip()


@dataclass(frozen=True)
class Implementation:
    """One way to do what an operator does."""

    name: str
    prepare: Callable[[Any], Call]
    """From the case's inputs to a call; raises MissingError where this machine can't."""
    operators: frozenset[str] | None
    """The operators that it is for; None for all."""
    memory: bool
    """Whether its peak memory can be told; that of a CUDA graph lies in a pool that was there before the call."""
    colour: str = ""
    """Its colour in figures, #RRGGBB; empty takes the next one of the figure's palette."""


class Suite:
    """Cases, what they are run on, and the implementations that take turns.

    inputs: makes a case's inputs; the same every time. check: what is wrong with an
    implementation's result, in a few words, or nothing.
    baseline: the implementation that the others are measured against. memory: whether what PyTorch allocates in this
    process says anything.
    """

    def __init__(
        self,
        name: str,
        cases: Callable[[], Iterable[Case]],
        inputs: Callable[[Case], Any],
        check: Callable[[Any, str, Any], str],
        *,
        baseline: str,
        memory: bool = True,
    ) -> None:
        self.name, self.inputs, self.check, self.baseline, self.memory = name, inputs, check, baseline, memory
        self._cases = cases
        self._implementations: dict[str, Implementation] = {}

    def implementation(
        self, name: str, *, operators: Iterable[str] | None = None, memory: bool = True, colour: str = ""
    ) -> Callable[[Callable[[Any], Call]], Callable[[Any], Call]]:
        """Declare a way to do it: the decorated function makes the call from the inputs."""

        def register(prepare: Callable[[Any], Call]) -> Callable[[Any], Call]:
            if name in self._implementations:
                raise ValueError(f"suite {self.name} has two implementations called {name!r}")
            only = None if operators is None else frozenset(operators)
            self._implementations[name] = Implementation(name, prepare, only, memory and self.memory, colour)
            return prepare

        return register

    def cases(self, *, quick: bool) -> list[Case]:
        """The cases, those of the quick pass alone where it is one."""
        return [case for case in self._cases() if case.quick or not quick]

    def implementations(self, case: Case) -> list[Implementation]:
        """Those that are for the case's operator, the baseline first."""
        found = [
            one for one in self._implementations.values() if one.operators is None or case.operator in one.operators
        ]
        return sorted(found, key=lambda one: one.name != self.baseline)


HOOKS = Path(__file__).parent
"""The folder whose conftest.py measures. pytest has to be told to look there (--confcutdir): where it is started away
from the sources, it takes the folder of the first file that it is given for the highest one."""


_FOLDER = HOOKS / "suites"


_PREFIX = "bench_"


def suite_files(folder: Path = _FOLDER) -> dict[str, Path]:
    """The suites' files in a folder by name, the machine's own rates first."""
    files = sorted(folder.glob(f"{_PREFIX}*.py"), key=lambda path: (path.stem != f"{_PREFIX}machine", path.stem))
    return {path.stem.removeprefix(_PREFIX).replace("_", "-"): path for path in files}
