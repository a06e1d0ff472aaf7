"""Samplers of Optuna's: what they propose depends on finished generations alone, for each cell by itself."""

import dataclasses

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.optuna_names import SAMPLERS
from trans4init.ablations.study.proposals import Proposals
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.work import check_study
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import PARAMETERS, VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement

SPACE = "learning_rate = { low = 1e-3, high = 1e-1, log = true }"
FEW = 'learning_rate = { choices = [1e-3, 1e-2] }\nprecision = { choices = ["float32", "bfloat16"] }'
FINE = CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp")


def resolved(path, **changes):
    return ResolvedStudy(load_study(str(path), **changes), "f", capture(), path.parent / "runs", "")


@pytest.fixture
def study(tiny_study):
    """Makes the tiny study with a sampler, or another one of its size, and other trials."""

    def make(tuning, space=SPACE, **changes):
        return resolved(tiny_study(("trials = 2", tuning), (SPACE, space)), **changes)

    return make


def loss(run):
    """Different in every cell, with a best rate between the ends."""
    rate = run.parameters.get("learning_rate", 0.01)
    return abs(rate - 0.03) * (1 + len(run.cell.arm)) + run.seed / 1e6


def play(study, agenda, stop=10_000, outcome=loss, order=-1):
    """Play the coordinator with three runs at a time, which end first come last served or otherwise; what was made."""
    made, flying = [], []
    while len(made) < stop:
        while len(flying) < 3 and (asked := agenda.next(flying)):
            flying += asked
        if not flying:
            return made
        run = flying.pop(order)
        value = outcome(run)
        rows = [Measurement(VALIDATION_LOSS, value, 6), Measurement(PARAMETERS, len(run.cell.arm))]
        notes = {"session": "one"} if run.phase == "throughput" else None
        made.append(study.record(run, rows, status="ok" if value is not None else "diverged", notes=notes))
        agenda.add(made[-1])
    return made


def proposed(records):
    return {(r.cell, r.trial, r.seed): dict(r.parameters) for r in records if r.phase == "tune"}


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.classes))
def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(study, sampler):
    space = FEW if sampler in ("grid", "brute-force") else f"{SPACE}\nwarmup_steps = {{ low = 1, high = 5 }}"
    tuned = study(f'trials = 4\nsampler = "{sampler}"\ngeneration = 2', space)
    whole = play(tuned, Agenda(tuned, [], []))
    assert len(proposed(whole)) == 5 * 4
    assert len({tuple(settings.items()) for settings in proposed(whole).values()}) > 3
    for done in (3, 9, 17):
        before = whole[:done]
        fits = [record.run_id for record in before if record.phase == "fit"]
        agenda = Agenda(tuned, before, fits)
        after = play(tuned, agenda, order=0)  # its runs end in another order
        assert proposed(before + after) == proposed(whole)
        assert agenda.complete()


def test_a_generation_knows_the_results_of_those_before_and_not_of_its_own(study):
    tuned = study('trials = 6\nsampler = { name = "tpe", n_startup_trials = 2 }\ngeneration = 3')

    def other(run):
        return loss(run) if (run.trial or 0) in worse_in else 10 - loss(run)

    worse_in = range(6)
    first = proposed(play(tuned, Agenda(tuned, [], [])))
    worse_in = range(3)
    later = proposed(play(tuned, Agenda(tuned, [], []), outcome=other))
    worse_in = range(3, 6)
    sooner = proposed(play(tuned, Agenda(tuned, [], []), outcome=other))
    assert first == later
    changed = [key for key in first if first[key] != sooner[key]]
    assert changed
    assert all(trial >= 3 for _, trial, _ in changed)


def test_each_cell_has_settings_of_its_own_that_begin_with_the_studys(study):
    tuned = study('trials = 3\nsampler = "random"')
    found = proposed(play(tuned, Agenda(tuned, [], [])))
    assert {settings["learning_rate"] for (_, trial, _), settings in found.items() if trial == 0} == {0.01}
    assert len({settings["learning_rate"] for (_, trial, _), settings in found.items() if trial == 1}) == 5
    again = study('trials = 3\nsampler = "random"\nseed = 1')
    assert proposed(play(again, Agenda(again, [], []))).values() != found.values()


def test_more_trials_keep_the_first_ones(study):
    few, more = (study(f'trials = {n}\nsampler = "tpe"\ngeneration = 2') for n in (4, 7))
    records = play(few, Agenda(few, [], []))
    fits = [record.run_id for record in records if record.phase == "fit"]
    after = play(more, Agenda(more, records, fits))
    assert {key[1] for key in proposed(after)} == {4, 5, 6}
    whole = play(more, Agenda(more, [], []))
    assert proposed(records + after) == proposed(whole)


