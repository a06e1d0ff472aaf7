"""Optuna's database follows the finished trials: each with its settings, its mean, and every tuning seed's value."""

import dataclasses
import statistics
import time

import optuna
import pytest

from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.optuna_database import BEST, BEST_SO_FAR, OptunaDatabase
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.files import sqlite_address
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import ACCURACY, PARAMETERS, VALIDATION_LOSS, WALL_TIME
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.study_report.tuning import trials_of

ANALYTIC = CellKey("sinusoidal", "analytic")
SEEDS = (1000, 1001)


@pytest.fixture
def tmp_path(tmp_path):
    """A folder whose name has characters with a meaning in addresses of databases."""
    folder = tmp_path / "it's a?%41{x}#b"
    folder.mkdir()
    return folder


@pytest.fixture
def study(tiny_study, tmp_path):
    (tmp_path / "runs").mkdir()
    spec = load_study(str(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 2"))), trials=3)
    return ResolvedStudy(spec, "f", capture(), tmp_path / "runs", "")


def finish(study, request, value, status="ok", metric=VALIDATION_LOSS):
    return study.record(request, [Measurement(metric, value, 6)], status=status)


def trials(study, losses, metric=VALIDATION_LOSS):
    """The trials of the first cell, whose losses are given by seed; None stands for a run that diverged."""
    requests = [request for request in study.tune_requests() if request.cell == ANALYTIC]
    records = [
        finish(study, request, value, "diverged" if value is None else "ok", metric)
        for request, value in zip(requests, [value for pair in losses for value in pair], strict=False)
    ]
    return trials_of(records, study.spec.metric(), 3, SEEDS)


def stored(study):
    name = f"tiny / {ANALYTIC.function} / {ANALYTIC}"
    return optuna.load_study(study_name=name, storage=sqlite_address(study.folder / "optuna.db"))


LOSSES = [(2.0, 2.5), (1.0, 1.75), (3.0, 3.5)]


def test_a_trial_has_its_settings_its_mean_and_the_value_of_every_seed(study):
    finished = trials(study, LOSSES)
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, finished)
    kept = stored(study).trials
    assert [trial.value for trial in kept] == [2.25, 1.375, 3.25]
    assert [trial.params for trial in kept] == [dict(trial.settings) for trial in finished]
    assert kept[0].params == {"learning_rate": 1e-2}
    assert {trial.state.name for trial in kept} == {"COMPLETE"}
    for trial, losses, whole in zip(kept, LOSSES, finished, strict=True):
        for seed, loss, run in zip(SEEDS, losses, whole.runs, strict=True):
            assert trial.user_attrs[f"validation_loss of seed {seed}"] == loss
            assert trial.user_attrs[f"run of seed {seed}"] == run.run_id
            assert trial.user_attrs[f"status of seed {seed}"] == "ok"
    assert stored(study).best_trial.number == 1


def test_trials_are_stored_once_and_in_whatever_session(study):
    for count in (1, 3, 3):
        OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES)[:count])
        assert len(stored(study).trials) == count


def test_a_trial_with_a_run_that_diverged_is_a_failed_one(study):
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, [(2.0, None), (3.0, 4.0)]))
    failed, whole = stored(study).trials
    assert (failed.state.name, failed.value, whole.state.name, whole.value) == ("FAIL", None, "COMPLETE", 3.5)
    assert failed.user_attrs["validation_loss of seed 1000"] == 2.0
    assert failed.user_attrs["validation_loss of seed 1001"] is None
    assert failed.user_attrs["status of seed 1001"] == "diverged"
    again = OptunaDatabase(study.spec, study.folder)  # by a command that tried the run again
    again.keep(ANALYTIC, trials(study, [(2.0, 2.25), (3.0, 4.0)]))
    assert [trial.value for trial in stored(study).trials] == [2.125, 3.5]


