"""The error budget of a report: which error is ε*, what is tried next, and what the page shows of it."""

import dataclasses
import re
import xml.etree.ElementTree

import pytest

from trans4init.reports.records import metrics
from trans4init.reports.records.error_budget import BudgetDesign
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import write_card, write_run
from trans4init.reports.records.tables import cards_from_table, cards_table
from trans4init.reports.study_report.error_budget import budget_sentence, next_pieces, read_budget
from trans4init.reports.study_report.plan import changes
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.report_files import is_current
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.verdict import Comparison

REFERENCE = CellKey("gelu", "analytic")
ERRORS = {2: 0.09, 5: 0.02, 16: 0.003, 64: 0.0002}
"""By pieces."""


def cell(pieces):
    return CellKey("gelu", "learned-frozen", f"polyline-{pieces}")


@pytest.fixture
def budget_card(card):
    pieces = tuple((f"polyline-{pieces}", pieces) for pieces in ERRORS)
    design = BudgetDesign(pieces, ("polyline-5",), planned=7, factor=1.5)
    cells = (REFERENCE, *map(cell, ERRORS))
    return dataclasses.replace(card, reference=REFERENCE, cells=cells, seeds=10, margin=0.1, error_budget=design)


@pytest.fixture
def fits(make_record):
    """A fit of each net."""

    def fit(pieces, metric):
        rows = (Measurement(metric, ERRORS[pieces]), Measurement(metrics.FIT_TIME, 3.0))
        fitted = CellKey("gelu", "", f"polyline-{pieces}")
        return make_record(cell=fitted, phase="fit", run_id=f"fit-{pieces}", measurements=rows)

    return lambda metric=metrics.FITTED_ERROR: [fit(pieces, metric) for pieces in ERRORS]


def comparison(pieces, verdict):
    return Comparison(cell(pieces), verdict, "why", 10, (), pieces / 1000, None, None, 0.5, 0.5, None)


def read(card, fits, *verdicts):
    """The budget with these words, from the fewest pieces on."""
    found = {cell(pieces): comparison(pieces, verdict) for pieces, verdict in zip(ERRORS, verdicts, strict=True)}
    return read_budget(card, fits(), found)


@pytest.mark.parametrize(
    ("words", "tolerated", "refused", "then"),
    [
        (("worse", "worse", "equivalent", "equivalent"), 16, 5, 9),
        (("worse", "equivalent", "equivalent", "equivalent"), 5, 2, 3),
        (("worse", "inconclusive", "inconclusive", "equivalent"), 64, 16, 32),
        (("worse", "equivalent", "inconclusive", "equivalent"), 5, 2, 3),  # in doubt is not against it
        (("equivalent", "worse", "equivalent", "equivalent"), 16, 5, 9),  # worse at a smaller error is
        (("equivalent", "better", "equivalent", "equivalent"), 16, 5, 9),
        (("equivalent",) * 4, 2, None, None),
        (("worse",) * 4, None, None, None),
        (("no verdict",) * 4, None, None, None),
    ],
)
def test_the_largest_equivalent_error_below_every_certain_one(budget_card, fits, words, tolerated, refused, then):
    budget = read(budget_card, fits, *words)
    assert [point.error for point in budget.points] == sorted(ERRORS.values())
    assert (budget.tolerated.pieces if budget.tolerated else None) == tolerated
    assert (budget.refused.pieces if budget.refused else None) == refused
    assert next_pieces(budget) == then


def test_bisection_ends_within_the_factor_and_where_no_size_is_left(budget_card, fits):
    words = ("worse", "worse", "equivalent", "equivalent")
    near = dataclasses.replace(budget_card.error_budget, factor=ERRORS[5] / ERRORS[16] + 0.01)
    assert next_pieces(read(dataclasses.replace(budget_card, error_budget=near), fits, *words)) is None
    pieces = (*budget_card.error_budget.pieces, ("polyline-9", 9))  # its fit has failed
    failed = dataclasses.replace(budget_card.error_budget, pieces=pieces)
    assert next_pieces(read(dataclasses.replace(budget_card, error_budget=failed), fits, *words)) is None
    assert next_pieces(None) is None


