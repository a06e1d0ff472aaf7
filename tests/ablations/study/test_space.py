"""The search space: which settings trials may change, to what, and where a value lies in its range."""

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.slots.slot import slots_named
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.proposals import Proposals
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.tuner import settings_to_try
from trans4init.ablations.study.work import build_model, build_task, check_study
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import CellKey
from trans4init.reports.records.tuning_design import TunedRange, TuningDesign

SPACE = "learning_rate = { low = 1e-3, high = 1e-1, log = true }"
TUNED = CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp")


@pytest.mark.parametrize(
    "tuned",
    [
        TunedRange("a", 2, 6, step=2, integer=True),
        TunedRange("b", 1, 5, integer=True),
        TunedRange("c", 1, 64, log=True, integer=True),
        TunedRange("d", 0.1, 0.5, step=0.2),
        TunedRange("e", choices=("x", True, (8, 8), 3)),
    ],
)
def test_a_range_of_few_values_has_each_of_them_in_equal_parts_and_no_other(tuned):
    values = [tuned.at(n / 999) for n in range(1000)]
    assert all(tuned.has(value) for value in values)
    assert all(tuned.at(tuned.place(value)) == value for value in values)
    kept = {repr(value): values.count(value) for value in values}
    assert len(kept) == (tuned.count() if not tuned.log else 64)
    if not tuned.log:
        assert max(kept.values()) - min(kept.values()) <= 1
    assert not tuned.has(-7)
    assert not tuned.has("y")


def test_only_the_ends_of_a_range_of_few_values_are_its_edges_and_choices_have_none():
    whole = TunedRange("a", 2, 6, step=2, integer=True)
    assert [whole.edge(value) for value in (2, 4, 6)] == ["low", "", "high"]
    assert TunedRange("e", choices=("x", "y")).edge("x") == ""


def test_a_design_goes_through_json_and_one_of_before_has_the_fields_it_had():
    old = TuningDesign((1000,), (TunedRange("a", 1.0, 2.0, log=True),))
    assert old.as_fields() == {"seeds": [1000], "ranges": [{"name": "a", "low": 1.0, "high": 2.0, "log": True}]}
    ranges = (TunedRange("b", choices=((8,), (8, 8))), TunedRange("c", 1, 5, step=2, integer=True))
    new = TuningDesign((1,), ranges, ((2,),), "tpe", "median", ("a", "b"), (1, 5), (("c", "nuisance"),))
    assert TuningDesign.of(new.as_fields()) == new
    assert set(TuningDesign.__dataclass_fields__) == set(new.as_fields())
    assert [design.again for design in new.further()] == [()]
    assert [design.seeds for design in new.further()] == [(2,)]


