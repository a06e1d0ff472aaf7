"""`run_python` runs a command to its end and names a package that it lacks."""

import pytest

from trans4init.bench.suite import MissingError
from trans4init.bench.suites.processes import run_python


def test_what_a_command_prints_and_how_it_ends_is_told(tmp_path):
    done = run_python(["-c", "import os; print(os.getcwd()); raise SystemExit(3)"], tmp_path)
    assert (done.returncode, done.stdout.strip()) == (3, str(tmp_path.resolve()))


def test_a_package_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(MissingError, match="needs not_there"):
        run_python(["-c", "import not_there.inner"], tmp_path)


def test_a_module_of_ours_that_is_gone_is_no_missing_package(tmp_path):
    done = run_python(["-c", "import trans4init.bench.gone"], tmp_path)
    assert done.returncode == 1
    assert "No module named 'trans4init.bench.gone'" in done.stderr


def test_a_command_that_did_without_a_package_is_done(tmp_path):
    says = "import sys; print(\"ModuleNotFoundError: No module named 'not_there'\", file=sys.stderr)"
    assert run_python(["-c", says], tmp_path).returncode == 0
