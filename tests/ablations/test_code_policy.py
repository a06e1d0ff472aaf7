"""Whose code is run: a study's file may name code beside it or below; data may name none that wasn't run."""

import shutil
import subprocess
import sys
import textwrap

import pytest

from trans4init.ablations.code_policy import code_policy
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit, load_fitted
from trans4init.ablations.functions import get_function
from trans4init.ablations.study.grid import load_study


@pytest.fixture
def code(tmp_path, user_function):
    """Writes the code to a place, and returns its path."""
    return lambda *place: user_function(tmp_path.joinpath(*place))


def study_in(folder, named, tiny_study, tmp_path):
    path = tiny_study(("heads = 2", f'heads = 2\nactivation = "{named}:mine"'))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "text.txt", folder)
    return shutil.move(path, folder / "tiny.toml")


@pytest.mark.parametrize("named", ["mine.py", "below/mine.py", "./below/../mine.py"])
def test_code_beside_a_study_or_below_it_is_run_and_told(tmp_path, tiny_study, code, named):
    said = []
    path = study_in(tmp_path / "study", named, tiny_study, tmp_path)
    file = code("study", named)
    with code_policy(allowed=False, say=said.append):
        get_function(load_study(str(path)).model.activation)
    assert file.with_suffix(".ran").exists()
    [line] = said
    assert line.startswith(f"{path} runs the code of ")
    assert line.endswith("mine.py.")


@pytest.mark.parametrize("how", ["../mine.py", "absolute", "link"])
def test_code_elsewhere_needs_to_be_allowed(tmp_path, tiny_study, code, how):
    file = code("mine.py")
    named = {"absolute": str(file), "link": "linked.py"}.get(how, how)
    path = study_in(tmp_path / "study", named, tiny_study, tmp_path)
    if how == "link":
        (tmp_path / "study" / "linked.py").symlink_to(file)
    with pytest.raises(InputError, match=r"neither beside it nor below: read it, and run it with --allow-code"):
        load_study(str(path))
    assert not file.with_suffix(".ran").exists()
    with code_policy(allowed=True):
        get_function(load_study(str(path)).model.activation)
    assert file.with_suffix(".ran").exists() or how == "link"


def test_the_command_says_whose_code_it_runs_first(tmp_path, tiny_study, code, run_command):
    code("mine.py")
    path = study_in(tmp_path / "study", "../mine.py", tiny_study, tmp_path)
    returned, output = run_command("run", path, "--dry-run")
    assert returned == 2
    assert "--allow-code" in output
    returned, output = run_command("run", path, "--dry-run", "--allow-code")
    assert returned == 0, output
    assert output.splitlines()[0] == "study/tiny.toml runs the code of mine.py."


def test_a_fitted_net_that_names_code_runs_none_of_it(tmp_path, code):
    file = code("mine.py")
    fit(f"{file}:mine", "mlp-relu", seed=0, steps=5).save(tmp_path / "net")
    load_fitted(tmp_path / "net")  # here the code was run already
    file.with_suffix(".ran").unlink()
    script = """
        from trans4init.ablations.code_policy import code_policy
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.fit import load_fitted
        try:
            load_fitted("net")
        except InputError as error:
            print(error)
        with code_policy(allowed=True):
            load_fitted("net")
    """
    words = [sys.executable, "-P", "-c", textwrap.dedent(script)]
    output = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "net names the code" in output
    assert "--allow-code" in output
