"""Fits: they learn, their fidelity records can be checked, and the same seed gives the same bits."""

import copy
import dataclasses
import hashlib
import json

import pytest
import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import FitDivergedError, fit, load_fitted
from trans4init.ablations.fit.fidelity import measure
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.slots.contents import FoldedTable, NetContent

SMALL = {"domain": Domain(0, 31, integer=True), "width": 16, "size": {"hidden": (32,)}, "steps": 300}


@pytest.fixture(scope="module")
def fitted():
    return fit("sinusoidal", "fourier-mlp", **SMALL)


def bits(fitted):
    return {
        name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in fitted.net.state_dict().items()
    }


def test_a_fit_learns_its_function(fitted):
    inside = fitted.fidelity.regions[0]
    assert inside.fitted
    assert inside.region == "0..31"
    assert inside.rms_error < 0.01
    assert inside.relative_error == pytest.approx(inside.rms_error / 0.5**0.5, rel=0.01)


def test_the_fidelity_record_is_what_one_measures(fitted):
    function, points = get_function("sinusoidal"), torch.arange(32, dtype=torch.float64)
    error = fitted(points) - function.analytic(points, width=16)
    inside, twice, four_times = fitted.fidelity.regions
    assert inside.max_error == pytest.approx(error.abs().max().item())
    assert inside.rms_error == pytest.approx(error.square().mean().sqrt().item())
    beyond = torch.arange(32, 64, dtype=torch.float64)
    error = fitted(beyond) - function.analytic(beyond, width=16)
    assert twice.max_error == pytest.approx(error.abs().max().item())
    assert (twice.region, four_times.region) == ("32..63", "64..127")
    step = 1e-6
    slope = (fitted(points + step) - fitted(points - step)) / (2 * step)
    expected = (slope - function.derivative(points, width=16)).abs().max().item()
    assert inside.derivative_max_error == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(fitted):
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    again = fit("sinusoidal", "fourier-mlp", **SMALL)
    torch.set_num_threads(threads)
    assert bits(again) == bits(fitted)
    assert bits(fit("sinusoidal", "fourier-mlp", seed=1, **SMALL)) != bits(fitted)


def test_solving_the_last_layer_improves_on_adam(fitted):
    """The fit ends with a smaller loss than its last step of Adam reported."""
    losses = []
    again = fit("sinusoidal", "fourier-mlp", on_step=lambda step, loss: losses.append((step, loss)), **SMALL)
    assert losses[0][0] == 0
    adam = [loss for step, loss in losses if step < 300]
    assert [step for step, _ in losses if step < 300][-1] == 299
    assert 300 <= losses[-1][0] < 330  # evaluations of L-BFGS are told as well
    assert again.fidelity.regions[0].rms_error ** 2 < adam[-1]


def test_values_come_in_the_precision_of_the_inputs(fitted):
    assert fitted(torch.arange(4)).dtype == torch.float32
    assert fitted(torch.arange(4.0)).dtype == torch.float32
    assert fitted(torch.arange(4.0, dtype=torch.float64)).dtype == torch.float64
    assert fitted(torch.arange(4)).shape == (4, 16)


def test_a_fitted_net_is_kept_and_found_again(fitted, tmp_path):
    loaded = load_fitted(fitted.save(tmp_path / "kept"))
    assert torch.equal(loaded(torch.arange(64.0)), fitted(torch.arange(64.0)))
    assert (loaded.fidelity, loaded.seed, loaded.shape) == (fitted.fidelity, 0, {"width": 16})
    card = json.loads((tmp_path / "kept" / "card.json").read_text())
    assert card["function"] == "sinusoidal"
    assert card["domain"] == [0, 31, True]


def test_weights_that_are_no_numbers_are_refused(fitted, tmp_path):
    """Though their SHA-256 is the one in the description."""
    broken = dataclasses.replace(fitted, net=copy.deepcopy(fitted.net))
    with torch.no_grad():
        broken.net.weights[0][0, 0] = torch.nan
    with pytest.raises(InputError, match="holds no fitted net: some of its weights are NaN or infinite"):
        load_fitted(broken.save(tmp_path))


@pytest.mark.parametrize("damage", ["no card", "no net", "torn net", "torn card", "changed net"])
def test_a_damaged_checkpoint_is_refused(fitted, tmp_path, damage):
    fitted.save(tmp_path)
    what, name = damage.split()[0], {"card": "card.json", "net": "net.safetensors"}[damage.split()[1]]
    path = tmp_path / name
    if what == "no":
        path.unlink()
    elif what == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    else:
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="holds no fitted net"):
        load_fitted(tmp_path)


def test_folding_gives_a_table_of_the_same_values(fitted):
    folded = fitted.fold()
    assert isinstance(folded, FoldedTable)
    positions = torch.tensor([0, 5, 31])
    torch.testing.assert_close(folded(positions), fitted(positions), rtol=0, atol=1e-5)


def test_an_elementwise_function_is_fitted_on_the_reals():
    fitted = fit("gelu", "mlp-gelu", size={"hidden": (16,)}, steps=400)
    inputs = torch.linspace(-4, 4, 777)
    assert fitted(inputs).shape == inputs.shape
    assert (fitted(inputs) - torch.nn.functional.gelu(inputs)).abs().max() < 0.1
    assert fitted.fidelity.folded_call_microseconds is None
    with pytest.raises(InputError, match="doesn't fold"):
        fitted.fold()


@pytest.mark.alone
def test_costs_are_measured(fitted):
    fidelity = fitted.fidelity
    assert fidelity.parameters == sum(p.numel() for p in fitted.net.parameters())
    assert fidelity.inputs_per_call == 32
    calls = [fidelity]  # on a busy machine one of a few tells
    while len(calls) < 5 and not calls[-1].folded_call_microseconds < calls[-1].call_microseconds:
        content = NetContent(fitted.function, fitted.shape, fitted.net)
        calls.append(measure(content, fitted.net.domain, None, fidelity.fit_seconds))
    assert 0 < calls[-1].folded_call_microseconds < calls[-1].call_microseconds < 1e5
    assert 0 < fidelity.fit_seconds < 60


def test_every_number_of_the_record_becomes_a_row(fitted):
    rows = {m.metric.name: m.value for m in fitted.fidelity.measurements()}
    assert rows["rms_error/0..31"] == fitted.fidelity.regions[0].rms_error
    assert rows["derivative_max_error/64..127"] == fitted.fidelity.regions[2].derivative_max_error
    assert rows["net_parameters"] == fitted.fidelity.parameters
    assert len(rows) == 3 * 10 + len(dataclasses.fields(fitted.fidelity)) - 3  # regions and what is no number apart


def test_a_fit_that_diverges_says_so():
    with pytest.raises(FitDivergedError, match="the loss of the fit is nan"):
        fit("sinusoidal", "siren", **SMALL | {"learning_rate": float("inf"), "steps": 300})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"function": "sinusoidl"}, "did you mean 'sinusoidal'"),
        ({"net": "sirn"}, "did you mean 'siren'"),
        ({"width": 15}, "even width"),
        ({"function": "learned-table"}, "can't be fitted"),
        ({"function": "none"}, "can't be fitted"),
        ({"steps": 0}, "at least 1 step"),
    ],
)
def test_bad_fits_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(**{"function": "sinusoidal", "net": "siren", "steps": 1} | call)
