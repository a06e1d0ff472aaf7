"""The agenda: what is wanted, in which order, given what is finished."""

from pathlib import Path

import pytest

from trans4init.ablations.study.agenda import Agenda, best_trial
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import load_study
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement

ANALYTIC = CellKey("sinusoidal", "analytic")


@pytest.fixture
def study(tiny_study, tmp_path):
    return ResolvedStudy(load_study(str(tiny_study())), "f", capture(), tmp_path / "runs", "trans4init run tiny")


def propose(cell, trial, finished):
    return {"learning_rate": 0.01 * (trial + 1)}


def finish(study, request, value=1.0, status="ok"):
    return study.record(request, [Measurement(VALIDATION_LOSS, value, 6)], status=status)


def run_all(study, agenda, capacity=1, outcome=lambda request: 1.0):
    """Play the coordinator: what was run, in order."""
    played, in_flight = [], []
    while True:
        requests = agenda.next(in_flight, propose)
        if requests:
            in_flight += requests
            played += requests
        if len(in_flight) >= capacity or not requests:
            if not in_flight:
                return played
            request = in_flight.pop(0)
            agenda.add(finish(study, request, outcome(request)))


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_everything_is_run_once_and_in_phases(study, capacity):
    agenda = Agenda(study, [], [])
    assert (agenda.done(), agenda.total()) == (0, 1 + 5 * (2 + 2) + 1)
    played = run_all(study, agenda, capacity)
    assert len({request.run_id for request in played}) == len(played) == 1 + 5 * 2 + 5 * 2 + 5
    assert agenda.complete()
    assert played[0].phase == "fit"
    assert [request.phase for request in played[-5:]] == ["throughput"] * 5
    assert {request.seed for request in played if request.phase == "evaluate"} == {0, 1}
    assert {request.seed for request in played if request.phase == "tune"} == {1000}


def test_trials_of_a_cell_follow_each_other(study):
    """Trial 1 is proposed when trial 0 is known, whatever the other workers do."""
    agenda = Agenda(study, [], [])
    first = agenda.next([], propose)
    in_flight = list(first)
    while requests := agenda.next(in_flight, propose):
        in_flight += requests
    cells = [request.cell for request in in_flight if request.phase == "tune"]
    assert len(cells) == len(set(cells))
    assert {request.trial for request in in_flight if request.phase == "tune"} == {0}


def test_a_trial_is_proposed_from_the_finished_trials_of_its_own_cell(study):
    proposals = []

    def noting(cell, trial, finished):
        proposals.append((cell, trial, [(record.cell, record.trial) for record in finished]))
        return propose(cell, trial, finished)

    agenda = Agenda(study, [], [])
    while requests := agenda.next([], noting):
        for request in requests:
            agenda.add(finish(study, request))
    assert {(cell, trial) for cell, trial, _ in proposals} == {(c, t) for c in study.spec.cells() for t in (0, 1)}
    assert all(finished == [(cell, n) for n in range(trial)] for cell, trial, finished in proposals)


def test_cells_that_need_a_fit_wait_for_it(study):
    agenda = Agenda(study, [], [])
    in_flight = list(agenda.next([], propose))
    while requests := agenda.next(in_flight, propose):
        in_flight += requests
    assert {request.cell.arm for request in in_flight} == {"", "analytic", "free-table"}


def test_evaluation_uses_the_settings_of_the_best_trial(study):
    agenda = Agenda(study, [], [])

    def outcome(request):
        return {0: 2.0, 1: 1.0}[request.trial] if request.phase == "tune" else 1.5

    played = run_all(study, agenda, outcome=outcome)
    assert {request.parameters["learning_rate"] for request in played if request.phase == "evaluate"} == {0.02}


