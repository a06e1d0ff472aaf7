"""The suites where nothing is installed but what measuring takes; the packages are there, but can't be imported."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trans4init.bench.suite import suite_files
from trans4init.reports.records.store import load_results

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALLED = ("torch", "triton", "pandas", "pyarrow", "pytest", "pytest-benchmark")
NEED_MORE = {"startup", "studies"}
"""Suites of whole commands, which need all that the commands do."""

BLOCK = "import sys\n\nsys.modules.update(dict.fromkeys({blocked}))\n"
MEASURE = """
if __name__ == "__main__":  # the workers that measure run this file too, for the line above
    import pytest

    sys.exit(pytest.main(sys.argv[1:]))
"""
TRY = """
from pathlib import Path

from trans4init.bench.suite import MissingError
from trans4init.bench.measuring.worker import load_suite

suite = load_suite(Path(sys.argv[1]))
for case in suite.cases(quick=False):
    inputs = suite.inputs(case)
    for one in suite.implementations(case):
        if case.quick and "compile" not in one.name:  # compiling takes long
            try:
                call = one.prepare(inputs)
            except MissingError:
                continue
            assert suite.check(inputs, one.name, call()) == "", (case, one.name)
"""


def needed(names, found):
    """The distributions with all that they depend on here."""
    for name in map(canonicalize_name, names):
        if name not in found:
            try:
                wanted = [Requirement(words) for words in requires(name) or []]
            except PackageNotFoundError:  # of another machine
                continue
            found.add(name)
            needed([one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})], found)
    return found


@pytest.fixture(scope="module")
def blocked():
    """What is installed here and would not be there, as it is imported."""
    there = needed(INSTALLED, {"trans4init"})
    # In a process of its own: once imported, setuptools has its own copies of packages on the path here.
    tell = "import importlib.metadata, json; print(json.dumps(importlib.metadata.packages_distributions()))"
    owned = json.loads(subprocess.check_output([sys.executable, "-P", "-c", tell])).items()
    found = [name for name, owners in owned if not there.intersection(map(canonicalize_name, owners))]
    assert {"pydantic", "safetensors", "tokenizers", "num2words", "scipy", "sklearn", "rich", "pooch"} <= set(found)
    return found


@pytest.fixture
def run_bare(blocked, tmp_path):
    """Runs a script with nothing else to import: exit code and everything it printed."""

    def run(script, *words):
        file = tmp_path / "bare.py"
        file.write_text(BLOCK.format(blocked=blocked) + script)
        # A process of a parallel test run tells pytest-benchmark by these not to measure.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        own = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            [sys.executable, "-P", str(file), *map(str, words)],
            cwd=ROOT,
            env=clean | own,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("name", sorted(set(suite_files()) - NEED_MORE))
def test_a_suite_can_be_measured(name, run_bare):
    code, output = run_bare(TRY, suite_files()[name])
    assert code == 0, output


def test_the_bare_command_measures(run_bare, tmp_path):
    cases = {
        "functions": "gelu 262144 values-closed form",
        "decoding": "decoding with sinusoidal nano, batch 8, 64 new tokens-cache",
    }
    tests = [f"{suite_files()[name]}::test_implementation[{case}]" for name, case in cases.items()]
    plugins = ["-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider"]
    code, output = run_bare(MEASURE, *plugins, "--quick", "--out", tmp_path / "out", *tests)
    assert code == 0, output
    assert "2 passed" in output
    records = load_results(tmp_path / "out" / "results").records
    assert {record.task: record.status for record in records} == dict.fromkeys(["machine", *cases], "ok")
