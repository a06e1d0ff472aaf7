"""The project itself: its packages, its floors, what an installation holds."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("ablations", "bench", "kernels", "reports")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRIES = {  # what a person or another process starts by name: nothing imports it
    "ablations.study.calibration.__main__",
    "ablations.study.calibration.permuted",
    "ablations.study.preload",
    "bench.cli",
    "bench.pytest_process",
    "bench.tuning_speed",
    "kernels.attention.tune",
    "reports.documents.fill",
}
LOADED = ("aot_table.py", "kernel.py", "backward_kernel.py")  # started by name, or loaded by kernels/interpretation.py
REGISTERED = ("ablations.functions.", "ablations.nets.", "ablations.tasks.")  # rooms whose files are all imported


def load_script(name):
    """Load a script that lies beside this file; it belongs to no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


HOUSE, MUTANTS = load_script("house"), load_script("mutants")


@pytest.fixture(scope="module")
def house():
    return HOUSE.read_house(ROOT)


def sources(floor):
    return sorted(path for path in (ROOT / floor).rglob("*.py") if "__pycache__" not in path.parts)


def test_the_packages_list_is_the_folders():
    """Every folder with code or data in it is a package, and every package is such a folder."""
    kept = {".py", ".toml", ".j2", ".typed"}
    folders = {
        path.parent
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*")
        if path.suffix in kept or path.name == "py.typed"
    }
    found = {"trans4init." + ".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert found == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_the_floors_are_namespace_packages_without_init():
    assert PYPROJECT["tool"]["setuptools"]["package-dir"] == {f"trans4init.{floor}": floor for floor in FLOORS}
    for floor in FLOORS:
        assert not (ROOT / floor / "__init__.py").exists()
        assert (ROOT / floor / "py.typed").exists()


def test_imports_go_down(house):
    assert house.upward() == []


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_is_imported_below_trans4init_alone(floor):
    for path in sources(floor):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.partition(".")[0] not in FLOORS, f"{path} imports {name} without trans4init"


def test_no_imports_go_round(house):
    assert HOUSE.circles(house.imports) == []
    assert HOUSE.circles(house.arrows()) == []


def test_circles_are_found():
    assert HOUSE.circles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == [["a", "b", "c"]]
    assert HOUSE.circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_every_file_is_imported_or_started(house):
    """A module that nothing imports is started by name, measured by pytest, or imported by a registry."""
    unused = {
        module
        for module in house.unused()
        if house.files[module].name not in ("__init__.py", "conftest.py", *LOADED)
        and not house.files[module].name.startswith("bench_")
        and not module.startswith(REGISTERED)
    }
    assert unused <= ENTRIES, unused - ENTRIES


def test_every_room_says_what_it_is_for(house):
    """A folder with modules is a package whose docstring is about it: one sentence, and perhaps one more."""
    for folder in {ROOT / path.parent for path in house.files.values()} - {ROOT / floor for floor in FLOORS}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, folder
        assert len(docstring.splitlines()) == 1, folder


def test_tests_mirror_the_rooms(house):
    """A folder of tests is a folder of the house, or one of the three that cut across it."""
    rooms = {path.parent for path in house.files.values()}
    across = {Path("faults"), Path("gpu"), Path("pages")}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders - rooms - across <= {Path()}


def test_reports_and_their_command_import_no_torch():
    for path in sources("reports"):
        assert not re.search(r"^\s*(import|from) torch\b", path.read_text(), re.MULTILINE), path


def test_every_module_says_what_it_is_for():
    for floor in FLOORS:
        for path in sources(floor):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_bare_folder_names_are_not_importable(tmp_path):
    """A bare `kernels` would be taken for the Hugging Face package of that name."""
    script = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    done = subprocess.run(
        [sys.executable, "-c", script, *FLOORS], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_wheel_holds_every_source_and_data_file_and_works(tmp_path):
    """Built from a copy, and used where the sources are not: the command lists its shipped studies."""
    copy, wheels, site = tmp_path / "copy", tmp_path / "wheels", tmp_path / "site"
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, copy / floor, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-docs"):
        shutil.copy(ROOT / name, copy)
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(wheels), str(copy)]
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True, text=True)
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extractall(site)
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*"):
            if path.suffix in {".py", ".toml", ".j2", ".typed"} and "__pycache__" not in path.parts:
                assert f"trans4init/{path.relative_to(ROOT)}" in held
    script = """
import sys
site = sys.argv[1]
sys.path.insert(0, site)
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import trans4init.ablations.cli as cli
assert cli.__file__.startswith(site), cli.__file__
cli.main(["ls", "studies"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(site)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "positional-text-full" in done.stdout, done.stderr


def test_dependencies_are_bounded_on_both_sides_and_pinned():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    groups = PYPROJECT["dependency-groups"].values()
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    for wanted in [*PYPROJECT["project"]["dependencies"], *(word for words in (*groups, *extras) for word in words)]:
        requirement = wanted.split(";")[0].strip()
        name = re.match(r"[A-Za-z0-9_-]+", requirement)[0].lower()
        assert ">=" in requirement, requirement
        assert "<" in requirement, requirement
        assert name in pinned, name


def test_nothing_commits_runs_or_names_a_machine():
    assert "runs/" in (ROOT / ".gitignore").read_text().splitlines()
    assert PYPROJECT["project"]["license-files"] == ["LICENSE", "LICENSE-docs"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "Creative Commons Attribution 4.0 International" in (ROOT / "LICENSE-docs").read_text()


def test_ci_runs_the_tests_by_the_readmes_words():
    line = "pip install nox && nox -s tests"
    assert line in (ROOT / ".ci" / "run").read_text()
    assert line in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("mutant", MUTANTS.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_replaces_text_that_is_there_once(mutant):
    """Whoever changes the line that a mutant replaces changes the mutant too."""
    assert not MUTANTS.stale(mutant)


def test_mutants_have_different_names():
    names = [mutant.name for mutant in MUTANTS.MUTANTS]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