def test_a_study_with_nothing_to_tune_has_no_trials(tiny_study, tmp_path):
    """Its models have the study's own settings, and no run is spent on finding that out."""
    space = "trials = 2\n\n[tuning.space]\nlearning_rate = { low = 1e-3, high = 1e-1, log = true }\n"
    study = ResolvedStudy(load_study(str(tiny_study((space, "")))), "f", capture(), tmp_path / "runs", "")
    agenda = Agenda(study, [], [])
    played = run_all(study, agenda)
    assert agenda.complete()
    assert agenda.total() == 1 + 5 * 2 + 1
    assert {request.phase for request in played} == {"fit", "evaluate", "throughput"}
    assert {(request.trial, *request.parameters) for request in played} == {(None,)}


def test_evaluation_goes_seed_by_seed(study):
    played = run_all(study, Agenda(study, [], []))
    seeds = [request.seed for request in played if request.phase == "evaluate"]
    assert seeds == sorted(seeds)


def test_finished_runs_are_not_wanted_again(study):
    played = run_all(study, Agenda(study, [], []))
    records = [finish(study, request) for request in played]
    assert Agenda(study, records, ["fourier-mlp"]).complete()
    for missing in range(len(records)):
        agenda = Agenda(study, records[:missing] + records[missing + 1 :], ["fourier-mlp"])
        again = run_all(study, agenda)
        expected = played[-5:] if played[missing].phase == "throughput" else [played[missing]]
        assert [request.run_id for request in again] == [request.run_id for request in expected]


def test_speeds_of_two_sessions_are_measured_again_in_one(study):
    """As they are left where a kill came between the files of a repeated session."""
    played = run_all(study, Agenda(study, [], []))
    sessions = {request.run_id: "second" if n == len(played) - 1 else "first" for n, request in enumerate(played)}
    records = [
        study.record(request, [Measurement(VALIDATION_LOSS, 1.0)], notes={"session": sessions[request.run_id]})
        for request in played
    ]
    agenda = Agenda(study, records, ["fourier-mlp"])
    assert not agenda.complete()
    assert [request.run_id for request in agenda.next([], propose)] == [request.run_id for request in played[-5:]]


def test_a_fit_without_its_checkpoint_is_done_again(study):
    played = run_all(study, Agenda(study, [], []))
    agenda = Agenda(study, [finish(study, request) for request in played], [])
    assert [request.phase for request in run_all(study, agenda)] == ["fit"]


def test_a_fit_that_failed_blocks_the_arms_that_need_it_and_no_other(study):
    agenda = Agenda(study, [], [])
    [request] = agenda.next([], propose)
    agenda.add(finish(study, request, None, status="diverged"))
    played = run_all(study, agenda)
    assert {request.cell.arm for request in played} == {"analytic", "free-table"}
    assert agenda.complete()
    assert agenda.blocked(CellKey("sinusoidal", "learned-frozen", "fourier-mlp"))


def test_more_seeds_add_runs_and_keep_the_old(study, tiny_study, tmp_path):
    played = run_all(study, Agenda(study, [], []))
    records = [finish(study, request) for request in played]
    more = ResolvedStudy(load_study(str(tiny_study()), seeds=3), "f", capture(), tmp_path / "runs", "")
    again = run_all(more, Agenda(more, records, ["fourier-mlp"]))
    assert [(request.phase, request.seed) for request in again] == [("evaluate", 2)] * 5


def test_runs_of_another_version_are_left_aside(study, tiny_study, tmp_path):
    played = run_all(study, Agenda(study, [], []))
    records = [finish(study, request) for request in played]
    other = ResolvedStudy(
        load_study(str(tiny_study(("steps = 6", "steps = 7")))), "f", capture(), tmp_path / "runs", ""
    )
    assert Agenda(other, records, ["fourier-mlp"]).done() == 0


def test_the_best_trial_is_the_lowest_loss_the_earlier_on_ties_and_never_one_that_failed(study):
    def trial(number, value, status="ok"):
        return finish(study, study.tune_request(ANALYTIC, number, propose(ANALYTIC, number, [])), value, status)

    assert best_trial(study.spec, [trial(0, 2.0), trial(1, 1.0), trial(2, 1.5)])[0] == 1
    assert best_trial(study.spec, [trial(1, 1.0), trial(0, 1.0)])[0] == 0
    assert best_trial(study.spec, [trial(0, 2.0), trial(1, None, "diverged")])[0] == 0
    assert best_trial(study.spec, [trial(0, None, "diverged"), trial(1, None, "failed")])[0] == 0


