"""The shipped suites: what each declares, and the command that measures them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trans4init.bench.suites_here import suite_files
from trans4init.bench.worker import load_suite
from trans4init.reports.store import load_results

ROOT = Path(__file__).resolve().parent.parent.parent
WITHOUT_FLOOR = {"startup"}
"""Suites of commands, whose time is not that of operations or of memory."""


@pytest.fixture
def bench(tmp_path):
    """Runs `trans4init bench …` in a folder and with a lock of its own: exit code and everything it printed."""

    def run(*words, **environment):
        import os

        done = subprocess.run(
            [sys.executable, "-P", "-m", "trans4init.bench.cli", *words],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("name", suite_files())
def test_a_suite_is_declared_whole(name):
    suite = load_suite(suite_files()[name])
    cases = suite.cases(quick=False)
    assert suite.name == name
    assert len({str(case) for case in cases}) == len(cases)
    assert suite.cases(quick=True)
    for case in cases:
        assert bool(case.flop and case.bytes) == (name not in WITHOUT_FLOOR) or case.operator == "copy"
        names = [one.name for one in suite.implementations(case)]
        assert suite.baseline not in names[1:]
        assert all(amount is None or amount > 0 for amount in (case.flop, case.bytes, case.tokens))


def test_the_description_names_every_suite():
    described = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "bench" / "README.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(suite_files())


def test_the_command_measures_and_leaves_rows_a_page_and_runs_in_mlflow(bench, tmp_path):
    code, output = bench("--suite", "machine", "--quick")
    assert code == 0, output
    assert "matmul 1024×1024 float32" in output or "bfloat16" in output
    assert {record.cell.function for record in load_results(tmp_path / "runs/bench/results").records} == {
        "matmul",
        "copy",
    }
    assert (tmp_path / "runs" / "bench" / "bench.html").exists()
    assert (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "atention"], "unknown suite 'atention'; did you mean 'attention'?"),
        (["compre", "a"], "unknown command 'compre'; did you mean 'compare'?"),
        (["--quik"], "did you mean --quick?"),
        (["estimate", "positional-txt"], "unknown study 'positional-txt'; did you mean 'positional-text'?"),
    ],
)
def test_a_mistake_is_one_sentence(bench, words, said):
    code, output = bench(*words)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1
