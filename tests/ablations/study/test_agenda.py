"""The agenda: what is wanted, in which order, given what is finished."""

from pathlib import Path

import pytest

from trans4init.ablations.study.agenda import FITS_AT_ONCE, Agenda
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement

ANALYTIC = CellKey("sinusoidal", "analytic")


def resolved(path, folder, **changes):
    return ResolvedStudy(load_study(str(path), **changes), "f", capture(), folder / "runs", "trans4init run tiny")


@pytest.fixture
def study(tiny_study, tmp_path):
    return resolved(tiny_study(), tmp_path)


def settings_of(study, trial):
    return next(dict(run.parameters) for run in study.tune_requests() if run.trial == trial)


def fits_of(study):
    """The ids of all fits of a study, whose nets are then on the disk."""
    return {request.run_id for request in study.fit_requests()}


def finish(study, request, value=1.0, status="ok"):
    return study.record(request, [Measurement(VALIDATION_LOSS, value, 6)], status=status)


def run_all(study, agenda, capacity=1, outcome=lambda request: 1.0):
    """Play the coordinator: what was run, in order."""
    played, in_flight = [], []
    while True:
        requests = agenda.next(in_flight)
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
    assert len({request.run_id for request in played}) == len(played) == 1 + 5 * 2 + 5 * 2 + 6
    assert agenda.complete()
    assert played[0].phase == "fit"
    assert [request.phase for request in played[-6:]] == ["throughput"] * 6
    assert [request.cell for request in played[-6:]] == [*study.spec.cells(), ANALYTIC]
    assert [request.label("sinusoidal") for request in (played[-6], played[-1])] == [
        "throughput analytic",
        "throughput analytic, second copy",
    ]
    assert {request.seed for request in played if request.phase == "evaluate"} == {0, 1}
    assert {request.seed for request in played if request.phase == "tune"} == {1000}