def test_every_kind_of_setting_may_be_named_in_its_short_and_in_its_long_form(tiny_study):
    spec = load_study(
        str(
            tiny_study(
                (
                    SPACE,
                    "training.warmup_steps = { low = 1, high = 3 }\n"
                    '"nets.hidden" = { choices = [[4], [8]] }\n'
                    "model = { dropout = { low = 0.0, high = 0.5 } }\n"
                    "training.precision = { choices = ['float32', 'bfloat16'] }",
                )
            )
        )
    )
    assert set(spec.tuning.space) == {"warmup_steps", "nets.hidden", "model.dropout", "precision"}
    assert spec.own_settings() == {
        "warmup_steps": 2, "nets.hidden": [8], "model.dropout": 0.0, "precision": "float32"
    }  # fmt: skip
    tried = settings_to_try(spec.tuning.ranges(), spec.own_settings(), 0, 8)
    assert {type(settings["warmup_steps"]) for settings in tried} == {int}
    assert {tuple(settings["nets.hidden"]) for settings in tried} == {(4,), (8,)}
    assert len({settings["model.dropout"] for settings in tried}) == 8


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("steps = { low = 1, high = 9 }", "'steps' can't be tuned"),
        ("model.widt = { low = 8, high = 16 }", "'model.widt' can't be tuned; did you mean 'model.width'?"),
        ("model.context = { low = 8, high = 16 }", "'model.context' can't be tuned"),
        (
            "warmup_steps = { low = 0.5, high = 2.5 }",
            "warmup_steps takes whole numbers, written without a point",
        ),
        ("model.dropout = { low = 0.0, high = 1.5 }", "model.dropout can't be 1.5"),
        ("precision = { choices = ['float32', 'float8'] }", "precision can't be 'float8'"),
        ("learning_rate = { choices = [1e-2, 1e-2] }", "a choice is named twice"),
        ("learning_rate = { choices = [1e-2], low = 1e-3 }", "choices"),
        ("learning_rate = { low = 1e-3 }", "a range needs low and high, or choices"),
        ("learning_rate = { low = 1e-3, high = 1e-1, log = true, step = 1e-3 }", "a logarithmic range has no step"),
        ("learning_rate = { low = 1e-3, high = 1e-1, step = 1.0 }", "leaves one value"),
        ("learning_rate = { choices = [1e-3, 2e-3] }", "learning_rate = 0.01 is outside its range"),
        (
            "patience = { low = 1, high = 3 }",
            "patience has no value of its own, which the first trial tries: set it in",
        ),
        ("batch = { low = 2, high = 8.0 }", "batch takes whole numbers, written without a point, not 8.0"),
        ("batch = { low = 2, high = 8, step = 0.5 }", "batch takes whole numbers: a step of 0.5 leads to others"),
        ("batch = { choices = [2, '4'] }", "batch can't be '4'"),
    ],
)
def test_a_range_that_a_setting_cant_have_is_refused_in_one_sentence(tiny_study, space, sentence):
    with pytest.raises(InputError) as caught:
        load_study(str(tiny_study((SPACE, space))))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            "nets.hiden = { choices = [[4], [8]] }",
            "no net of the study has that option; did you mean 'hidden'",
        ),
        ("nets.frequencies = { low = -4, high = 4 }", "frequencies"),
        ("model.width = { choices = [8, 9] }", "width 9 can't be shared by 2 heads evenly"),
        ("schedule = { choices = ['cosine', 'inverse-square-root'] }\nwarmup_steps = { low = 0, high = 4 }", "warm-up"),
    ],
)
def test_what_a_net_or_a_model_cant_be_is_found_before_any_run(tiny_study, tmp_path, space, sentence):
    spec = load_study(str(tiny_study((SPACE, space))))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs", "")
    with pytest.raises(InputError) as caught:
        check_study(study, "tiny.toml")
    assert sentence in str(caught.value)


def test_a_trial_builds_the_model_and_the_net_that_it_asks_for(tiny_study, tmp_path):
    space = "nets.hidden = { choices = [[4], [8]] }\nmodel.width = { choices = [8, 16] }"
    spec = load_study(str(tiny_study((SPACE, space), ('"learned-fine-tuned"', '"learned-from-scratch"'))))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs", "")
    cell, task = CellKey("sinusoidal", "learned-from-scratch", "fourier-mlp"), build_task(study)
    request = study.tune_request(cell, 1, {"nets.hidden": [4], "model.width": 16}, 1000)
    model, record = build_model(study.of(request), cell, 1000, task)
    own, own_record = build_model(study, cell, 1000, task)
    assert (model.config.width, own.config.width) == (16, 8)
    assert record.parameters_added == 8 * 4 + 4 + 4 * 16 + 16 + 4  # of [8, 4, 16] and 4 frequencies
    assert own_record.parameters_added == 8 * 8 + 8 + 8 * 8 + 8 + 4
    ids = {study.fit_request("fourier-mlp", 0, parameters).run_id for parameters in ({}, request.parameters)}
    assert len(ids) == 2
    same = study.fit_request("fourier-mlp", 0, {"learning_rate": 1.0})
    assert same.run_id == study.fit_request("fourier-mlp", 0).run_id
    assert study.of(request).checkpoint("fourier-mlp").name in ids


def test_a_searched_net_has_of_the_sizes_those_that_its_kind_has(tiny_study, tmp_path):
    nets = '[[nets]]\nname = "fourier-mlp"\nhidden = [8]\nfrequencies = 4'
    space = 'net = { choices = ["fourier-mlp", "siren"] }\nnets.frequencies = { low = 2, high = 4 }'
    spec = load_study(str(tiny_study((nets, ""), (SPACE, space), ('"learned-fine-tuned"', '"learned-from-scratch"'))))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs", "")
    check_study(study, "tiny.toml")
    assert {cell.net for cell in spec.cells()} == {"", "searched"}
    cell, task = CellKey("sinusoidal", "learned-from-scratch", "searched"), build_task(study)
    kinds = []
    for kind in ("fourier-mlp", "siren"):
        request = study.tune_request(cell, 1, {"net": kind, "nets.frequencies": 3}, 1000)
        model, _ = build_model(study.of(request), cell, 1000, task)
        kinds += [slot.content.net.name for slot in slots_named(model, "position").values()]
    assert kinds == ["fourier-mlp", "siren"]
    with pytest.raises(InputError, match=r"leave \[\[nets\]\] out"):
        load_study(str(tiny_study((SPACE, space))))


