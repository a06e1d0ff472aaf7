"""`trans4init bench compare` on two sets of results and on two states of the source."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trans4init.bench.comparing import sides
from trans4init.bench.comparing.sides import timings_of
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import load_results, write_run
from trans4init.reports.speed.speeds import BASELINE_NOTE, STUDY, THREADS_NOTE

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def write_side(make_record, tmp_path):
    """Writes the results of a benchmark in a number of processes, and returns their folder's name."""

    def write(
        name,
        milliseconds,
        *,
        processes=6,
        processor="a processor",
        operator="twice",
        error="",
        interrupted=(),
        torch="2.13",
        threads="2",
    ):
        for process in range(processes):
            record = make_record(
                run_id=f"bench-{operator}-{process}",
                study=STUDY,
                spec_hash=f"process {process}",
                cell=CellKey(operator, "triton"),
                task="doubling",
                model="length 64",
                phase="throughput",
                card=None,
                notes={BASELINE_NOTE: "triton", THREADS_NOTE: threads},
                status="failed" if error else "ok",
                error=error,
                measurements=tuple(
                    measurement
                    for round_ in range(4)
                    for measurement in (
                        Measurement(metrics.LATENCY, None if error else milliseconds * (1 + 0.001 * process), round_),
                        Measurement(metrics.INTERRUPTED, float(round_ in interrupted), round_),
                    )
                ),
            )
            environment = dataclasses.replace(record.environment, processor=processor, versions={"torch": torch})
            write_run(dataclasses.replace(record, environment=environment), tmp_path / name / "results")
        return name

    return write


@pytest.fixture
def compare(run_bench):
    """Runs `trans4init bench compare …`; returns the exit code and everything it printed."""
    return lambda *words, **options: run_bench("compare", *words, **options)