def test_trials_wait_for_nothing_but_fits_and_come_in_order(tiny_study, tmp_path):
    """What is tried doesn't depend on what was found: every worker has work at once."""
    study = resolved(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 2")), tmp_path)
    agenda = Agenda(study, [], [])
    [fit] = agenda.next([])
    agenda.add(finish(study, fit))
    in_flight = []
    while requests := agenda.next(in_flight):
        in_flight += requests
    assert [(run.trial, run.seed) for run in in_flight[::5]] == [(0, 1000), (0, 1001), (1, 1000), (1, 1001)]
    assert [run.cell for run in in_flight] == [*study.spec.cells()] * 4
    by_trial = {(run.trial, tuple(run.parameters.items())) for run in in_flight}
    assert len(by_trial) == 2  # the same settings in every cell and for every seed


def test_cells_that_need_a_fit_wait_for_it(study):
    agenda = Agenda(study, [], [])
    in_flight = list(agenda.next([]))
    while requests := agenda.next(in_flight):
        in_flight += requests
    assert {request.cell.arm for request in in_flight} == {"", "analytic", "free-table"}


@pytest.mark.parametrize("best", [0, 1])
def test_evaluation_uses_the_settings_of_the_best_trial(study, best):
    def outcome(request):
        return float(request.trial != best) if request.phase == "tune" else 1.5

    played = run_all(study, Agenda(study, [], []), outcome=outcome)
    [rate] = {request.parameters["learning_rate"] for request in played if request.phase == "evaluate"}
    assert [rate] == [settings_of(study, best)["learning_rate"]]
    assert settings_of(study, 0) != settings_of(study, 1)


def test_the_best_trial_is_that_of_the_lowest_mean_over_its_seeds(tiny_study, tmp_path):
    """Its first seed alone would choose the other one."""
    study = resolved(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 3")), tmp_path)
    losses = {0: (1.0, 3.0, 3.1), 1: (2.0, 2.1, 2.2)}

    def outcome(request):
        return losses[request.trial][request.seed - 1000] if request.phase == "tune" else 1.5

    played = run_all(study, Agenda(study, [], []), outcome=outcome)
    assert {request.trial for request in played if request.phase == "evaluate"} == {1}


def test_a_cell_is_evaluated_when_every_seed_of_every_trial_is_finished(tiny_study, tmp_path):
    study = resolved(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 2")), tmp_path)
    mine = [run for run in study.tune_requests() if run.cell == ANALYTIC]
    assert len(mine) == 4
    for missing in range(4):
        records = [finish(study, run) for n, run in enumerate(mine) if n != missing]
        agenda = Agenda(study, records, [])
        assert len(agenda.trials(ANALYTIC)) == 1
        assert agenda.evaluated(ANALYTIC) == []
        in_flight = []
        while requests := agenda.next(in_flight):
            in_flight += requests
        assert "evaluate" not in {run.phase for run in in_flight}
    agenda = Agenda(study, [finish(study, run) for run in mine], [])
    in_flight = []
    while requests := agenda.next(in_flight):
        in_flight += requests
    assert {run.cell for run in in_flight if run.phase == "evaluate"} == {ANALYTIC}


def test_trials_from_a_number_on_end_at_the_first_that_is_not_finished(tiny_study, tmp_path):
    four = (("seeds_per_trial = 1", "seeds_per_trial = 2"), ("trials = 2", "trials = 4"))
    study = resolved(tiny_study(*four), tmp_path)
    mine = [run for run in study.tune_requests() if run.cell == ANALYTIC]
    for missing, numbers in ((None, [1, 2, 3]), (7, [1, 2]), (4, [1]), (2, []), (0, [1, 2, 3])):
        records = [finish(study, run) for n, run in enumerate(mine) if n != missing]
        agenda = Agenda(study, records, [])
        found = agenda.trials_from(1, ANALYTIC)
        assert [trial.number for trial in found] == numbers
        assert found == [trial for trial in agenda.trials(ANALYTIC) if trial.number in numbers]
        assert agenda.trials_from(4, ANALYTIC) == []


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
    assert Agenda(study, records, fits_of(study)).complete()
    for missing in range(len(records)):
        agenda = Agenda(study, records[:missing] + records[missing + 1 :], fits_of(study))
        again = run_all(study, agenda)
        expected = played[-6:] if played[missing].phase == "throughput" else [played[missing]]
        assert [request.run_id for request in again] == [request.run_id for request in expected]


def test_speeds_of_two_sessions_are_measured_again_in_one(study):
    """As they are left where a kill came between the files of a repeated session."""
    played = run_all(study, Agenda(study, [], []))
    sessions = {request.run_id: "second" if n == len(played) - 1 else "first" for n, request in enumerate(played)}
    records = [
        study.record(request, [Measurement(VALIDATION_LOSS, 1.0)], notes={"session": sessions[request.run_id]})
        for request in played
    ]
    agenda = Agenda(study, records, fits_of(study))
    assert not agenda.complete()
    assert [request.run_id for request in agenda.next([])] == [request.run_id for request in played[-6:]]


def test_a_fit_without_its_checkpoint_is_done_again(study):
    played = run_all(study, Agenda(study, [], []))
    agenda = Agenda(study, [finish(study, request) for request in played], [])
    assert [request.phase for request in run_all(study, agenda)] == ["fit"]


def test_a_fit_that_failed_ends_the_runs_that_need_it_and_no_other(study):
    agenda = Agenda(study, [], [])
    [request] = agenda.next([])
    agenda.add(finish(study, request, None, status="diverged"))
    learned = {cell for cell in study.spec.cells() if cell.arm.startswith("learned-")}
    rounds = []
    while lost := agenda.lost():
        rounds.append({run.phase for run, fit in lost if fit.run_id == request.run_id and run.cell in learned})
        for run, fit in lost:
            agenda.add(finish(study, run, None, status=fit.status))
    assert rounds == [{"tune"}, {"evaluate"}]
    played = run_all(study, agenda)
    assert {run.cell for run in played} == set(study.spec.cells()) - learned  # speeds of the others are measured
    assert agenda.complete()


def per_run(tiny_study, tmp_path):
    return resolved(tiny_study(("[fit]\n", '[fit]\nseeds = "per-run"\n')), tmp_path)


def test_fits_of_a_net_are_one_unit_with_a_seed_for_each_run(tiny_study, tmp_path):
    study = per_run(tiny_study, tmp_path)
    agenda = Agenda(study, [], [])
    fits = agenda.next([])
    assert [(run.phase, run.seed) for run in fits] == [("fit", 1000), ("fit", 0), ("fit", 1)]
    assert agenda.total() == 3 + 5 * (2 + 2) + 1
    assert len({study.checkpoint("fourier-mlp", seed) for seed in (1000, 0, 1)}) == 3
    records = [finish(study, run) for run in fits[:2]]
    at_hand = {fits[0].run_id}  # the checkpoint of seed 0 is lost
    assert [run.seed for run in Agenda(study, records, at_hand).next([])] == [0, 1]
    more = resolved(tmp_path / "tiny.toml", tmp_path, seeds=30)
    assert len(Agenda(more, [], []).next([])) == FITS_AT_ONCE


def test_a_fit_that_failed_ends_the_run_of_its_seed_alone(tiny_study, tmp_path):
    study = per_run(tiny_study, tmp_path)
    agenda = Agenda(study, [], [])
    for run in agenda.next([]):
        agenda.add(finish(study, run, status="diverged" if run.seed == 1 else "ok"))
    assert agenda.lost() == []  # whose settings aren't known yet
    while "tune" in {run.phase for run in agenda.next([])}:
        agenda.add(finish(study, *agenda.next([])))
    lost = [run for run, _ in agenda.lost()]
    assert [(run.phase, run.seed, run.cell.arm) for run in lost] == [
        ("evaluate", 1, "learned-frozen"),
        ("evaluate", 1, "learned-fine-tuned"),
    ]
    for run in lost:
        agenda.add(finish(study, run, None, status="diverged"))
    assert {run.cell for run in run_all(study, agenda)} == set(study.spec.cells())
    assert agenda.complete()


def test_more_seeds_add_runs_and_keep_the_old(study, tiny_study, tmp_path):
    played = run_all(study, Agenda(study, [], []))
    records = [finish(study, request) for request in played]
    more = resolved(tiny_study(), tmp_path, seeds=3)
    again = run_all(more, Agenda(more, records, fits_of(study)))
    assert [(request.phase, request.seed) for request in again] == [("evaluate", 2)] * 5


def test_runs_of_another_version_are_left_aside(study, tiny_study, tmp_path):
    played = run_all(study, Agenda(study, [], []))
    records = [finish(study, request) for request in played]
    other = ResolvedStudy(
        load_study(str(tiny_study(("steps = 6", "steps = 7")))), "f", capture(), tmp_path / "runs", ""
    )
    assert Agenda(other, records, fits_of(study)).done() == 0


def test_ids_depend_on_what_decides_the_result(study):
    cell = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
    ids = {
        study.evaluate_request(cell, 0, 0, {}).run_id,
        study.evaluate_request(cell, 1, 0, {}).run_id,
        study.evaluate_request(cell, 0, 0, {"learning_rate": 1.0}).run_id,
        study.evaluate_request(ANALYTIC, 0, 0, {}).run_id,
        study.tune_request(cell, 0, {}, 1000).run_id,
        study.tune_request(cell, 1, {}, 1000).run_id,
        study.tune_request(cell, 0, {}, 1001).run_id,
    }
    assert len(ids) == 7
    assert study.evaluate_request(cell, 0, 0, {}).run_id == study.evaluate_request(cell, 0, 1, {}).run_id
    assert study.record(study.evaluate_request(cell, 0, 0, {}), [Measurement(VALIDATION_LOSS, 1.0)]).run_id in ids
    assert study.folder == Path(study.results).parent


def test_more_trials_and_tuning_seeds_keep_the_runs_that_are_there(study, tiny_study, tmp_path):
    records = [finish(study, run) for run in run_all(study, Agenda(study, [], []))]
    more = resolved(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 2")), tmp_path, trials=3)
    again = run_all(more, Agenda(more, records, fits_of(more)))
    expected = [(trial, seed) for trial, seed in ((0, 1001), (1, 1001), (2, 1000), (2, 1001)) for _ in range(5)]
    assert [(run.trial, run.seed) for run in again] == expected  # all losses are equal: the first trial stays the best


def test_a_study_is_tuned_and_evaluated_again_with_settings_and_seeds_of_the_next_tuning_seed(
    study, tiny_study, tmp_path
):
    """The runs of the first time stay; the second is what another `[tuning] seed` would do."""
    records = [finish(study, run) for run in run_all(study, Agenda(study, [], []))]
    twice = resolved(tiny_study(), tmp_path, tunings=2)
    agenda = Agenda(twice, records, fits_of(twice))
    assert (agenda.done(), agenda.total()) == (1 + 5 * (2 + 2) + 1, 1 + 2 * 5 * (2 + 2) + 1)

    def outcome(run):  # the second trial is the better one: its settings are those of this time alone
        return 1.0 - (run.trial or 0)

    played = run_all(twice, agenda, outcome=outcome)
    assert [(run.phase, run.trial, run.seed) for run in played] == [
        *(("tune", trial, 2000) for trial in (0, 1) for _ in range(5)),
        *(("evaluate", 1, seed) for seed in (0, 1) for _ in range(5)),
    ]
    assert agenda.complete()
    other = resolved(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 1\nseed = 1")), tmp_path)
    assert [run.parameters for run in twice.tune_requests(1)] == [run.parameters for run in other.tune_requests()]
    assert settings_of(twice, 1) != settings_of(other, 1)
    assert [trial.number for trial in agenda.trials(ANALYTIC, 1)] == [0, 1]
    assert twice.card().tuning.again == ((2000,),)


def test_what_two_tunings_choose_alike_is_run_once(tiny_study, tmp_path):
    """The study's own settings are the first trial each time."""
    study = resolved(tiny_study(), tmp_path, tunings=3)
    agenda = Agenda(study, [], [])
    played = run_all(study, agenda, 2)
    assert sum(run.phase == "evaluate" for run in played) == 5 * 2
    assert agenda.complete()


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