def test_conditions_of_a_study_without_the_new_keys_are_those_of_before(tiny_study):
    """Else runs that were made before would count no more."""
    tuning = load_study(str(tiny_study())).conditions("f")["tuning"]
    assert tuning == {"seed": 0, "space": {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}}
    other = load_study(str(tiny_study(("trials = 2", 'trials = 2\nsampler = "tpe"')))).conditions("f")["tuning"]
    assert other["sampler"] == {"name": "tpe"}


def test_each_net_has_its_own_size_in_the_first_trial(tiny_study, tmp_path):
    net = '[[nets]]\nname = "fourier-mlp"\nhidden = [8]'
    two = f'[[nets]]\nname = "siren"\nhidden = [6]\n{net}'
    space = "nets.hidden = { choices = [[6], [8]] }"
    spec = load_study(str(tiny_study((SPACE, space), (net, two))))
    study = ResolvedStudy(spec, "f", capture(), tmp_path / "runs", "")
    first = {run.cell.net: run.parameters for run in study.tune_requests() if run.trial == 0}
    assert (first["siren"], first["fourier-mlp"]) == ({"nets.hidden": [6]}, {"nets.hidden": [8]})
    with pytest.raises(InputError, match=r"chooses nets.hidden: give net 'fourier-mlp' one size"):
        load_study(str(tiny_study((SPACE, space), (net, net.replace("[8]", "[[6], [8]]")))))


def test_settings_of_nets_are_tried_where_they_act_and_once_where_none_does(tiny_study, tmp_path):
    """The sizes of another kind of net would be noise to the sampler, and trials without any setting are all alike."""
    nets = '[[nets]]\nname = "fourier-mlp"\nhidden = [8]\nfrequencies = 4'
    sizes = 'net = { choices = ["fourier-mlp", "siren"] }\nnets.frequencies = { low = 2, high = 4 }'
    for tuning, sampler in (("trials = 6", "shared"), ('trials = 6\nsampler = "tpe"', "tpe")):
        spec = load_study(
            str(tiny_study((nets, ""), (SPACE, sizes), ("trials = 2", tuning), ("fine-tuned", "from-scratch")))
        )
        learned = next(cell for cell in spec.cells() if cell.net)
        assert spec.tuning.sampler.name == sampler
        assert [spec.trials(cell) for cell in spec.cells()] == [6 if cell.net else 1 for cell in spec.cells()]
        assert spec.training_runs() == 2 * 6 + 3 * 1 + spec.evaluation.seeds * len(spec.cells())
        study = ResolvedStudy(spec, "f", capture(), tmp_path / "runs", "")
        if sampler == "shared":
            tried = [run.parameters for run in study.tune_requests() if run.seed == 1000]
        else:
            proposals = Proposals(spec, learned, 0)
            proposals.learn([])
            tried = proposals.settings
        assert {frozenset(settings) for settings in tried if settings} == {
            frozenset(["net"]),
            frozenset(["net", "nets.frequencies"]),
        }
        assert all((settings["net"] == "siren") == (len(settings) == 1) for settings in tried if settings)
    assert len(tried) == 6
    with_rate = load_study(str(tiny_study((nets, ""), (SPACE, f"{sizes}\n{SPACE}"), ("fine-tuned", "from-scratch"))))
    assert [with_rate.trials(cell) for cell in with_rate.cells()] == [2] * len(with_rate.cells())
    assert with_rate.acting(with_rate.reference(), with_rate.own_settings()) == {"learning_rate": 0.01}


def test_a_grid_has_each_value_of_a_logarithmic_range_of_whole_numbers_once():
    assert TunedRange("a", 2, 5, log=True, integer=True).values() == [2, 3, 4, 5]
    assert TunedRange("b", 0.1, 0.5, step=0.1).values() == [0.1, 0.2, 0.3, 0.4, 0.5]
