"""Drawings are the same whatever style a person has set for their own, and write numbers, not markup."""

import re

import matplotlib as mpl
from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style


def drawn():
    with drawing_style(9):
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([0.01, 1000], [1, 2])
        axes.set(xscale="log", title="a $name$")
        return as_svg(figure)


def test_a_persons_own_style_changes_no_drawing():
    plain = drawn()
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "red"}):
        assert drawn() == plain
        assert mpl.rcParams["lines.linewidth"] == 9


def test_powers_on_a_logarithmic_axis_are_numbers():
    text = drawn()
    assert "mathdefault" not in text
    assert "a $name$" in text
    assert {"1e\N{MINUS SIGN}02", "1", "100"} <= set(re.findall("<!-- (.*) -->", text))
