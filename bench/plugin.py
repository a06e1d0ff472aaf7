"""Hooks of pytest that make tests of the suites' cases, measure a case at its first test, and write the records."""

import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from trans4init.ablations.errors import InputError
from trans4init.bench.measuring.rounds import Plan
from trans4init.bench.measuring.worker import Measured, load_suite, measure_case
from trans4init.bench.records import facts, records
from trans4init.bench.suite import Case, Suite
from trans4init.reports.machine import Environment, capture
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.store import write_together

__all__ = [
    "LOCK",
    "measure_once",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
]

QUICK = Plan(rounds=60, seconds=1.5, sample_seconds=0.001, limit_seconds=60)
FULL = Plan()
CHECK = Plan(rounds=1, sample_seconds=0.0, limit_seconds=60)
"""For benchmarks that pytest-benchmark has disabled, as it does under pytest-xdist: each is run to be checked."""
QUICK_MINUTES, FULL_MINUTES = 1.25, 10.0
"""Default of --minutes, with --quick and without: no case is begun later."""
LOCK = Path(tempfile.gettempdir()) / "trans4init-bench.lock"
"""File that is locked while a benchmark measures: two at once would slow each other down."""
MACHINE = Path(__file__).parent / "suites" / "bench_machine.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick`, `--minutes` and `--out`."""
    group = parser.getgroup("trans4init")
    group.addoption("--quick", action="store_true", help="measure few cases in short rounds")
    group.addoption("--minutes", type=float, help="begin no case after so many minutes (10, or 1.25 with --quick)")
    group.addoption("--out", type=Path, default=Path("runs/bench"), help="folder of the results")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the session that measures and keeps the records."""
    config.stash[_SESSION] = Session(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each implementation of each case of the file's suite."""
    if not {"case", "implementation"} <= set(metafunc.fixturenames):
        return
    suite, quick = metafunc.module.SUITE, metafunc.config.getoption("quick")
    pairs = [(str(case), way.name) for case in suite.cases(quick=quick) for way in suite.implementations(case)]
    metafunc.parametrize(("case", "implementation"), pairs, ids=[f"{case}-{name}" for case, name in pairs])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put every suite's quick cases first, and among these cold ones last: they say most, and time may run out."""
    items.sort(key=lambda item: (getattr(_parts(item)[1], "quick", True) is False, _is_cold(item)))


@pytest.fixture
def measure_once(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[], tuple[Measured, dict[str, Any]]]:
    """Measures the test's case, once for all of its implementations that were selected.

    Where pytest-benchmark is disabled (`--benchmark-disable`, pytest-xdist), the test's implementation is only checked.
    """
    session: Session = request.config.stash[_SESSION]
    return lambda: session.checked(request.node) if benchmark.disabled else session.measured_case(request.node)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of speeds, the cases left out, and the folder of the records."""
    session = config.stash[_SESSION]
    if session.left_out:
        terminalreporter.write_line(f"left out, because the minutes were over: {'; '.join(session.left_out)}")
    if not session.records:
        return
    from trans4init.reports.speed.speeds import speeds
    from trans4init.reports.speed.table import print_speeds

    print_speeds(speeds(session.records))
    terminalreporter.write_line(f"results  {session.folder}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Release the lock, so that the next benchmark can begin."""
    session.config.stash[_SESSION].release()