def test_a_trial_that_diverged_is_told_as_failed_and_never_as_a_number(study):
    tuned = study('trials = 4\nsampler = "tpe"\ngeneration = 2')
    agenda = Agenda(tuned, [], [])
    play(tuned, agenda, outcome=lambda run: None if (run.phase, run.trial) == ("tune", 1) else loss(run))
    asked = agenda._proposals[FINE, 0]._study.get_trials()
    assert [trial.state.name for trial in asked[:4]] == ["COMPLETE", "FAIL", "RUNNING", "RUNNING"]
    assert asked[1].values is None


def test_a_grid_has_no_more_trials_than_points_and_needs_few_values(study):
    tuned = study('trials = 4\nsampler = "grid"', FEW)
    found = proposed(play(tuned, Agenda(tuned, [], [])))
    of_cell = [tuple(settings.values()) for (cell, _, _), settings in found.items() if cell == FINE]
    assert len(set(of_cell)) == len(of_cell) == 4
    with pytest.raises(InputError, match="sampler 'grid' has 4 points, and trials = 5"):
        study('trials = 5\nsampler = "grid"', FEW)
    with pytest.raises(InputError, match="needs choices or steps: learning_rate has neither"):
        study('trials = 2\nsampler = "brute-force"')


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        ('sampler = "tep"', "there is no sampler 'tep'; did you mean 'tpe'?"),
        ('sampler = { name = "tpe", n_startup = 2 }', "sampler 'tpe' has no option 'n_startup'; did you mean"),
        ('pruner = "medium"', "there is no pruner 'medium'; did you mean 'median'?"),
        ('objectives = ["validation_loss"]', "objectives must be two or more metrics"),
        ('objectives = ["parameters", "validation_loss"]', "objectives must begin with the judged metric"),
        ('objectives = ["validation_loss", "parameter"]', "unknown metric 'parameter'; did you mean 'parameters'?"),
        ('objectives = ["validation_loss", "parameters"]\npruner = "median"', "several objectives can't be pruned"),
        ('objectives = ["validation_loss", "parameters"]\nsampler = "cma-es"', "searches for one objective"),
        ("budgets = [2]", "budgets must ascend and be less than trials"),
        ('roles = { learning_rate = "nuisanse" }', "nuisance"),
        ('roles = { learning_rat = "nuisance" }', "it has no range in the space; did you mean 'learning_rate'?"),
        ('roles = { learning_rate = "fixed" }', "roles calls learning_rate fixed, but it has a range in the space"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_word(tiny_study, tuning, sentence):
    with pytest.raises(InputError) as caught:
        load_study(str(tiny_study(("trials = 2", f"trials = 2\n{tuning}"))))
    assert sentence in str(caught.value)


def test_optunas_own_names_are_taken_and_a_value_that_it_refuses_is_named_before_any_run(study, tmp_path):
    assert study('trials = 2\nsampler = "TPESampler"').spec.tuning.sampler.name == "tpe"
    spec = study('trials = 2\nsampler = { name = "qmc", qmc_type = "sobel" }').spec
    with pytest.raises(InputError, match=r"\[tuning\] sampler qmc .* can't be used"):
        check_study(ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs", ""), "tiny.toml")


def test_several_objectives_choose_the_cheapest_that_is_within_half_the_margin(study):
    """Half the margin is 0.025: the cheapest of the trials that are no worse by more is evaluated."""
    tuned = study('trials = 4\nsampler = "random"\nobjectives = ["validation_loss", "parameters"]')
    values = {0: (1.0, 9), 1: (1.02, 2), 2: (1.04, 1), 3: (1.01, 3)}

    def record(run):
        value, parameters = values[run.trial or 0] if run.phase == "tune" else (1.0, 1)
        return tuned.record(run, [Measurement(VALIDATION_LOSS, value, 6), Measurement(PARAMETERS, parameters, 0)])

    agenda = Agenda(tuned, [], [])
    while asked := agenda.next([]):
        for run in asked:
            agenda.add(dataclasses.replace(record(run), notes={"session": "one"}))
    assert {run.parameters["learning_rate"] for run in agenda.evaluated(FINE)} == {
        agenda.trials(FINE)[1].settings["learning_rate"]
    }


def test_an_unused_sampler_costs_no_import(tiny_study):
    assert Agenda(resolved(tiny_study()), [], [])._proposals == {}
    assert Proposals.__module__ == "trans4init.ablations.study.proposals"
