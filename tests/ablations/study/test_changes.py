"""What a changed file is said to mean, without a run."""

import dataclasses
from datetime import timedelta

import pytest

from trans4init.ablations.study.changes import counts_changed, what_changed
from trans4init.ablations.study.grid import load_grid
from trans4init.ablations.study.resolving import resolve
from trans4init.reports.records.metrics import VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement


@pytest.fixture
def blocks(tmp_path, write_grid):
    """Resolves the grid with pieces of its text replaced."""
    return lambda *changes: resolve(load_grid(str(write_grid(tmp_path, *changes))), tmp_path / "runs", "again")


def evaluated(study, cells):
    requests = [study.evaluate_request(cell, 0, None, {}) for cell in cells]
    return [study.record(request, [Measurement(VALIDATION_LOSS, 1.0)]) for request in requests]


def test_nothing_is_said_of_a_file_that_did_not_change_or_has_no_runs(blocks):
    studies = blocks()
    cards = [study.card() for study in studies]
    records = [record for study in studies for record in evaluated(study, study.spec.cells())]
    assert what_changed(studies, cards, records) is None
    assert what_changed(studies, (), records) is None
    assert what_changed(blocks(("pieces = [4, 8]", "pieces = [4]")), cards, []) is None


def test_cells_that_ran_stay_those_that_did_not_must_run_and_runs_of_dropped_ones_count_no_more(blocks):
    before = blocks()
    records = [record for study in before[:2] for record in evaluated(study, study.spec.cells()[:2])]
    after = blocks(
        ('"none"]', '"corrected"]'), ("pieces = [4, 8]", "pieces = [8]"), ('"gelu", "silu"', '"gelu", "tanh"')
    )
    line = what_changed(after, [study.card() for study in before], records)
    assert line.startswith(
        "The study's file changed: 2 cells stay valid; 18 cells must run (gelu · text: learned-frozen"
    )
    assert line.endswith(
        "2 finished runs count no more (of gelu · text: learned-frozen · piecewise-linear-4, gelu · copy: "
        "learned-frozen · piecewise-linear-4)."
    )


def test_counts_that_differ_from_those_of_the_newest_runs_are_named(blocks):
    """A file that doesn't set them has those of the version that reads it."""
    before = blocks()
    old, new = evaluated(before[0], before[0].spec.cells()[:2])
    assert counts_changed(before, [old, new]) is None
    assert counts_changed(before, []) is None
    fewer = old.spec["evaluation"] | {"seeds": 1}
    old = dataclasses.replace(old, created_at=new.created_at - timedelta(1), spec=old.spec | {"evaluation": fewer})
    assert counts_changed(before, [old, new]) is None  # the newest are those of the last command
    after = blocks(("seeds = 2", "seeds = 3"), ("rounds = 2", "rounds = 4"))
    line = counts_changed(after, [old, new])
    assert (
        line == "Other counts than at the last runs: evaluation.seeds is 3, was 2. Runs that are still asked for stay."
    )
    assert counts_changed(blocks(("seeds = 2", "seeds = 3"), ("steps = 6", "steps = 7")), [new]) is None


def test_a_net_that_bisection_chose_is_no_change_of_the_file(tmp_path):
    (tmp_path / "child.toml").write_text('extends = "error-budget"\nname = "child"\nfunction = ["gelu", "silu"]\n')
    studies = resolve(load_grid(str(tmp_path / "child.toml")), tmp_path / "runs", "again")
    grown = [studies[0].with_size(5), studies[1]]
    cards = [dataclasses.replace(study.card(), block=study.block) for study in grown]
    records = evaluated(grown[0], grown[0].spec.cells())
    assert what_changed(studies, cards, records) is None
    line = what_changed((*studies[:1], dataclasses.replace(studies[1], fingerprint="other")), cards, records)
    assert "count no more" not in line