class Session:
    """Carries out one benchmark command: measures each case once, and writes its records as soon as it is measured."""

    def __init__(self, config: pytest.Config) -> None:
        quick, minutes = config.getoption("quick"), config.getoption("minutes")
        self.plan = QUICK if quick else FULL
        self.folder: Path = config.getoption("out") / "results"
        self.records: list[RunRecord] = []
        self.rates: dict[str, float] = {}
        """The machine's own, "matmul" in FLOP/s and "copy" in bytes/s."""
        minutes = (QUICK_MINUTES if quick else FULL_MINUTES) if minutes is None else minutes
        self._end = time.monotonic() + 60 * minutes
        self._id = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._measured: dict[tuple[str, str], Measured] = {}
        self._environment: Environment | None = None
        self._lock = FileLock(LOCK, mode=0o666)  # another user of the machine may be the next
        self.left_out: dict[str, None] = {}
        """Cases that weren't begun because the minutes were over, in order (a dict for its unique keys)."""

    def measured_case(self, item: pytest.Item) -> tuple[Measured, dict[str, Any]]:
        """Return the measurement of a test's case and its extra information; measure now if this is its first test."""
        suite, case = _parts(item)[:2]
        if not self._lock.is_locked:
            self._take_lock()
        if not self.rates:
            self._measure_rates()
        key = (_real_path(item.path), str(case))
        if key not in self._measured:
            if time.monotonic() > self._end:
                self.left_out[f"{suite.name}: {case}"] = None
                pytest.skip("left out: the minutes are over")
            names = [
                _parts(other)[2]
                for other in item.session.items
                if (_real_path(other.path), str(_parts(other)[1])) == key
            ]
            self._measured[key] = self._keep(suite, _measure(item.path, suite, case, names, self.plan))
        measured = self._measured[key]
        return measured, facts(suite.name, measured, _parts(item)[2], self.rates)

    def checked(self, item: pytest.Item) -> tuple[Measured, dict[str, Any]]:
        """Run a test's implementation once, and check its result. Others may run meanwhile, and nothing is kept."""
        suite, case, name = _parts(item)
        measured = _measure(item.path, suite, case, [name], CHECK)
        return measured, facts(suite.name, measured, name, {})

    def release(self) -> None:
        """Release the lock, so that the next benchmark can begin."""
        self._lock.release()

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            pytest.exit("another benchmark is measuring on this machine; wait until it ends.", returncode=1)
        except OSError as error:
            pytest.exit(f"the lock {LOCK} can't be written: {error.strerror}.", returncode=1)

    def _measure_rates(self) -> None:
        suite = load_suite(MACHINE)
        for case in suite.cases(quick=False):
            names = [way.name for way in suite.implementations(case)]
            measured = self._keep(suite, _measure(MACHINE, suite, case, names, self.plan))
            self._measured[_real_path(MACHINE), str(case)] = measured
            samples = sorted(measured.timings[suite.baseline].samples.values())
            amount = case.flop or case.bytes  # matmul has both, and its operations take the time
            if not samples or not amount:
                pytest.exit(f"the machine's own {case} could not be measured.", returncode=1)
            self.rates[case.operator] = amount / samples[len(samples) // 2]

    def _keep(self, suite: Any, measured: Measured) -> Measured:
        """Write the records of a measured case to disk at once, so that a later crash doesn't lose them."""
        self._environment = self._environment or capture(_accelerator())
        case_records = list(records(suite, measured, self.rates, self._environment, self._id))
        try:
            write_together(case_records, self.folder / f"{case_records[0].run_id}.parquet")
        except OSError as error:
            pytest.exit(f"{self.folder} can't be written to: {error.strerror}.", returncode=1)
        self.records += case_records
        return measured


_SESSION: pytest.StashKey[Session] = pytest.StashKey()


def _measure(file: Path, suite: Suite, case: Case, names: Sequence[str], plan: Plan) -> Measured:
    """Measure a case in a worker; end the session where none can be started."""
    try:
        return measure_case(file, suite, case, names, plan)
    except InputError as error:
        pytest.exit(str(error), returncode=1)


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _real_path(file: Path) -> str:
    """Return the path of a file with links resolved."""
    return str(file.resolve())


def _is_cold(item: pytest.Item) -> bool:
    return bool(getattr(_parts(item)[1], "cold", False))


def _parts(item: Any) -> tuple[Any, Any, str]:
    """Return suite, case and implementation of a test; of any other test None, None and an empty string.

    The test's parameters are names, as tools that read pytest-benchmark's files want them.
    """
    suite = getattr(item.module, "SUITE", None)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    case = None if suite is None else _cases(suite).get(parameters.get("case", ""))
    return suite, case, parameters.get("implementation", "")


@cache
def _cases(suite: Suite) -> dict[str, Case]:
    """Return all cases of a suite by name."""
    return {str(case): case for case in suite.cases(quick=False)}
