"""The agenda of a grid: every block's runs once, and speeds only when nothing else is left."""

import dataclasses

import pytest

from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.grid_agenda import GridAgenda
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement


@pytest.fixture
def studies(tiny_study, tmp_path):
    """Two blocks that differ in their steps."""
    specs = [load_study(str(tiny_study(("steps = 6", f"steps = {steps}")))) for steps in (6, 7)]
    return [
        dataclasses.replace(ResolvedStudy(spec, "f", capture(), tmp_path / "runs", "again"), block=f"steps {steps}")
        for spec, steps in zip(specs, (6, 7), strict=True)
    ]


def grid_of(studies, records=(), fits=()):
    return GridAgenda(
        [Agenda(study, [r for r in records if r.spec_hash == study.spec_hash], fits) for study in studies]
    )


def finish(agenda, request):
    study = agenda.block_of(request).study
    return study.record(request, [Measurement(VALIDATION_LOSS, 1.0, 6)])


def run_all(agenda, capacity):
    """Play the coordinator: the units of work in order, and what was in flight when each began."""
    played, in_flight, records = [], [], []
    while True:
        requests = agenda.next(in_flight)
        if requests:
            played.append((requests, list(in_flight)))
            in_flight += requests
        if len(in_flight) >= capacity or not requests:
            if not in_flight:
                return played, records
            records.append(finish(agenda, in_flight.pop(0)))
            agenda.add(records[-1])


@pytest.mark.parametrize("capacity", [1, 2, 7])
def test_every_run_of_every_block_is_done_once_and_speeds_alone_at_the_end(studies, capacity):
    agenda = grid_of(studies)
    assert (agenda.done(), agenda.total()) == (0, 2 * (1 + 5 * (2 + 2) + 1))
    played, _ = run_all(agenda, capacity)
    ids = [request.run_id for unit, _ in played for request in unit]
    assert len(set(ids)) == len(ids) == 2 * (1 + 5 * 2 + 5 * 2 + 6)
    assert agenda.complete()
    assert agenda.fitted() == 2
    assert [unit[0].phase for unit, _ in played[-2:]] == ["throughput"] * 2
    assert [len({request.spec_hash for request in unit}) for unit, _ in played] == [1] * len(played)
    assert [in_flight for unit, in_flight in played if unit[0].phase == "throughput"] == [[], []]
    assert {unit[0].phase for unit, _ in played[:-2]} == {"fit", "tune", "evaluate"}


def test_the_next_block_begins_while_the_last_runs_of_the_one_before_go_on(studies):
    agenda = grid_of(studies)
    in_flight = []
    while requests := agenda.next(in_flight):
        in_flight += requests
    assert {request.spec_hash for request in in_flight} == {study.spec_hash for study in studies}
    assert "throughput" not in {request.phase for request in in_flight}


def test_a_run_belongs_to_the_block_of_its_conditions(studies):
    agenda = grid_of(studies)
    for study in studies:
        request = study.fit_request("fourier-mlp")
        assert agenda.block_of(request).study is study
        record = finish(agenda, request)
        assert agenda.block_of(record).study is study
        agenda.add(record)
        assert agenda.block_of(record).fitted() == 1
    assert agenda.fitted() == 2
    assert agenda.studies == tuple(studies)


@pytest.mark.parametrize("missing", [0, 20, 27, 50])
def test_finished_runs_of_all_blocks_are_kept(studies, missing):
    _, records = run_all(grid_of(studies), 2)
    fits = {fit.run_id for study in studies for fit in study.fit_requests()}
    assert grid_of(studies, records, fits).complete()
    left = grid_of(studies, records[:missing] + records[missing + 1 :], fits)
    assert not left.complete()
    again, _ = run_all(left, 1)
    [unit] = [unit for unit, _ in again]
    assert records[missing].run_id in {request.run_id for request in unit}


def test_runs_lost_with_their_fit_are_lost_in_their_block_alone(studies):
    agenda = grid_of(studies)
    [request] = agenda.next([])
    agenda.add(studies[0].record(request, [Measurement(VALIDATION_LOSS, None)], status="diverged"))
    assert {run.spec_hash for run, _ in agenda.lost()} == {studies[0].spec_hash}
