"""Two sets of measurements side by side, by the command."""

import dataclasses
import subprocess
import sys

import pytest

from trans4init.bench.compare import timings_of
from trans4init.reports import metrics
from trans4init.reports.schema import CellKey, Measurement
from trans4init.reports.speed import BASELINE_NOTE, STUDY
from trans4init.reports.store import write_run


@pytest.fixture
def write_side(make_record, tmp_path):
    """Writes a benchmark's results of so many processes; its folder's name."""

    def write(name, milliseconds, *, processes=5, processor="a processor", operator="twice"):
        for process in range(processes):
            record = make_record(
                run_id=f"bench-{process}",
                study=STUDY,
                spec_hash=f"process {process}",
                cell=CellKey(operator, "triton"),
                task="doubling",
                model="length 64",
                phase="throughput",
                card=None,
                notes={BASELINE_NOTE: "triton"},
                measurements=tuple(
                    Measurement(metrics.LATENCY, milliseconds * (1 + 0.001 * process), round_) for round_ in range(4)
                ),
            )
            environment = dataclasses.replace(record.environment, processor=processor)
            write_run(dataclasses.replace(record, environment=environment), tmp_path / name / "results")
        return name

    return write


@pytest.fixture
def compare(tmp_path):
    """Runs `trans4init bench compare …`: exit code and everything it printed."""

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trans4init.bench.cli", "compare", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


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
    assert "old was measured on a processor (2 cores), new on another processor (2 cores)" in output
    assert output.count("\n") == 1
    code, output = compare(*sides, "--any-machine")
    assert code == 1
    assert "slower" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("old", "nowhere"), "compare two sets of results, or two states of the source, not one with the other."),
        (("nowhere", "elsewhere"), "'nowhere' is no folder of results or of sources, and no revision"),
        (("old", "other"), "old and other have no measurement in common."),
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


def test_every_process_counts_once(write_side, tmp_path):
    from trans4init.reports.store import load_results

    write_side("old", 10.0, processes=3)
    [processes] = timings_of(load_results(tmp_path / "old" / "results").records).values()
    assert len(processes) == 3
    assert all(len(times) == 4 for times in processes)
