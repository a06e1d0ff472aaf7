"""Draw an error budget: what becomes of the model, against the error of the net in the function's place."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.formats import number, spoken
from trans4init.reports.records.vocabulary import SYMBOLS
from trans4init.reports.study_report.error_budget import BudgetPoint, ErrorBudget
from trans4init.reports.study_report.summary import Summary

__all__ = ["draw_budget"]

_LINEAR = 2
"""Differences up to so many margins are drawn on a linear scale, larger ones on a logarithmic one."""
_ROOM = 1.6
"""The scale of differences reaches so many times as far as the largest of them, and as the margin."""


def draw_budget(summary: Summary) -> str | None:
    """Return an SVG of the paired difference against the error, both with what the words are about; None without one.

    Filled marks are equivalent to the reference, hollow ones not; the margin is grey, ε* a vertical line. The same
    summary gives the same text.
    """
    budget, card, metric = summary.error_budget, summary.card, summary.metric
    if budget is None or card is None or metric is None:
        return None
    arm = card.arm(budget.points[0].cell.arm)
    with drawing_style(9.5):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.axhspan(-card.margin, card.margin, color="#EEEEEE", zorder=0)
        axes.axhline(0, color="#999999", linewidth=1, zorder=1)
        for point in budget.points:
            _draw_point(axes, point, arm.colour, SYMBOLS.get(arm.symbol, "o"))
        if budget.tolerated is not None:
            axes.axvline(budget.tolerated.error, color="#444444", linewidth=1, linestyle="dashed", zorder=1)
            at = (budget.tolerated.error, 1)
            text = f"ε* = {number(budget.tolerated.error, 2)}"
            axes.annotate(text, at, (4, -3), ("data", "axes fraction"), "offset points", va="top")
        axes.set_xscale("log")
        _scale_differences(axes, budget, card.margin)
        relative = "relative error" if budget.unit == "1" else f"error ({budget.unit})"
        axes.set_xlabel(f"largest {relative} of the net in the place of {card.reference.function}")
        better = "higher" if metric.higher_is_better else "lower"
        axes.set_ylabel(f"{spoken(metric.name)} − {card.reference.arm}\n({metric.unit}; {better} is better)")
        return as_svg(figure)


def _draw_point(axes: Axes, point: BudgetPoint, colour: str, marker: str) -> None:
    """Draw one net: the mean, its interval, each seed as a dot, and its number of pieces."""
    comparison = point.comparison
    if comparison.mean is None:  # every run ended without a value
        return
    seeds = list(comparison.differences.values())
    axes.plot([point.error] * len(seeds), seeds, ".", color=colour, alpha=0.35, markersize=4, zorder=2)
    if comparison.interval is not None:
        bounds = [comparison.interval.low, comparison.interval.high]
        axes.plot([point.error] * 2, bounds, color=colour, linewidth=2, solid_capstyle="butt", zorder=3)
    face = colour if comparison.verdict == "equivalent" else "white"
    axes.plot([point.error], [comparison.mean], marker=marker, color=colour, markerfacecolor=face, zorder=4)
    axes.annotate(
        str(point.pieces),
        (point.error, 0),
        (0, 3),
        ("data", "axes fraction"),
        "offset points",
        ha="center",
        fontsize=8,
        color="#444444",
    )


def _scale_differences(axes: Axes, budget: ErrorBudget, margin: float) -> None:
    """Choose a scale on which the margin is seen, however large the largest difference is."""
    seeds = [value for point in budget.points for value in point.comparison.differences.values()]
    low, high = min(-margin, *seeds), max(margin, *seeds)
    if max(-low, high) > 4 * _LINEAR * margin:
        axes.set_yscale("symlog", linthresh=_LINEAR * margin, linscale=2)
    axes.set_ylim(_ROOM * low - 0.3 * margin, _ROOM * high)