@pytest.fixture
def project(tmp_path):
    """Makes a git repository of the project's sources, whose last commit copies eight times instead of once."""

    def git(*words):
        names = ["-c", "user.name=test", "-c", "user.email=test@test"]
        subprocess.run(["git", *names, *words], cwd=tmp_path, check=True, capture_output=True)

    for floor in ("ablations", "bench", "kernels", "reports"):
        shutil.copytree(ROOT / floor, tmp_path / floor, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    git("init", "-q")
    git("add", "ablations", "bench", "kernels", "reports", "pyproject.toml", "constraints.txt")
    git("commit", "-q", "-m", "Copy once")
    suite = tmp_path / "bench" / "suites" / "bench_machine.py"
    suite.write_text(suite.read_text().replace("b.copy_(a)", "[b.copy_(a) for _ in range(8)][0]"))
    git("commit", "-q", "-a", "-m", "Copy eight times")


def test_what_became_slower_is_named_and_counted_by_the_exit_code(write_side, compare):
    code, output = compare(write_side("old", 10.0), write_side("new", 11.0))
    assert code == 1
    assert "doubling: twice length 64: triton" in output
    assert "1.100" in output
    assert "slower" in output


def test_the_same_is_no_different(write_side, compare):
    code, output = compare(write_side("old", 10.0), write_side("new", 10.0))
    assert code == 0
    assert "no different" in output


def test_other_machines_are_refused_unless_asked_for(write_side, compare):
    sides = write_side("old", 10.0), write_side("new", 11.0, processor="another processor")
    code, output = compare(*sides)
    assert code == 2
    assert (
        "old was measured on a processor (2 cores) on 2 threads, new on another processor (2 cores) on 2 threads"
        in output
    )
    assert output.count("\n") == 1
    code, output = compare(*sides, "--any-machine")
    assert code == 1
    assert "slower" in output


def test_another_number_of_threads_is_another_machine(write_side, compare):
    code, output = compare(write_side("old", 10.0, threads="1"), write_side("new", 10.0, threads="2"))
    assert code == 2
    assert "old was measured on a processor (2 cores) on 1 threads, new on a processor (2 cores) on 2 threads" in output


def test_what_has_no_time_any_more_is_named(write_side, compare, tmp_path):
    write_side("old", 10.0)
    write_side("old", 10.0, operator="thrice")
    write_side("new", 10.0)
    write_side("new", 10.0, operator="thrice", error="Traceback\nRuntimeError: broken")
    code, output = compare("old", "new")
    assert code == 1
    assert "no time: RuntimeError: broken" in output


def test_what_fails_in_some_processes_is_named_too(write_side, compare):
    write_side("old", 10.0)
    write_side("new", 10.0, processes=8)
    write_side("new", 10.0, processes=1, error="RuntimeError: now and then")
    code, output = compare("old", "new")
    assert code == 1
    assert "no different" in output
    assert "no time: RuntimeError: now and then" in output


def test_what_only_one_side_has_is_said_and_no_fault(write_side, compare):
    write_side("old", 10.0)
    write_side("old", 10.0, operator="thrice")
    code, output = compare("old", write_side("new", 10.0))
    assert code == 0
    assert "Only old has 1 of its measurements, such as doubling: thrice length 64: triton." in output


def test_too_few_processes_and_other_versions_are_said(write_side, compare):
    sides = write_side("old", 10.0, processes=1), write_side("new", 20.0, processes=1, torch="2.14")
    code, output = compare(*sides)
    assert code == 0
    assert "Too few for a word: at least 6 processes have to measure each side." in output
    assert "old was measured with torch 2.13, new with torch 2.14." in output


def test_what_could_not_be_read_is_named(write_side, compare, tmp_path):
    write_side("old", 10.0)
    (tmp_path / "old" / "results" / "torn.parquet").write_bytes(b"PAR1")
    _, output = compare("old", write_side("new", 10.0))
    assert "torn.parquet.corrupt could not be read and was set aside." in output


def test_interrupted_samples_do_not_count(write_side, tmp_path):
    write_side("old", 10.0, interrupted={2})
    [processes] = timings_of(load_results(tmp_path / "old" / "results").records).values()
    assert [len(times) for times in processes] == [3] * 6


def test_revisions_are_measured_in_turn_and_kept(compare, tmp_path, project):
    code, output = compare("HEAD~", "HEAD", "--suite", "machine", "--processes", "2", "--keep", str(tmp_path / "kept"))
    assert code == 0, output
    [copied] = [line for line in output.splitlines() if line.startswith("machine: copy")]
    assert float(copied.split()[-3]) > 2  # 8, were the machine quiet
    assert copied.endswith("too few")
    code, again = compare(str(tmp_path / "kept" / "a"), str(tmp_path / "kept" / "b"))
    assert code == 0
    both = [[line.split()[-3:] for line in text.splitlines() if line.startswith("machine")] for text in (output, again)]
    assert both[0] == both[1] != []
    code, output = compare("HEAD~", "HEAD", "--keep", str(tmp_path / "kept"))
    assert code == 2
    assert "has measurements already; name another folder." in output


def test_sources_are_measured_wherever_one_is(compare):
    code, output = compare(str(ROOT), str(ROOT), "--suite", "machine", "--processes", "1", folder="/")
    assert code == 0, output
    assert "machine: copy" in output


@pytest.mark.parametrize(
    ("changed", "environment_of_its_own"),
    [
        (("pyproject.toml", "[tool.setuptools]", "[tool.other]"), False),
        (("pyproject.toml", '"torch>=', '"torch>2,>='), True),
        (("constraints.txt", "torch==", "torch===="), True),
    ],
)
def test_only_a_source_that_needs_other_packages_gets_an_environment(
    tmp_path, monkeypatch, changed, environment_of_its_own
):
    file, old, new = changed
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    content = (tmp_path / file).read_text()
    assert old in content
    (tmp_path / file).write_text(content.replace(old, new))
    commands = []
    monkeypatch.setattr(
        sides.subprocess, "run", lambda words, **_: commands.append(words) or subprocess.CompletedProcess(words, 0)
    )
    python = sides._python(tmp_path, tmp_path / "room")
    own = tmp_path / "room" / "venv" / "bin" / "python"
    assert python == (own if environment_of_its_own else Path(sys.executable))
    assert any(str(tmp_path) in words for words in commands) == environment_of_its_own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("old", "nowhere"), "compare two sets of results, or two states of the source, not one with the other."),
        (
            ("nowhere", "elsewhere"),
            "'nowhere' is neither a folder of results or sources, nor a revision of the git repository here.",
        ),
        (("old", "other"), "old and other have no measurement in common."),
        (("old", "old", "--processes", "0"), "--processes 0: at least one process of each side has to measure."),
        ((), "A"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(write_side, compare, words, said):
    write_side("old", 10.0)
    write_side("other", 10.0, operator="thrice")
    code, output = compare(*words)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1


def test_five_percent_that_were_planted_in_a_training_step_were_found(compare):
    """The second state waits 1.6 ms in each step of 31 ms, in one of the implementations alone."""
    sides = [str(ROOT / "bench" / "results" / "amd-epyc-2-cores" / "planted-slowdown" / side) for side in "ab"]
    code, output = compare(*sides)
    assert code == 1
    words = re.findall(r"(slower|faster|no different|inconclusive|too few) *$", output, re.MULTILINE)
    assert sorted(words) == ["inconclusive", "inconclusive", "no different", "slower"]
    [slower] = [line for line in output.splitlines() if "slower" in line]
    assert slower.startswith("training-loop: training loop 4×128, context")
    assert "trans4init" in output.splitlines()[output.splitlines().index(slower) + 1]


def test_every_process_counts_once(write_side, tmp_path):
    write_side("old", 10.0, processes=3)
    [processes] = timings_of(load_results(tmp_path / "old" / "results").records).values()
    assert len(processes) == 3
    assert all(len(times) == 4 for times in processes)