def test_a_dashboard_finds_the_metrics_name_with_its_unit_the_curve_and_when_it_was(study):
    """The curve is the mean over the seeds, and the time is from the first run's start to the last one's end."""
    records = []
    for request, shift in zip(study.tune_requests()[::5][:2], (0.0, 1.0), strict=True):
        rows = [Measurement(VALIDATION_LOSS, value, step) for step, value in ((3, 5.5 + shift), (6, 4.5 + 3 * shift))]
        rows += [Measurement(VALIDATION_LOSS, None, 4), Measurement(WALL_TIME, 8.0 + shift, 6)]
        records.append(study.record(request, rows))
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials_of(records, study.spec.metric(), 1, SEEDS))
    kept = stored(study)
    assert kept.metric_names == ["validation_loss (nats/token)"]
    [trial] = kept.trials
    assert trial.intermediate_values == {3: 6.0, 6: 6.0}
    assert trial.duration.total_seconds() == pytest.approx(9.0, abs=0.5)
    assert trial.datetime_complete.timestamp() == pytest.approx(records[1].created_at.timestamp())


def test_a_lost_database_comes_back_from_the_results(study):
    finished = trials(study, LOSSES)
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, finished)
    (study.folder / "optuna.db").unlink()
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, finished)
    assert [trial.value for trial in stored(study).trials] == [2.25, 1.375, 3.25]


def test_a_broken_database_is_set_aside(study):
    (study.folder / "optuna.db").write_bytes(b"not a database, " * 100)
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    assert len(stored(study).trials) == 3
    assert (study.folder / "optuna.db.corrupt").exists()


def test_the_best_trial_is_marked_and_so_is_each_that_was_better_than_all_before(study):
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    assert stored(study).user_attrs[BEST] == 1
    assert [trial.user_attrs[BEST_SO_FAR] for trial in stored(study).trials] == [True, True, False]


def test_of_trials_that_diverged_the_first_is_marked_until_one_has_a_value(study):
    database = OptunaDatabase(study.spec, study.folder)
    marks = []
    for trial in trials(study, [(2.0, None), (1.0, None), (9.0, 9.0)]):
        database.keep(ANALYTIC, [trial])
        marks.append(stored(study).user_attrs[BEST])
    assert marks == [0, 1, 2]


def test_a_mark_that_a_kill_left_behind_is_mended(study):
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    stored(study).set_user_attr(BEST, 0)
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    assert stored(study).user_attrs[BEST] == 1


def test_a_trial_that_is_finished_before_its_predecessor_waits_for_it(study):
    """So that Optuna's numbers are the study's, and nothing is stored twice."""
    first, second, third = trials(study, LOSSES)
    database = OptunaDatabase(study.spec, study.folder)
    database.keep(ANALYTIC, [second])
    assert stored(study).trials == []
    database.keep(ANALYTIC, [first, second])
    database.keep(ANALYTIC, [second, third])
    assert [trial.value for trial in stored(study).trials] == [2.25, 1.375, 3.25]
    assert database.kept(ANALYTIC) == 3


def test_what_is_stored_is_read_once_and_then_only_added_to(study, monkeypatch):
    reads = []
    read = optuna.Study.get_trials
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *given, **more: reads.append(1) or read(*given, **more))
    database = OptunaDatabase(study.spec, study.folder)
    for count in (1, 2, 3):
        database.keep(ANALYTIC, trials(study, LOSSES)[:count])
    assert len(reads) == 1
    monkeypatch.undo()
    assert len(stored(study).trials) == 3


def test_a_database_of_another_version_of_the_study_is_replaced(study):
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, [(2.0, 2.5), (7.0, 8.0)]))
    assert [trial.value for trial in stored(study).trials] == [2.25, 7.5]
    assert stored(study).user_attrs[BEST] == 0


def test_a_page_that_a_power_cut_has_damaged_is_found_when_the_database_is_opened(study):
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    path = study.folder / "optuna.db"
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"x" * (len(content) - 12288)
    path.write_bytes(content)
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    assert len(stored(study).trials) == 3
    assert (study.folder / "optuna.db.corrupt").exists()


