"""Draw when the runs of a study reach its target: the share of them that has, against the training step."""

from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.formats import number, spoken
from trans4init.reports.study_report.summary import Summary

__all__ = ["draw_times"]

_LINES = ("solid", "dashed", "dotted", "dashdot")
"""Cells beside each other differ in this too, so that the curves can be told apart in grey."""


def draw_times(summary: Summary) -> str | None:
    """Return an SVG with Kaplan-Meier's curve of each cell; None where the study has no target or no run.

    A stroke across a curve marks where a run is censored, a faint area the 95 % interval. The same summary gives the
    same text.
    """
    times, card = summary.times, summary.card
    if times is None or card is None:
        return None
    with drawing_style(9.5):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        axes = figure.subplots()
        end = max(step for cell in times.cells for step in cell.left.times)
        for index, cell in enumerate(times.cells):
            colour, left = card.arm(cell.cell.arm).colour, cell.left
            steps = (0.0, *left.times, end)
            shares, low, high = (
                [0.0, *(1 - share for share in of), 1 - of[-1]] for of in (left.shares, left.high, left.low)
            )
            axes.step(
                steps, shares, where="post", color=colour, linestyle=_LINES[index % len(_LINES)], label=cell.label
            )
            axes.fill_between(steps, low, high, step="post", color=colour, alpha=0.08, linewidth=0)
            censored = sorted({step for seed, step in cell.steps.items() if seed not in cell.reached})
            at = [1 - left.shares[left.times.index(step)] for step in censored]
            axes.plot(censored, at, "|", color=colour, markersize=9)
        axes.axhline(0.5, color="#999999", linewidth=1, zorder=0)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("training step")
        sign = "≥" if times.metric.higher_is_better else "≤"
        axes.set_ylabel(f"share of runs with\n{spoken(times.metric.name)} {sign} {number(times.value)}")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        return as_svg(figure)
