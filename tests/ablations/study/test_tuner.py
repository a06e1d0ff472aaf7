"""The tuner: the same proposals for every cell and after every interruption, and Optuna's database follows."""

import statistics

import optuna
import pytest

from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import load_study
from trans4init.ablations.study.tuner import Tuner
from trans4init.reports.files import sqlite_address
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS, WALL_TIME
from trans4init.reports.records.schema import CellKey, Measurement

ANALYTIC, FREE = CellKey("sinusoidal", "analytic"), CellKey("sinusoidal", "free-table")


@pytest.fixture
def tmp_path(tmp_path):
    """A folder whose name has characters with a meaning in addresses of databases."""
    folder = tmp_path / "it's a?%41{x}#b"
    folder.mkdir()
    return folder


@pytest.fixture
def study(tiny_study, tmp_path):
    (tmp_path / "runs").mkdir()
    spec = load_study(str(tiny_study()), trials=6)
    return ResolvedStudy(spec, "f", capture(), tmp_path / "runs", "")


def finish(study, cell, trial, parameters, value, status="ok"):
    request = study.tune_request(cell, trial, parameters)
    return study.record(request, [Measurement(VALIDATION_LOSS, value, 6)], status=status)


def tune(study, tuner, cell, trials, start=()):
    """Ask, run, tell; the loss is the distance from a rate of 0.03."""
    finished = list(start)
    for trial in range(len(finished), trials):
        parameters = tuner.parameters(cell, trial, finished)
        finished.append(finish(study, cell, trial, parameters, abs(parameters["learning_rate"] - 0.03)))
        tuner.tell(cell, finished)
    return finished


def rates(records):
    return [record.parameters["learning_rate"] for record in records]


def optuna_study(study, cell):
    return optuna.load_study(
        study_name=f"tiny / {cell.function} / {cell}", storage=sqlite_address(study.folder / "optuna.db")
    )


def test_the_first_trial_is_the_studys_own_settings(study):
    assert Tuner(study.spec, study.folder).parameters(ANALYTIC, 0, []) == {"learning_rate": 1e-2}


def test_proposals_are_in_the_space_and_cells_start_alike(study):
    tuner = Tuner(study.spec, study.folder)
    one, other = tune(study, tuner, ANALYTIC, 4), tune(study, tuner, FREE, 4)
    assert rates(one) == rates(other)
    assert len(set(rates(one))) == 4
    assert all(1e-3 <= rate <= 1e-1 for rate in rates(one))


@pytest.mark.parametrize("interrupted_after", [1, 2, 4])
def test_an_interrupted_study_proposes_what_an_uninterrupted_one_does(study, tiny_study, tmp_path, interrupted_after):
    whole = tune(study, Tuner(study.spec, study.folder), ANALYTIC, 6)
    (tmp_path / "again").mkdir()
    again = ResolvedStudy(study.spec, "f", capture(), tmp_path / "again", "")
    part = tune(again, Tuner(again.spec, again.folder), ANALYTIC, interrupted_after)
    rest = tune(again, Tuner(again.spec, again.folder), ANALYTIC, 6, part)
    assert rates(rest) == rates(whole)


def test_a_trial_that_was_asked_and_lost_is_the_same_when_asked_again(study):
    tuner = Tuner(study.spec, study.folder)
    finished = tune(study, tuner, ANALYTIC, 2)
    lost = tuner.parameters(ANALYTIC, 2, finished)
    assert Tuner(study.spec, study.folder).parameters(ANALYTIC, 2, finished) == lost
    assert len(optuna_study(study, ANALYTIC).trials) == 2


def test_the_database_holds_finished_trials_once_and_whole(study):
    finished = tune(study, Tuner(study.spec, study.folder), ANALYTIC, 3)
    tuner = Tuner(study.spec, study.folder)
    tuner.tell(ANALYTIC, finished)
    trials = optuna_study(study, ANALYTIC).trials
    assert [trial.params["learning_rate"] for trial in trials] == rates(finished)
    assert [trial.value for trial in trials] == [record.last("validation_loss") for record in finished]
    assert {trial.state.name for trial in trials} == {"COMPLETE"}


def test_a_dashboard_finds_the_metrics_name_with_its_unit_the_curve_and_when_it_was(study):
    request = study.tune_request(ANALYTIC, 0, {"learning_rate": 0.01})
    rows = [Measurement(VALIDATION_LOSS, value, step) for value, step in ((5.5, 3), (None, 4), (4.5, 6))]
    record = study.record(request, [*rows, Measurement(WALL_TIME, 2.0, 3), Measurement(WALL_TIME, 8.0, 6)])
    Tuner(study.spec, study.folder).tell(ANALYTIC, [record])
    stored = optuna_study(study, ANALYTIC)
    assert stored.metric_names == ["validation_loss (nats/token)"]
    [trial] = stored.trials
    assert trial.intermediate_values == {3: 5.5, 6: 4.5}
    assert trial.duration.total_seconds() == pytest.approx(8.0)
    assert trial.datetime_complete.timestamp() == pytest.approx(record.created_at.timestamp())


