"""What tests share: a tiny text, a tiny study that takes seconds, and records to write."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
import pytest

from trans4init.ablations.slots.arms import get_arm
from trans4init.reports.machine import Environment
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord, StudyCard

# No test may fail because a machine is slow or busy.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
ENVIRONMENT = Environment("3.11.7", "Linux x86_64", "a processor", 2, 8.0, 2000.0, "", "abc", {"torch": "2.13.0"})

WORDS = ["net", "slot", "arm", "trial", "study", "function", "verdict"]

TINY_STUDY = """
name = "tiny"
question = "Does it run?"
function = "sinusoidal"
arms = ["analytic", "learned-frozen", "learned-fine-tuned", "free-table"]

[[nets]]
name = "fourier-mlp"
hidden = [8]
frequencies = 4

[[baselines]]
function = "learned-table"
arm = "free-table"

[fit]
steps = 20

[task]
source = "text.txt"
evaluation_tokens = 64

[model]
layers = 1
width = 8
heads = 2
context = 8

[training]
steps = 6
batch = 2
learning_rate = 1e-2
warmup_steps = 2
evaluations = 2
log_every = 2

[tuning]
seeds_per_trial = 1
trials = 2

[tuning.space]
learning_rate = { low = 1e-3, high = 1e-1, log = true }

[evaluation]
seeds = 2
margin = 0.05

[throughput]
rounds = 2
steps_per_round = 1
"""


LONG = ("tests/test_readme.py::test_the_commands_run", "tests/faults/")
"""How the names of those tests begin that take minutes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that at the end no process works on alone; skip those of `nox -s cluster`."""
    if "cluster" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("cluster"):
                item.add_marker(pytest.mark.skip(reason="starts a server: runs with -m cluster"))
    items.sort(key=lambda item: next((place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), 9))


def write_tiny_study(folder: Path, *changes: tuple[str, str]) -> Path:
    """The tiny study and its text, with pieces of the study's words replaced; the study's file."""
    (folder / "text.txt").write_text(" ".join(random.Random(0).choices(WORDS, k=1000)))
    content = TINY_STUDY
    for old, new in changes:
        assert content.count(old) == 1, f"{old!r} is not once in the tiny study"
        content = content.replace(old, new)
    path = folder / "tiny.toml"
    path.write_text(content)
    return path


def start_command(folder: Path, *words: object, **environment: str) -> subprocess.Popen[str]:
    """`trans4init …` in a folder, as a user's shell would start it: in a process group of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRANS4INIT"))}
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("trans4init")), *map(str, words)],
        cwd=folder,
        env=clean | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, as at a terminal: a shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A text of a thousand words, always the same."""
    write_tiny_study(tmp_path)
    return tmp_path / "text.txt"


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """Writes the tiny study to a folder, with pieces of its text replaced; returns its file. For wider fixtures."""
    return write_tiny_study


@pytest.fixture(scope="session")
def start_in() -> Callable[..., subprocess.Popen[str]]:
    """Starts `trans4init …` in a folder, for fixtures that live longer than a test."""
    return start_command


@pytest.fixture
def tiny_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny study, with pieces of its text replaced; its file."""
    return lambda *changes: write_tiny_study(tmp_path, *changes)


@dataclass(frozen=True)
class FinishedStudy:
    """Is a study that was run to its end by the command."""

    folder: Path
    """Where the command was run; the study is in runs/tiny below it."""
    output: str
    code: int


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """The tiny study, run once for all tests that only look: copy it to change it."""
    folder = tmp_path_factory.mktemp("finished")
    write_tiny_study(folder)
    process = start_command(folder, "run", "tiny.toml")
    output, _ = process.communicate(timeout=900)
    return FinishedStudy(folder, output, process.returncode)


@pytest.fixture
def study_copy(finished_study: FinishedStudy, tmp_path: Path) -> Path:
    """A copy of the finished study that a test may break; the folder to run commands in."""
    shutil.copytree(finished_study.folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


USER_FUNCTION = '''
from pathlib import Path
from trans4init.ablations.functions.activation import Activation
from trans4init.ablations.functions.base import FUNCTIONS

Path(__file__).with_suffix(".ran").touch()


@FUNCTIONS.register
class Mine(Activation):
    """max(x, 0) squared."""

    name = "mine"
    source = "a test"
    tails = "0 to the left, x squared to the right"

    def analytic(self, inputs, **shape):
        return inputs.clamp_min(0).square()
'''


@pytest.fixture
def user_function() -> Callable[[Path], Path]:
    """Writes a file of code of a user's, whose function `mine` is; where it is run, a file `.ran` is beside it."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(USER_FUNCTION)
        return path

    return write


@pytest.fixture
def card() -> StudyCard:
    """A study of one comparison."""
    return StudyCard(
        name="s",
        question="Is it?",
        metric="validation_loss",
        margin=0.05,
        reference=ANALYTIC,
        cells=(ANALYTIC, FROZEN),
        seeds=10,
        command="trans4init run s",
        setting="a task; a model",
        arms=tuple(get_arm(cell.arm).description() for cell in (ANALYTIC, FROZEN)),
    )


@pytest.fixture
def make_record(card: StudyCard) -> Callable[..., RunRecord]:
    """Makes a run of the study, with what a test wants to be special."""

    def make(**special: object) -> RunRecord:
        seed = special.get("seed", 0)
        cell = special.get("cell", ANALYTIC)
        value = special.pop("value", 2.0)
        plain = {
            "run_id": f"evaluate-{cell}-{seed}".replace(" · ", "-"),
            "study": "s",
            "spec_hash": "h",
            "cell": cell,
            "task": "text",
            "model": "decoder",
            "trial": 0,
            "seed": seed,
            "phase": "evaluate",
            "status": "ok",
            "device": "cpu",
            "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) + timedelta(seconds=int(str(seed))),
            "measurements": (
                Measurement(metrics.VALIDATION_LOSS, 3.0, 1),
                Measurement(metrics.VALIDATION_LOSS, value, 2),
            ),
            "environment": ENVIRONMENT,
            "card": card,
        }
        return RunRecord(**plain | special)  # type: ignore[arg-type]

    return make


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `trans4init …` in a folder of the test's, as a user's shell would: in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **environment: str) -> subprocess.Popen[str]:
        started.append(start_command(tmp_path, *words, **environment))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def run_command(command: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str]]:
    """Runs `trans4init …` to its end: exit code and everything it printed."""

    def run(*words: object, **environment: str) -> tuple[int, str]:
        process = command(*words, **environment)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    return run
