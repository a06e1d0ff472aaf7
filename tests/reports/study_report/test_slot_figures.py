"""The figure of what training made of slots: the arms that are asked about, their gains, curves and differences."""

import dataclasses
import json
import xml.etree.ElementTree

import numpy as np
import pytest
from safetensors.numpy import save

from trans4init.ablations.slots.arms import get_arm
from trans4init.reports.records.kept_slots import HEADER, write_kept
from trans4init.reports.records.schema import CellKey
from trans4init.reports.records.store import write_run
from trans4init.reports.study_report import slot_figures
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.slot_figures import draw_slots
from trans4init.reports.study_report.summary import summarise

ANALYTIC = CellKey("sinusoidal", "analytic")
TUNED = CellKey("sinusoidal", "learned-fine-tuned", "siren")
GAINED = CellKey("sinusoidal", "gained")
NONE = CellKey("sinusoidal", "free-table")
CELLS = (ANALYTIC, TUNED, GAINED, NONE)
INPUTS = np.arange(4, dtype=np.float32)
WAVES = np.stack([np.sin(INPUTS + 1), np.cos(INPUTS), 1e-3 * INPUTS], axis=1).astype(np.float32)
"""A closed form of three dimensions, the last of which is nearly 0."""


@pytest.fixture
def records(make_record, card):
    """Two seeds of an arm that is asked about, of a control that is drawn, and of one that isn't."""
    arms = tuple(get_arm(cell.arm).description() for cell in CELLS)
    card = dataclasses.replace(card, cells=CELLS, arms=arms, reference=ANALYTIC)
    return [make_record(cell=cell, seed=seed, card=card) for cell in CELLS for seed in (0, 1)]


@pytest.fixture
def drawn(records, tmp_path, monkeypatch):
    """Draws the figure of what the runs kept; its axes, a row for each arm, and what is said of it."""
    figures = []
    monkeypatch.setattr(slot_figures, "as_svg", lambda figure: figures.append(figure) or "<svg/>")

    def draw():
        drawing = draw_slots(summarise(records), tmp_path)
        axes = figures[-1].axes if figures else []
        return [axes[row : row + 2] for row in range(0, len(axes), 2)], drawing

    return draw


def keep(folder, record, values, closed=WAVES, inputs=INPUTS, **header):
    """What a run kept: values by the slot's path."""
    tensors = {f"values/{path}": value.astype(np.float32) for path, value in values.items()}
    tensors |= {"inputs": inputs} | ({} if closed is None else {"closed": closed})
    header = {"slot": "position", "integer": True} | header
    write_kept(folder, record.run_id, save(tensors, {HEADER: json.dumps(header)}))


def lines(axes, colour):
    """The lines of a colour, by their width: the seeds', then their mean."""
    same = [line for line in axes.lines if line.get_color() == colour]
    return [line.get_ydata() for line in sorted(same, key=lambda line: line.get_linewidth())]


def runs_of(records, cell):
    return [record for record in records if record.cell == cell]


def test_gains_and_differences_are_those_of_the_kept_values(records, drawn, tmp_path):
    gains = {0: np.array([0.5, 2.0, 1.0]), 1: np.array([1.5, 1.0, 1.0])}
    for record in runs_of(records, GAINED):
        keep(tmp_path, record, {"position": WAVES * gains[record.seed]})
    [[left, right]], drawing = drawn()
    colour = get_arm("gained").colour
    assert left.get_title(loc="left") == "gained"
    clear = lines(left, colour)
    np.testing.assert_allclose(clear, [[0.5, 2], [1.5, 1], [1, 1.5]], rtol=1e-5)
    off = [np.sqrt((((gains[seed] - 1) * WAVES) ** 2).mean(axis=1)) for seed in (0, 1)]
    np.testing.assert_allclose(lines(right, colour), [*off, np.mean(off, axis=0)], rtol=1e-5)
    assert "the mean over 2 seeds" in drawing.caption
    assert "a tenth of the largest" in drawing.caption


def test_a_function_of_one_value_is_drawn_as_its_curve_in_each_slot(records, drawn, tmp_path):
    closed = (INPUTS[:, None] ** 2).astype(np.float32)
    for record in runs_of(records, TUNED):
        values = {"one": closed + 1 + record.seed, "two": closed - 3}
        keep(tmp_path, record, values, closed, slot="activation", integer=False)
    [[left, right]], drawing = drawn()
    colour = get_arm("learned-fine-tuned").colour
    assert left.get_title(loc="left") == "learned-fine-tuned · siren"
    expected = [1, 2, -3, -3, 1.5, -3]  # the seeds' of both slots, and their means
    np.testing.assert_allclose(lines(right, colour), [[off] * 4 for off in expected], rtol=1e-6)
    np.testing.assert_allclose(lines(left, colour)[0], closed[:, 0] + 1)
    [dashed] = [line for line in left.lines if line.get_linestyle() == "--"]
    assert dashed.get_ydata().tolist() == closed[:, 0].tolist()
    assert "2 slots" in drawing.caption


def test_the_arms_that_are_asked_about_and_the_changed_forms_are_drawn_and_no_others(records, drawn, tmp_path):
    for record in records:
        keep(tmp_path, record, {"position": WAVES})
    rows, _ = drawn()
    assert [left.get_title(loc="left") for left, _ in rows] == ["learned-fine-tuned · siren", "gained"]


def test_without_files_there_is_no_figure(drawn):
    rows, drawing = drawn()
    assert (rows, drawing.svg, drawing.unreadable) == ([], None, ())


def test_a_slot_without_a_closed_form_or_values_is_not_drawn(records, drawn, tmp_path):
    for record in records:
        keep(tmp_path, record, {"position": WAVES}, closed=None)
    assert drawn()[1].svg is None


def test_a_damaged_file_is_said_on_the_page_and_the_other_seed_is_drawn(records, tmp_path):
    for record in records:
        write_run(record, tmp_path / "results")
    first, second = runs_of(records, GAINED)
    keep(tmp_path, first, {"position": WAVES})
    write_kept(tmp_path, second.run_id, b"damaged")
    page = write_report(tmp_path).html.read_text()
    assert f"What a run kept of its slots is left out: {second.run_id}.safetensors can&#39;t be read" in page
    assert "the mean over 1 seed;" in page


def test_the_drawing_is_the_same_every_time_and_an_svg(records, tmp_path):
    for record in records:
        keep(tmp_path, record, {"position": WAVES * (1 + record.seed)})
    drawings = [draw_slots(summarise(records), tmp_path).svg for _ in range(2)]
    assert drawings[0] == drawings[1]
    assert xml.etree.ElementTree.fromstring(drawings[0]).tag.endswith("svg")