def test_optunas_own_tools_work_on_the_database(study):
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, LOSSES))
    loaded = stored(study)
    history = optuna.visualization.plot_optimization_history(loaded)
    assert list(history.data[0].y) == [2.25, 1.375, 3.25]
    assert optuna.importance.get_param_importances(loaded) == {"learning_rate": 1.0}
    assert len(optuna.visualization.plot_intermediate_values(loaded).data) == 3
    assert optuna.visualization.plot_param_importances(loaded).data
    table = loaded.trials_dataframe()
    assert list(table["user_attrs_status of seed 1001"]) == ["ok"] * 3


@pytest.mark.alone
def test_one_trial_more_costs_about_the_same_after_many_as_after_few(study):
    """Reading what is stored each time would cost thirty times as much by then."""
    [model] = trials(study, LOSSES[:1])
    database, number, spent = OptunaDatabase(study.spec, study.folder), 0, {}
    for count in (20, 600):
        while number < count:
            database.keep(ANALYTIC, [dataclasses.replace(model, number=number)])
            number += 1
        times = []
        for _ in range(20):
            began = time.perf_counter()
            database.keep(ANALYTIC, [dataclasses.replace(model, number=number)])
            times.append(time.perf_counter() - began)
            number += 1
        spent[count] = statistics.median(times)
    assert spent[600] < 4 * spent[20]


@pytest.mark.parametrize(("metric", "direction"), [("accuracy", "MAXIMIZE"), ("validation_loss", "MINIMIZE")])
def test_optuna_calls_best_what_is_better_by_the_metric(tiny_study, tmp_path, metric, direction):
    path = tiny_study(
        ('source = "text.txt"\nevaluation_tokens = 64', 'name = "classification"'),
        ("context = 8", 'context = 16\nkind = "encoder"'),
        ("seeds = 2", f'seeds = 2\nmetric = "{metric}"'),
        ("seeds_per_trial = 1", "seeds_per_trial = 2"),
    )
    study = ResolvedStudy(load_study(str(path)), "f", capture(), tmp_path, "")
    measured = {"accuracy": ACCURACY, "validation_loss": VALIDATION_LOSS}[metric]
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, trials(study, [(0.25, 0.5), (0.5, 0.75)], measured))
    assert stored(study).direction.name == direction
    assert stored(study).best_trial.number == (1 if metric == "accuracy" else 0)


def test_the_best_trial_of_several_objectives_is_the_one_that_is_evaluated(tiny_study, tmp_path):
    """Half the margin is 0.025: a third trial with a lower loss makes the first the cheapest near enough again."""
    (tmp_path / "runs").mkdir()
    tuning = 'trials = 3\nobjectives = ["validation_loss", "parameters"]'
    study = ResolvedStudy(load_study(str(tiny_study(("trials = 2", tuning)))), "f", capture(), tmp_path / "runs", "")
    requests = [request for request in study.tune_requests() if request.cell == ANALYTIC]
    measured = [(1.00, 3), (1.02, 1), (0.98, 9)]
    records = [
        study.record(request, [Measurement(VALIDATION_LOSS, loss, 6), Measurement(PARAMETERS, count)])
        for request, (loss, count) in zip(requests, measured, strict=True)
    ]
    finished = trials_of(records, VALIDATION_LOSS, 3, (1000,), ("parameters",))
    database, named = OptunaDatabase(study.spec, study.folder), []
    for count in (1, 2, 3):
        database.keep(ANALYTIC, finished[:count])
        named.append(stored(study).user_attrs[BEST])
    assert named == [0, 1, 0]
    assert [trial.values for trial in stored(study).trials] == [[loss, count] for loss, count in measured]
    OptunaDatabase(study.spec, study.folder).keep(ANALYTIC, finished)  # a process that comes later changes nothing
    assert stored(study).user_attrs[BEST] == 0
