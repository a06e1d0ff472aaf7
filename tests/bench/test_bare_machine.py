"""Suites are measured where only the packages that measuring needs can be imported; all others are blocked."""

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
"""Suites of whole commands, which need all of the project's packages."""

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
    for way in suite.implementations(case):
        if case.quick and "compile" not in way.name:  # compiling takes long
            try:
                call = way.prepare(inputs)
            except MissingError:
                continue
            assert suite.check(inputs, way.name, call()) == "", (case, way.name)
"""


def with_dependencies(names, closure):
    """Add distributions, and all that they depend on here, to the set `closure`, and return it."""
    for name in map(canonicalize_name, names):
        if name not in closure:
            try:
                requirements = [Requirement(line) for line in requires(name) or []]
            except PackageNotFoundError:  # needed on another system only
                continue
            closure.add(name)
            here = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
            with_dependencies([each.name for each in here], closure)
    return closure


@pytest.fixture(scope="module")
def blocked():
    """The import names of all packages that measuring doesn't need."""
    needed = with_dependencies(INSTALLED, {"trans4init"})
    # In a process of its own: once setuptools is imported, its vendored packages are on the path here.
    tell = "import importlib.metadata, json; print(json.dumps(importlib.metadata.packages_distributions()))"
    owners_of = json.loads(subprocess.check_output([sys.executable, "-P", "-c", tell]))
    names = [name for name, owners in owners_of.items() if not needed.intersection(map(canonicalize_name, owners))]
    assert {"pydantic", "safetensors", "tokenizers", "num2words", "scipy", "sklearn", "rich", "pooch"} <= set(names)
    return names


@pytest.fixture
def run_bare(blocked, tmp_path):
    """Runs a script with the other packages blocked; returns the exit code and everything it printed."""

    def run(script, *words):
        file = tmp_path / "bare.py"
        file.write_text(BLOCK.format(blocked=blocked) + script)
        # pytest-xdist sets these in its processes, and pytest-benchmark then doesn't measure.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        variables = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            [sys.executable, "-P", str(file), *map(str, words)],
            cwd=ROOT,
            env=clean | variables,
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
    code, output = run_bare(MEASURE, *plugins, "--quick", "--minutes", 60, "--out", tmp_path / "out", *tests)
    assert code == 0, output
    assert "2 passed" in output
    records = load_results(tmp_path / "out" / "results").records
    assert {record.task: record.status for record in records} == dict.fromkeys(["machine", *cases], "ok")