def test_the_sampler_learns_from_the_trials(study):
    """The loss is the distance from a rate of 0.03: after its random beginning, proposals come near."""
    found = rates(tune(study, Tuner(study.spec, study.folder), ANALYTIC, 40))
    distances = [abs(rate - 0.03) for rate in found]
    assert statistics.median(distances[20:]) < 0.7 * statistics.median(distances[:10]), distances


def test_a_lost_database_comes_back_from_the_results(study):
    finished = tune(study, Tuner(study.spec, study.folder), ANALYTIC, 3)
    (study.folder / "optuna.db").unlink()
    tuner = Tuner(study.spec, study.folder)
    tuner.tell(ANALYTIC, finished)
    known = optuna_study(study, ANALYTIC).trials
    assert [trial.params["learning_rate"] for trial in known] == rates(finished)


def test_a_broken_database_is_set_aside(study):
    (study.folder / "optuna.db").write_bytes(b"not a database, " * 100)
    finished = tune(study, Tuner(study.spec, study.folder), ANALYTIC, 2)
    assert len(finished) == 2
    assert (study.folder / "optuna.db.corrupt").exists()


def test_runs_without_a_value_are_failed_trials(study):
    tuner = Tuner(study.spec, study.folder)
    parameters = tuner.parameters(ANALYTIC, 0, [])
    tuner.tell(ANALYTIC, [finish(study, ANALYTIC, 0, parameters, None, "failed")])
    assert optuna_study(study, ANALYTIC).trials[0].state.name == "FAIL"
    tuner.tell(ANALYTIC, [finish(study, ANALYTIC, 0, parameters, 2.0)])  # it was tried again
    assert [trial.value for trial in optuna_study(study, ANALYTIC).trials] == [2.0]


def test_a_study_without_a_space_has_nothing_to_choose(study, tiny_study, tmp_path):
    path = tiny_study(("trials = 2\n\n[tuning.space]\nlearning_rate = { low = 1e-3, high = 1e-1, log = true }", ""))
    (tmp_path / "other").mkdir()
    assert Tuner(load_study(str(path)), tmp_path / "other").parameters(ANALYTIC, 0, []) == {}


@pytest.mark.parametrize(("metric", "direction"), [("accuracy", "MAXIMIZE"), ("validation_loss", "MINIMIZE")])
def test_the_tuner_seeks_what_is_better_by_the_metric(tiny_study, tmp_path, monkeypatch, metric, direction):
    """In the database, and in the study that proposes."""
    path = tiny_study(
        ('source = "text.txt"\nevaluation_tokens = 64', 'name = "classification"'),
        ("context = 8", 'context = 16\nkind = "encoder"'),
        ("seeds = 2", f'seeds = 2\nmetric = "{metric}"'),
    )
    study = ResolvedStudy(load_study(str(path)), "f", capture(), tmp_path, "")
    made, plain = [], optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **options: made.append(options["direction"]) or plain(**options))
    tuner = Tuner(study.spec, study.folder)
    first = study.record(study.tune_request(ANALYTIC, 0, {"learning_rate": 0.01}), [Measurement(ACCURACY, 0.25, 6)])
    tuner.parameters(ANALYTIC, 1, [first])
    tuner.tell(ANALYTIC, [first])
    assert [each.name for each in made] == [direction] * 2
    assert [trial.value for trial in optuna_study(study, ANALYTIC).trials] == [0.25 if metric == "accuracy" else None]


def test_a_space_is_searched_on_the_scale_that_it_says(tiny_study, tmp_path):
    """On a logarithmic one half of the draws are below the geometric mean, on a linear one hardly any."""
    log = "low = 1e-3, high = 1e-1, log = true"
    for scale, low_draws in ((log, range(8, 25)), (log.replace(", log = true", ""), range(8))):
        spec = load_study(str(tiny_study((log, scale))))
        tuner = Tuner(spec, tmp_path)
        drawn = [tuner.parameters(ANALYTIC, trial, [])["learning_rate"] for trial in range(1, 33)]
        assert sum(rate < 1e-2 for rate in drawn) in low_draws
        assert all(1e-3 <= rate <= 1e-1 for rate in drawn)
