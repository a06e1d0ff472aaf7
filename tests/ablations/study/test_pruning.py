"""Pruners of Optuna's: a run is stopped by what earlier generations did, the same wherever a study was interrupted."""

from dataclasses import replace

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.optuna_names import PRUNERS
from trans4init.ablations.study.pruning import RunPruner, stops_trial
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.trained_runs import pruner_of
from trans4init.ablations.study.work import check_study
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.study_report.summary import summarise

FINE = CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp")


@pytest.fixture
def study(tiny_study, tmp_path):
    def make(tuning, seeds=2):
        changes = (("trials = 2", tuning), ("seeds_per_trial = 1", f"seeds_per_trial = {seeds}"))
        return ResolvedStudy(load_study(str(tiny_study(*changes))), "f", capture(), tmp_path / "runs", "")

    return make


MEDIAN = 'trials = 4\ngeneration = 2\npruner = { name = "median", n_startup_trials = 1 }'


def record(study, run):
    """Trial n's curve is n + 1 at both evaluations, unless its pruner stops it at the first."""
    level = (run.trial or 0) + 1.0
    rows = [Measurement(VALIDATION_LOSS, level, 3), Measurement(VALIDATION_LOSS, level, 6)]
    by_seed = study.spec.tuning.pruner.name == "wilcoxon"
    if run.phase == "tune" and not by_seed and RunPruner(study.spec, run.rivals, run.place).stops(3, level):
        return study.record(run, rows[:1], status="pruned", error="fell behind at step 3")
    return study.record(run, rows, notes={"session": "one"})


def play(study, agenda, stop=10_000):
    """Play the coordinator with all runs at once that may be; what was made."""
    made, flying = [], []
    while len(made) < stop:
        while asked := agenda.next(flying):
            flying += asked
        if not flying:
            return made
        made.append(record(study, flying.pop()))
        agenda.add(made[-1])
        for run, why in agenda.stopped():
            made.append(study.record(run, [Measurement(VALIDATION_LOSS, None)], status="pruned", error=why))
            agenda.add(made[-1])
    return made


def pruned(records):
    return sorted((r.trial, r.seed, r.error) for r in records if r.status == "pruned" and r.cell == FINE)


def test_a_run_that_is_behind_the_generations_before_is_stopped_and_its_other_seeds_never_start(study):
    tuned = study(MEDIAN)
    agenda = Agenda(tuned, [], [])
    made = play(tuned, agenda)
    assert agenda.complete()
    assert pruned(made) == [
        (2, 1000, "fell behind at step 3"),
        (2, 1001, "its trial fell behind at seed 1000"),
        (3, 1000, "fell behind at step 3"),
        (3, 1001, "its trial fell behind at seed 1000"),
    ]
    assert {run.cell for run in made if run.status == "pruned"} == set(tuned.spec.cells())  # the same in every arm
    trials = agenda.trials(FINE)
    assert [(trial.number, trial.pruned) for trial in trials] == [(0, False), (1, False), (2, True), (3, True)]
    assert {run.phase for run in made if run.status == "pruned"} == {"tune"}


@pytest.mark.parametrize("done", [4, 11, 23, 31])
def test_a_study_that_was_interrupted_stops_the_same_runs(study, done):
    tuned = study(MEDIAN)
    whole = play(tuned, Agenda(tuned, [], []))
    before = whole[:done]
    agenda = Agenda(tuned, before, [r.run_id for r in before if r.phase == "fit"])
    assert pruned(before + play(tuned, agenda)) == pruned(whole)
    assert agenda.complete()


def test_trials_of_one_generation_dont_stop_each_other(study):
    tuned = study(MEDIAN.replace("generation = 2", "generation = 4"))
    assert pruned(play(tuned, Agenda(tuned, [], []))) == []


def test_the_wilcoxon_pruner_stops_the_rest_of_a_trial_by_its_seeds(study):
    tuned = study('trials = 2\ngeneration = 1\npruner = { name = "wilcoxon", p_threshold = 0.3 }', seeds=5)
    made = play(tuned, Agenda(tuned, [], []))
    assert pruned(made) == [
        (1, seed, "its trial is worse than the best one after 2 seeds") for seed in (1002, 1003, 1004)
    ]
    assert not stops_trial(tuned.spec, [[1.0, 1.0, 1.0]], [0.5, 0.5, 0.5])


@pytest.mark.parametrize("pruner", sorted(set(PRUNERS.classes) - {"wilcoxon"}))
def test_every_pruner_stops_a_run_that_is_hopeless_and_none_that_leads(study, pruner):
    """Of eight earlier trials all are far better."""
    options = {
        "median": "n_startup_trials = 1",
        "percentile": "percentile = 25.0, n_startup_trials = 1",
        "successive-halving": "min_resource = 1",
        "hyperband": "min_resource = 1, max_resource = 9",
        "patient": 'patience = 1, wrapped = "median"',
        "threshold": "upper = 50.0",
    }[pruner]
    spec = study(f'trials = 2\npruner = {{ name = "{pruner}", {options} }}').spec
    rivals = [{step: 1.0 + n / 100 - step / 1000 for step in range(1, 10)} for n in range(8)]
    hopeless, good = (RunPruner(spec, rivals, 0) for _ in range(2))
    assert any(hopeless.stops(step, 100.0 + step) for step in range(1, 10))
    assert not any(good.stops(step, 0.5 - step / 1000) for step in range(1, 10))


def test_a_value_that_a_pruner_refuses_is_named_before_any_run(study):
    spec = study('trials = 2\npruner = { name = "percentile", percentile = 200.0 }').spec
    resolved = ResolvedStudy(spec, spec.task.fingerprint(), capture(), spec and study("trials = 2").folder, "")
    with pytest.raises(InputError, match=r"\[tuning\] pruner percentile .* can't be used"):
        check_study(resolved, "tiny.toml")


def test_the_report_counts_pruned_runs_apart_from_those_that_went_wrong(study):
    tuned = study(MEDIAN)
    summary = summarise(play(tuned, Agenda(tuned, [], [])), tuned.card())
    assert summary.pruned == 5 * 4
    assert summary.failures == ()
    assert summary.card.tuning.pruner == "median (n_startup_trials = 1)"


def test_a_pruner_goes_by_the_metric_that_the_study_judges(study, tmp_path):
    """Perplexity is measured at the end alone; what is measured on the way is what the pruner is asked with."""
    spec = study("trials = 2\npruner = 'median'").spec
    at_the_end = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"metric": "perplexity"})})
    with pytest.raises(InputError, match=r"pruner 'median' can't go by perplexity, which is measured at a run's end"):
        check_study(ResolvedStudy(at_the_end, spec.task.fingerprint(), capture(), tmp_path / "runs", ""), "tiny.toml")
    resolved = ResolvedStudy(spec, "f", capture(), tmp_path / "runs", "")
    request = resolved.tune_request(FINE, 1, {"learning_rate": 0.01}, 1000)
    rivals = tuple({3: 1.0, 6: 0.9} for _ in range(6))
    stops = pruner_of(resolved, replace(request, rivals=rivals))
    assert stops(3, [Measurement(ACCURACY, 0.1, 3), Measurement(VALIDATION_LOSS, 5.0, 3)])
    stops = pruner_of(resolved, replace(request, rivals=rivals))
    assert not stops(3, [Measurement(ACCURACY, 9.0, 3), Measurement(VALIDATION_LOSS, 0.5, 3)])