def test_nets_without_a_fit_or_a_pair_are_left_out(budget_card, fits):
    found = {cell(pieces): comparison(pieces, "equivalent") for pieces in ERRORS}
    found[cell(5)] = dataclasses.replace(found[cell(5)], mean=None)
    budget = read_budget(budget_card, fits()[:-1], found)
    assert [point.pieces for point in budget.points] == [16, 2]
    assert read_budget(dataclasses.replace(budget_card, error_budget=None), fits(), found) is None
    found[cell(5)] = dataclasses.replace(found[cell(5)], verdict="no verdict", lost=(0, 1), differences={})
    lost = read_budget(budget_card, fits(), found)  # all of its runs diverged: no net of its error is tolerated
    assert (lost.tolerated.pieces, lost.refused.pieces) == (16, 5)
    assert "At 0.02 (5 pieces) it is without a value in any run" in budget_sentence(lost, budget_card, "nats")
    assert read_budget(budget_card, [], found) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("worse", "equivalent", "inconclusive", "equivalent"),
            "ε* = 0.02 (5 pieces): a net in the place of gelu may be so far off, and the model stays equivalent "
            "(within ±0.1 nats of validation loss), +0.005. At 0.09 (2 pieces) it is worse (+0.002). "
            "Smaller errors without this word: 0.003 (inconclusive).",
        ),
        (
            ("equivalent",) * 4,
            "ε* is at least 0.09 (2 pieces), the largest fitted error of gelu: the model stays equivalent (within ±0.1 "
            "nats of validation loss), +0.002.",
        ),
        (
            ("worse",) * 4,
            "There is no ε*: already at the smallest fitted error of gelu, 2.0e-04 (64 pieces), the model is worse "
            "(+0.064).",
        ),
        (("no verdict",) * 4, "There is no ε*: why."),
    ],
)
def test_the_sentence_says_what_was_found(budget_card, fits, words, sentence):
    assert budget_sentence(read(budget_card, fits, *words), budget_card, "nats") == sentence


def test_a_relative_error_is_called_so(budget_card, fits):
    found = {cell(16): comparison(16, "equivalent")}
    budget = read_budget(budget_card, fits(metrics.RELATIVE_FITTED_ERROR), found)
    assert "0.003 relative (16 pieces)" in budget_sentence(budget, budget_card, "nats")


def test_a_card_keeps_its_design_and_an_old_one_has_none(budget_card, card):
    assert cards_from_table(cards_table([budget_card]))[0] == budget_card
    assert cards_from_table(cards_table([card]))[0].error_budget is None
    assert (budget_card.words(), card.words()) == (7, 1)  # planned cells, though four are there


def test_what_bisection_adds_is_no_departure_and_what_a_person_adds_is(budget_card):
    def stated_without(pieces):
        before = dataclasses.replace(budget_card, cells=tuple(c for c in budget_card.cells if c != cell(pieces)))
        return dataclasses.replace(budget_card, stated=before.plan())

    assert changes(stated_without(5)) == ()
    assert changes(stated_without(16)) == ("Arms added after runs were made: learned-frozen · polyline-16.",)


SHIFTS = {2: 0.5, 5: 0.31, 16: 0.011, 64: 0.0007}


@pytest.fixture
def reported(budget_card, fits, make_record, tmp_path):
    """A folder with ten seeds of each net, whose differences from the reference are about SHIFTS; its report."""
    for record in fits():
        write_run(record, tmp_path / "results")
    for seed in range(10):
        write_run(make_record(cell=REFERENCE, seed=seed, value=2 + seed / 10), tmp_path / "results")
        for pieces, shift in SHIFTS.items():
            value = 2 + seed / 10 + shift * (1 + (seed - 4.5) / 20)
            write_run(make_record(cell=cell(pieces), seed=seed, value=value), tmp_path / "results")
    write_card(budget_card, tmp_path / "results")
    return write_report(tmp_path)


def test_the_report_has_a_row_for_each_net_by_its_error_and_marks_the_largest_tolerated(reported):
    text = reported.markdown.read_text()
    table = re.findall(r"^\| (\S+)( = ε\\\*)? \| (\d+) \| (\S+) \[(\S+), (\S+)\] \| (\w+) \|$", text, re.MULTILINE)
    assert [(float(row[0]), int(row[2]), row[6], bool(row[1])) for row in table] == [
        (0.0002, 64, "equivalent", False),
        (0.003, 16, "equivalent", True),
        (0.02, 5, "worse", False),
        (0.09, 2, "worse", False),
    ]
    by_pieces = {c.cell.net: c.comparison for c in summarise(reported.results.records, reported.results.card).cells}
    for row in table:
        compared = by_pieces[f"polyline-{row[2]}"]
        shown = [float(row[place]) for place in (3, 4, 5)]
        assert shown == pytest.approx([compared.mean, compared.interval.low, compared.interval.high], rel=0.05)
    assert "ε\\* = 0.003 (16 pieces)" in text
    assert "The words are corrected for 7 comparisons" in reported.html.read_text()


def test_the_drawing_is_whole_the_same_each_time_and_part_of_the_report(reported, tmp_path):
    drawing = reported.budget_drawing
    xml.etree.ElementTree.parse(drawing)
    text = drawing.read_text()
    for words in ("ε* = 0.003", "largest error (function values) of the net in the place of gelu", "<!-- 1e−02 -->"):
        assert words in text, words
    assert text in reported.html.read_text()
    assert write_report(tmp_path).budget_drawing.read_text() == text
    assert is_current(tmp_path, reported.results)
    drawing.unlink()
    assert not is_current(tmp_path, reported.results)


def test_a_study_without_a_budget_has_no_such_section(make_record, tmp_path):
    for seed in range(2):
        write_run(make_record(seed=seed), tmp_path / "results")
    report = write_report(tmp_path)
    assert report.budget_drawing is None
    assert "Error budget" not in report.html.read_text() + report.markdown.read_text()
