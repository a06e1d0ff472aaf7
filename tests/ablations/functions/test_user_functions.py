"""A user's own function: in any file, used by name in fits, models and commands."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

from trans4init.ablations import registry
from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit, load_fitted
from trans4init.ablations.functions import get_function, list_functions
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.transformer import Transformer, TransformerConfig

SOURCE = '''
from trans4init.ablations.functions.activation import Activation
from trans4init.ablations.functions.base import FUNCTIONS


@FUNCTIONS.register
class {kind}(Activation):
    """max(x, 0) squared."""

    name = "{name}"
    source = "So et al. 2021, Primer, section 4"
    tails = "0 to the left, x squared to the right"

    def analytic(self, inputs, **shape):
        return inputs.clamp_min(0).square()
'''


def written(folder, name, kind="Mine"):
    path = folder / f"{name.replace('-', '_')}.py"
    path.write_text(SOURCE.format(name=name, kind=kind))
    return f"{path}:{name}"


def test_a_function_in_a_file_is_fitted_and_put_into_a_model(tmp_path):
    located = written(tmp_path, "squared-relu-a")
    fitted = fit(located, "spline")
    assert fitted.fidelity.regions[0].max_error < 1e-2
    assert fitted.fidelity.regions[0].derivative_max_error < 1
    config = TransformerConfig(layers=1, width=8, heads=2, vocabulary=11, context=8, activation=located)
    record = apply_arm(Transformer(config), "activation", "learned-frozen", fitted)
    assert 0 < record.output_difference_max < 0.1
    assert "squared-relu-a" not in list_functions()  # it has a name with its file alone
    assert load_fitted(fitted.save(tmp_path / "kept")).function.name == "squared-relu-a"


def test_a_file_is_found_again_by_a_process_that_never_saw_it(tmp_path):
    """A study's worker, or a later session, finds it by the checkpoint alone."""
    folder = fit(written(tmp_path, "squared-relu-b", "Other"), "piecewise-linear").save(tmp_path / "kept")
    load = f"load_fitted({str(folder)!r}, allow_code=True)"
    code = f"from trans4init.ablations.fit import load_fitted; print({load}.function.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "squared-relu-b", done.stderr


def test_what_a_distribution_announces_is_there(tmp_path, monkeypatch):
    (tmp_path / "announced_function.py").write_text(SOURCE.format(name="squared-relu-c", kind="Announced"))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mine", "announced_function", "trans4init.functions")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    assert get_function("squared-relu-c").analytic(torch.tensor(3.0)).item() == 9


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.py:mine", "there is no file"),
        ("{file}:squared-relu-e", "did you mean 'squared-relu-d'"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, name, sentence):
    file = tmp_path / "a_file.py"
    file.write_text(SOURCE.format(name="squared-relu-d", kind="Last") if "{file}" in name else "")
    with pytest.raises(InputError, match=sentence):
        get_function(name.format(file=file))


def test_a_study_s_functions_and_nets_are_found_beside_its_file(tiny_study, tmp_path, monkeypatch):
    """The current folder doesn't matter."""
    written(tmp_path, "squared-relu-f", "InStudy")
    study = tiny_study(
        ('function = "sinusoidal"', 'function = "squared_relu_f.py:squared-relu-f"'),
        ('"learned-table"\narm = "free-table"', '"squared_relu_f.py:squared-relu-f"\narm = "none"'),
        (', "free-table"]', "]"),
        ("width = 8", 'width = 8\nsoftmax = "./elsewhere.py:mine"'),
    )
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    spec = load_study(str(study))
    assert spec.function == spec.baselines[0].function == "../squared_relu_f.py:squared-relu-f"
    assert spec.model.softmax == "../elsewhere.py:mine"
    assert spec.nets[0].name == "fourier-mlp"
    assert get_function(spec.function).name == "squared-relu-f"
    monkeypatch.chdir(tmp_path)
    assert load_study("tiny.toml").function == "squared_relu_f.py:squared-relu-f"
