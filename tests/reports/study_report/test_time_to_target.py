"""The time to a target: which step counts for each run, what is censored where, and what the report shows."""

import dataclasses
import re
import xml.etree.ElementTree

import pytest

from trans4init.reports.records.schema import CellKey, Measurement, Metric
from trans4init.reports.records.store import write_card, write_run
from trans4init.reports.records.tables import cards_from_table, cards_table
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.target_figure import draw_times
from trans4init.reports.survival import MedianTime, log_rank

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
NONE = CellKey("sinusoidal", "none")
LOSS, ACCURACY = Metric("validation_loss", "nats/token", False), Metric("accuracy", "1", True)
NEVER = 9.0
"""A loss above the target 1.5, as 0.5 is below."""


@pytest.fixture
def run(make_record):
    """A run whose loss is at the target from a step on, and which is evaluated every 100 steps up to `last`."""

    def make(cell, seed, first, last=500, **fields):
        losses = [(step, NEVER if first is None or step < first else 0.5) for step in range(100, last + 1, 100)]
        rows = [Measurement(LOSS, loss, step) for step, loss in losses]
        rows += [Measurement(ACCURACY, 1 / loss, step) for step, loss in losses]
        return make_record(cell=cell, seed=seed, run_id=f"{cell}-{seed}", measurements=tuple(rows), **fields)

    return make


@pytest.fixture
def target_card(card):
    return dataclasses.replace(card, seeds=4, cells=(ANALYTIC, FROZEN, NONE), target=("validation_loss", 1.5))


@pytest.fixture
def records(run):
    return [
        *(run(ANALYTIC, seed, first) for seed, first in enumerate((100, 200, 200, 300))),
        *(run(FROZEN, seed, first) for seed, first in enumerate((300, None, 500, 400))),
        run(NONE, 0, None, last=200, status="diverged"),
        run(NONE, 1, None, last=300, status="oom"),
        run(NONE, 2, 200),
    ]


def test_the_first_evaluation_at_the_target_counts_and_who_never_reaches_it_is_censored(records, target_card):
    analytic, frozen, none = summarise(records, target_card).times.cells
    assert [dict(cell.steps) for cell in (analytic, frozen)] == [
        {0: 100, 1: 200, 2: 200, 3: 300},
        {0: 300, 1: 500, 2: 500, 3: 400},
    ]
    assert (analytic.reached, frozen.reached) == ({0, 1, 2, 3}, {0, 2, 3})
    assert dict(none.steps) == {0: 500, 1: 300, 2: 200}  # diverged: the longest run's; out of memory: its own last
    assert none.reached == {2}
    assert (analytic.median.value, frozen.median.value, none.median.value) == (200, 400, None)


def test_a_higher_better_metric_is_reached_from_below_and_the_target_itself_is_enough(records, target_card):
    higher = dataclasses.replace(target_card, target=("accuracy", 2.0))
    same = summarise(records, higher).times
    assert same.metric == ACCURACY
    assert [cell.steps for cell in same.cells] == [
        cell.steps for cell in summarise(records, target_card).times.cells
    ]  # 1 / 0.5 is 2.0


def test_p_is_the_log_rank_tests_against_the_reference_adjusted_over_the_arms(records, target_card):
    analytic, frozen, none = summarise(records, target_card).times.cells
    reference = ([100, 200, 200, 300], [True] * 4)
    p_frozen = log_rank([300, 500, 500, 400], [True, False, True, True], *reference)
    p_none = log_rank([500, 300, 200], [False, False, True], *reference)
    assert p_frozen < p_none
    assert analytic.p_different is None
    assert frozen.p_different == pytest.approx(2 * p_frozen)
    assert none.p_different == pytest.approx(max(2 * p_frozen, p_none))


def test_where_no_one_reaches_it_there_is_no_median_and_no_p(run, target_card):
    never = [run(cell, seed, None) for cell in (ANALYTIC, FROZEN) for seed in range(3)]
    analytic, frozen = summarise(never, target_card).times.cells
    assert frozen.median == MedianTime(None, None, None)
    assert frozen.p_different is None
    assert analytic.left.shares == (1.0,)


def test_without_a_target_or_a_run_there_are_no_times(records, run, target_card):
    assert summarise(records, dataclasses.replace(target_card, target=None)).times is None
    tuned = [run(ANALYTIC, 0, 100, phase="tune")]
    assert summarise(tuned, target_card).times is None


def test_a_card_keeps_its_target(target_card, card):
    assert cards_from_table(cards_table([target_card]))[0].target == ("validation_loss", 1.5)
    assert cards_from_table(cards_table([card]))[0].target is None


@pytest.fixture
def report(records, target_card, tmp_path):
    for record in records:
        write_run(record, tmp_path / "results")
    write_card(target_card, tmp_path / "results")
    return write_report(tmp_path)


def test_the_report_has_a_row_for_each_arm(report):
    page, text = report.html.read_text(), report.markdown.read_text()
    cells = summarise(report.results.records, report.results.card).times.cells
    section = text[text.index("## Time to the target") :]
    rows = re.findall(r"^\| (.+?) \| (\d) \| (\d) \| (\S+) \[(\S+), (\S+)\] \| (\S+) \|$", section, re.MULTILINE)
    assert len(rows) == 3
    for row, cell in zip(rows, cells, strict=True):
        shown = [f"{value:.0f}" if value else "never" for value in dataclasses.astuple(cell.median)]
        p = "–" if cell.p_different is None else f"{cell.p_different:.2g}"
        assert row == (cell.label, str(len(cell.steps)), str(len(cell.reached)), *shown, p)
    assert "validation loss ≤ 1.5" in section
    assert "Time to the target" in page
    assert "never" in page


def test_the_drawing_has_a_curve_for_each_arm_and_is_the_same_each_time(report, tmp_path):
    summary = summarise(report.results.records, report.results.card)
    drawing = draw_times(summary)
    xml.etree.ElementTree.fromstring(drawing)
    assert drawing in report.html.read_text()
    assert draw_times(summary) == drawing
    for words in ("analytic", "learned-frozen · fourier-mlp", "none", "validation loss ≤ 1.5"):
        assert words in drawing


def test_a_study_without_a_target_has_no_such_section(make_record, tmp_path):
    write_run(make_record(), tmp_path / "results")
    report = write_report(tmp_path)
    assert "Time to the target" not in report.html.read_text() + report.markdown.read_text()