def test_trials_beyond_the_budget_do_not_count(study):
    """A study was given more trials, stopped while some cells had them, and went on with the old number."""
    tried = [finish(study, study.tune_request(ANALYTIC, n, {"learning_rate": n / 100}), 3.0 - n) for n in range(3)]
    assert best_trial(study.spec, tried) == (1, {"learning_rate": 0.01})


def test_a_loss_that_is_not_a_number_is_never_the_best(study):
    tried = [finish(study, study.tune_request(ANALYTIC, n, {}), value) for n, value in enumerate((float("nan"), 2.0))]
    assert best_trial(study.spec, tried)[0] == 1


def test_ids_depend_on_what_decides_the_result(study):
    cell = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
    ids = {
        study.evaluate_request(cell, 0, 0, {}).run_id,
        study.evaluate_request(cell, 1, 0, {}).run_id,
        study.evaluate_request(cell, 0, 0, {"learning_rate": 1.0}).run_id,
        study.evaluate_request(ANALYTIC, 0, 0, {}).run_id,
        study.tune_request(cell, 0, {}).run_id,
        study.tune_request(cell, 1, {}).run_id,
    }
    assert len(ids) == 6
    assert study.evaluate_request(cell, 0, 0, {}).run_id == study.evaluate_request(cell, 0, 1, {}).run_id
    assert study.record(study.evaluate_request(cell, 0, 0, {}), [Measurement(VALIDATION_LOSS, 1.0)]).run_id in ids
    assert study.folder == Path(study.results).parent


def test_the_best_trial_by_an_accuracy_is_the_highest(tiny_study, tmp_path):
    path = tiny_study(
        ('source = "text.txt"\nevaluation_tokens = 64', 'name = "classification"'),
        ("context = 8", 'context = 16\nkind = "encoder"'),
        ("seeds = 2", 'seeds = 2\nmetric = "accuracy"'),
        ("trials = 2", "trials = 3"),
    )
    study = ResolvedStudy(load_study(str(path)), "f", capture(), tmp_path / "runs", "")
    tried = [
        study.record(study.tune_request(ANALYTIC, n, {"learning_rate": n / 100}), [Measurement(ACCURACY, value, 6)])
        for n, value in enumerate((0.5, 0.7, 0.6))
    ]
    assert best_trial(study.spec, tried) == (1, {"learning_rate": 0.01})


def test_ids_of_another_net_or_another_session_are_others(study, tiny_study, tmp_path):
    """A net's size is part of every run with it; rounds and cells are part of a throughput session alone."""

    def other(*changes):
        return ResolvedStudy(load_study(str(tiny_study(*changes))), "f", capture(), tmp_path / "runs", "")

    def ids(study):
        cells = (CellKey("sinusoidal", "learned-frozen", "fourier-mlp"), ANALYTIC)
        with_net, without = (study.evaluate_request(cell, 0, 0, {}).run_id for cell in cells)
        session = [request.run_id for request in study.throughput_requests()[:2]]
        return study.fit_request("fourier-mlp").run_id, with_net, without, *session

    mine = ids(study)
    resized, longer, smaller = (
        ids(other(change))
        for change in (
            ("hidden = [8]", "hidden = [9]"),
            ("rounds = 2", "rounds = 3"),
            ('"learned-fine-tuned", "free-table"]', '"learned-fine-tuned"]'),
        )
    )
    assert [a == b for a, b in zip(mine, resized, strict=True)] == [False, False, True, True, False]
    assert [a == b for a, b in zip(mine, longer, strict=True)] == [True, True, True, False, False]
    assert [a == b for a, b in zip(mine, smaller, strict=True)] == [True, True, True, False, False]
